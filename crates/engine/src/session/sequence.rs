//! One request while it runs: its tokens, its sampler, its text, and what it measured.
//!
//! A sequence knows nothing of batches or of memory. It says which tokens it has, takes the logits of the last of them, and
//! answers with text and either a further token or an end.

use hypura_ggml::{SampleError, Sampler, Token, Vocab};
use std::time::{Duration, Instant};

use super::logprobs::{Likely, Logprobs};
use super::text::TextStream;
use super::{Finish, LogitsHash, Outcome};
use crate::media::prompt::Placed;
use crate::media::{MediaPrompt, PromptMedia};
use crate::serve::{SequenceOptions, TokenInfo};
use crate::stream::StreamStats;

/// What to run, and how.
pub(crate) struct Setup {
    /// Prompt; not empty.
    pub prompt: MediaPrompt,
    /// The request's options.
    pub options: SequenceOptions,
    /// Chooses the tokens; has seen the prompt.
    pub sampler: Sampler,
    /// Hash all logits of every decoded position.
    pub hash_logits: bool,
    /// Feed these tokens instead of the chosen ones; generation ends with them.
    pub forced: Option<Vec<Token>>,
    /// Tell of every token, also when it brought no text.
    pub every_token: bool,
}

/// A running request.
pub(crate) struct Sequence {
    /// Prompt and generated tokens.
    tokens: Vec<Token>,
    prompt: usize,
    media: PromptMedia,
    options: SequenceOptions,
    sampler: Sampler,
    text: TextStream,
    forced: Option<Vec<Token>>,
    hash: Option<LogitsHash>,
    every_token: bool,
    /// Tokens whose text is not certain yet.
    held: Vec<TokenInfo>,
    start: Instant,
    last: Instant,
    stats_at_start: StreamStats,
    /// Taken when the prompt was done.
    stats_at_decode: Option<StreamStats>,
    outcome: Outcome,
}

/// What a row of logits led to.
#[derive(Debug, Default)]
pub(crate) struct Advance {
    /// Text that is certain now; may be empty.
    pub text: String,
    /// The tokens it came from.
    pub tokens: Vec<TokenInfo>,
    /// Why the sequence is over, when it is.
    pub finish: Option<Finish>,
}

