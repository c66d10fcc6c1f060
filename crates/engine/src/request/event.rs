//! What comes back: events while a request runs, and what it did once it is over.

use hypura_ggml::Token;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{LogitsHash, RequestError, SpeculationStats};
use crate::stream::StreamStats;

/// Gets the events of a request, on the scheduler's thread: it must not block. False: nobody listens any
/// more.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// Gets the vectors of texts, once; not scaled to any length. Not called when nobody waits any more.
pub type EmbedSink = Box<dyn FnOnce(Result<Vec<Vec<f32>>, RequestError>) + Send>;

/// A generated token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub token: Token,
    /// Its bytes; a character may span several tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability before sampling, when asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens there, likeliest first: id, bytes, log-probability.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// It has a sequence.
    Started {
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// How many of them were in memory already.
        reused_tokens: u32,
        /// How long it waited.
        queued: Duration,
    },
    /// A part of its prompt was computed.
    Progress {
        /// Tokens in memory, reused ones included.
        processed: u32,
        /// Tokens of the prompt.
        total: u32,
        /// Tokens that were in memory before.
        reused: u32,
        /// Time since it started.
        elapsed: Duration,
    },
    /// A piece of the answer: whole characters, never a part of a stop string.
    Text {
        /// The piece.
        text: String,
        /// The tokens it came from; text is held back until it is certain, so there may be several.
        tokens: Vec<TokenInfo>,
    },
    /// It is over. The last event.
    Done(Box<Outcome>),
    /// It failed; others go on. The last event.
    Failed(RequestError),
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// The model ended the text.
    End,
    /// A stop string came.
    StopString,
    /// The limit of tokens was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// It said one thing over and over.
    Repeats,
    /// Somebody stopped it.
    Stopped,
}

/// What a generation did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the KV cache already.
    pub reused_tokens: usize,
    /// Generated tokens, the end token included.
    pub tokens: Vec<Token>,
    /// The stop string that ended it.
    pub stop: Option<String>,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time from the call to the first token.
    pub first_token: Duration,
    /// Time of each token after the first.
    pub token_times: Vec<Duration>,
    /// Time from the start to the end.
    pub total: Duration,
    /// What streaming did for the prompt.
    pub prefill_stats: StreamStats,
    /// What streaming did for the tokens.
    pub decode_stats: StreamStats,
    /// What became of drafts.
    pub speculation: SpeculationStats,
    /// Over all logits of every decoded position, when asked for.
    pub logits_hash: Option<LogitsHash>,
}

impl Outcome {
    /// Nothing has happened yet.
    pub(crate) fn new(prompt_tokens: usize) -> Self {
        Self {
            finish: Finish::Stopped,
            prompt_tokens,
            reused_tokens: 0,
            tokens: Vec::new(),
            stop: None,
            prefill: Duration::ZERO,
            first_token: Duration::ZERO,
            token_times: Vec::new(),
            total: Duration::ZERO,
            prefill_stats: StreamStats::default(),
            decode_stats: StreamStats::default(),
            speculation: SpeculationStats::default(),
            logits_hash: None,
        }
    }
}
