//! What a request asks for: prompt, sampling, limits, grammar.

use hypura_ggml::{Grammar, SamplerOptions};
use serde::{Deserialize, Serialize};

use super::Prompt;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its prompt.
    pub prompt: Prompt,
    /// How to answer.
    pub options: Options,
}

/// How often the text of a token may come again in answers whose length nobody bounded: Ollama's limit.
pub const REPEAT_LIMIT: u32 = 30;

/// How to answer a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<u32>,
    /// How to choose tokens.
    pub sampler: SamplerOptions,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// Strings that end the answer and are not shown.
    pub stops: Vec<String>,
    /// Tell log-probabilities, and those of the likeliest n tokens.
    pub logprobs: Option<u32>,
    /// At least this many tokens of context; clamped to what the plan has room for.
    pub num_ctx: Option<u32>,
    /// The context may grow up to so many tokens while the answer is written, instead of ending it or
    /// dropping a part of it; `None`: it stays as it was when the answer began.
    pub num_ctx_most: Option<u32>,
    /// Where the context is full, go on without half of what comes after so many tokens of the beginning;
    /// otherwise, and after a prompt with media, the answer ends there.
    pub shift: Option<u32>,
    /// Go on after tokens that end a text.
    pub ignore_end: bool,
    /// End the answer where the text of a token came again more often than this, one after the other.
    pub repeat_limit: Option<u32>,
    /// Show control tokens as text: the chat parser reads them.
    pub special_pieces: bool,
    /// Most drafts of a step; `None`: as many as the price allows; 0: none.
    pub draft_most: Option<u32>,
    /// A text that the answer is probably like, for prompt lookup.
    pub prediction: Option<String>,
    /// Tell of every batch of the prompt.
    pub progress: bool,
}