impl Sequence {
    /// Begins. `stats` are the counters of streaming now.
    pub fn new(setup: Setup, stats: StreamStats) -> Self {
        let Setup { prompt, mut options, sampler, hash_logits, forced, every_token } = setup;
        let MediaPrompt { tokens: prompt, media } = prompt;
        if !media.is_empty() {
            // A medium cannot be left out in part, nor moved: the answer ends where the context is full.
            options.shift = None;
        }
        let now = Instant::now();
        Self {
            text: TextStream::new(&options.stops),
            prompt: prompt.len(),
            outcome: Outcome::new(prompt.len()),
            tokens: prompt,
            media,
            options,
            sampler,
            forced,
            hash: hash_logits.then(LogitsHash::default),
            every_token,
            held: Vec::new(),
            start: now,
            last: now,
            stats_at_start: stats,
            stats_at_decode: None,
        }
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The medium that row `at` is of.
    pub fn media_at(&self, at: usize) -> Option<&Placed> {
        self.media.at(at)
    }

    /// Tokens of the prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// The request's options.
    pub fn options(&self) -> &SequenceOptions {
        &self.options
    }

    /// Leaves out half of what comes after the tokens that are to be kept, so that a context has room again; returns how many
    /// tokens of the beginning stayed as they were.
    pub fn shift(&mut self, context: usize) -> usize {
        let wanted = self.options.shift.map_or(0, |keep| keep as usize);
        let keep = wanted.min(self.prompt).min(context.saturating_sub(2));
        let dropped = ((context - keep) / 2).max(1);
        self.tokens.drain(keep..(keep + dropped).min(self.tokens.len()));
        self.prompt = self.prompt.min(self.tokens.len());
        keep
    }

    /// Whether to tell of what a row of logits brought.
    pub fn tells(&self, advance: &Advance) -> bool {
        self.every_token || !advance.text.is_empty() || !advance.tokens.is_empty()
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many tokens of the prompt were in memory already.
    pub fn set_reused(&mut self, reused: usize) {
        self.outcome.reused_tokens = reused;
    }

    /// Tokens of the prompt that were in memory already.
    pub fn reused(&self) -> usize {
        self.outcome.reused_tokens
    }

    /// Whether no token was chosen yet.
    pub fn in_prompt(&self) -> bool {
        self.stats_at_decode.is_none()
    }

    /// Takes the logits of the last token. `context` is how many tokens the sequence may have in memory.
    pub fn advance(
        &mut self,
        logits: &[f32],
        vocab: &Vocab,
        context: usize,
        stats: &StreamStats,
    ) -> Result<Advance, SampleError> {
        if self.stats_at_decode.is_none() {
            self.stats_at_decode = Some(*stats);
            self.outcome.prefill = self.start.elapsed();
        }
        if self.at_limit() {
            return Ok(self.end(Finish::Length));
        }
        if let Some(hash) = &mut self.hash {
            hash.add(logits);
        }
        let Some(token) = self.choose(logits)? else {
            return Ok(self.end(Finish::Length));
        };
        self.note_time();
        self.tokens.push(token);
        self.outcome.tokens.push(token);
        if vocab.is_end(token) && !self.options.ignore_end {
            return Ok(self.end(Finish::End));
        }
        let piece = vocab.piece(token, self.options.special_pieces);
        let shown = self.text.push(&piece);
        if let Some(stop) = shown.stop {
            self.outcome.stop = Some(stop);
            let tokens = std::mem::take(&mut self.held);
            return Ok(Advance { text: shown.text, tokens, finish: Some(Finish::StopString) });
        }
        let info = self.describe(token, piece, logits, vocab);
        self.held.push(info);
        let finish = if self.at_limit() {
            Some(Finish::Length)
        } else if self.tokens.len() > context && self.options.shift.is_none() {
            Some(Finish::ContextFull)
        } else {
            None
        };
        if let Some(finish) = finish {
            let mut ended = self.end(finish);
            ended.text.insert_str(0, &shown.text);
            return Ok(ended);
        }
        let tokens = if shown.text.is_empty() { Vec::new() } else { std::mem::take(&mut self.held) };
        Ok(Advance { text: shown.text, tokens, finish: None })
    }

    /// The measurements of a sequence that ended.
    pub fn finished(mut self, finish: Finish, stats: &StreamStats) -> Outcome {
        let decode_from = self.stats_at_decode.unwrap_or(*stats);
        self.outcome.finish = finish;
        self.outcome.prefill_stats = decode_from.since(&self.stats_at_start);
        self.outcome.decode_stats = stats.since(&decode_from);
        self.outcome.total = self.start.elapsed();
        if self.stats_at_decode.is_none() {
            self.outcome.prefill = self.outcome.total;
        }
        if self.outcome.tokens.is_empty() {
            self.outcome.first_token = self.outcome.total;
        }
        self.outcome.logits_hash = self.hash;
        self.outcome
    }

    fn at_limit(&self) -> bool {
        self.options.max_tokens.is_some_and(|limit| self.outcome.tokens.len() >= limit as usize)
    }

    fn end(&mut self, finish: Finish) -> Advance {
        Advance { text: self.text.finish(), tokens: std::mem::take(&mut self.held), finish: Some(finish) }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<Option<Token>, SampleError> {
        match &self.forced {
            Some(forced) => Ok(forced.get(self.outcome.tokens.len()).copied()),
            None => self.sampler.sample(logits).map(Some),
        }
    }

    fn note_time(&mut self) {
        if self.outcome.tokens.is_empty() {
            self.outcome.first_token = self.start.elapsed();
        } else {
            self.outcome.token_times.push(self.last.elapsed());
        }
        self.last = Instant::now();
    }

    fn describe(&self, token: Token, bytes: Vec<u8>, logits: &[f32], vocab: &Vocab) -> TokenInfo {
        let Some(top) = self.options.logprobs else {
            return TokenInfo { token, bytes, logprob: None, top: Vec::new() };
        };
        let logprobs = Logprobs::new(logits);
        let likely = logprobs.top(top as usize).into_iter();
        let top =
            likely.map(|Likely { token, logprob }| (token, vocab.piece(token, true), logprob)).collect();
        TokenInfo { token, bytes, logprob: Some(logprobs.of(token)), top }
    }
}
