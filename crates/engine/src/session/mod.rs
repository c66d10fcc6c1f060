//! The one generation loop: prefill in ubatches, then token by token, used by every front end.
//!
//! A session owns a loaded model and one sequence. It remembers which tokens are in the KV cache, so that a prompt that
//! continues the last one is not computed again. Invariant: `cached` is what the KV cache holds, position by position,
//! also after a failure or a stop.

mod hash;
mod text;

pub use hash::LogitsHash;
pub use text::{Shown, TextStream};

use hypura_ggml::{Batch, ChatPrompt, ChatTemplates, DecodeError, Sampler, SamplerOptions, Token, Vocab};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{GenerateError, LoadError};
use crate::load::LoadedModel;
use crate::stream::StreamStats;

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<u32>,
    /// How to choose tokens.
    pub sampler: SamplerOptions,
    /// Strings that end the generation and are not shown.
    pub stops: Vec<String>,
    /// Hash all logits of every decoded position.
    pub hash_logits: bool,
    /// Feed these tokens instead of the chosen ones (benchmarks); generation ends with them.
    pub forced: Option<Vec<Token>>,
    /// Go on after tokens that end a text.
    pub ignore_end: bool,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended the text.
    End,
    /// A stop string came.
    StopString,
    /// The limit of tokens was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// Somebody stopped it.
    Stopped,
}

/// What a generation did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the KV cache already.
    pub reused_tokens: usize,
    /// Generated tokens, the end token included.
    pub tokens: Vec<Token>,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time from the call to the first token.
    pub first_token: Duration,
    /// Time of each token after the first.
    pub token_times: Vec<Duration>,
    /// What streaming did for the prompt.
    pub prefill_stats: StreamStats,
    /// What streaming did for the tokens.
    pub decode_stats: StreamStats,
    /// Over all logits of every decoded position, when asked for.
    pub logits_hash: Option<LogitsHash>,
}

/// One conversation with a loaded model.
pub struct Session {
    loaded: LoadedModel,
    vocab: Vocab,
    templates: Option<ChatTemplates>,
    batch: Batch,
    cached: Vec<Token>,
}

impl Session {
    /// Takes over a loaded model.
    #[must_use]
    pub fn new(loaded: LoadedModel) -> Self {
        let vocab = loaded.model.vocab();
        let batch = Batch::new(loaded.context.batch_capacity() as usize);
        Self { loaded, vocab, templates: None, batch, cached: Vec::new() }
    }

    /// The model.
    #[must_use]
    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    /// Its vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Forgets the conversation.
    pub fn clear(&mut self) {
        self.loaded.context.clear();
        self.cached.clear();
    }

    /// Renders messages (a JSON array in OpenAI's shape) with the model's chat template.
    ///
    /// # Errors
    /// [`GenerateError::Template`].
    pub fn render(&mut self, messages_json: &str) -> Result<ChatPrompt, GenerateError> {
        let templates = match self.templates.take() {
            Some(templates) => templates,
            None => ChatTemplates::new(&self.loaded.model, None)?,
        };
        let prompt = templates.render(messages_json)?;
        self.templates = Some(templates);
        Ok(prompt)
    }

    /// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user typed.
    #[must_use]
    pub fn tokenize_chat(&self, prompt: &ChatPrompt) -> Vec<Token> {
        if prompt.parts.is_empty() {
            return self.vocab.tokenize(&prompt.text, true, true);
        }
        let mut tokens = Vec::new();
        for (at, (text, is_input)) in prompt.parts.iter().enumerate() {
            tokens.extend(self.vocab.tokenize(text, at == 0, !is_input));
        }
        // Templates that spell out BOS themselves would give two.
        if let Some(bos) = self.vocab.bos()
            && tokens.starts_with(&[bos, bos])
        {
            tokens.remove(0);
        }
        tokens
    }

    /// Generates after `prompt`; `show` gets text as it becomes certain.
    ///
    /// # Errors
    /// [`GenerateError`]; the session can go on afterwards.
    pub fn generate(
        &mut self,
        prompt: &[Token],
        options: &GenerateOptions,
        show: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> Result<Outcome, GenerateError> {
        let start = Instant::now();
        let context = self.loaded.context.capacity() as usize;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(GenerateError::PromptTooLong { prompt: prompt.len(), context });
        }
        self.loaded.abort.store(false, Ordering::Relaxed);
        let before = self.loaded.stats.get();
        let mut hash = options.hash_logits.then(LogitsHash::default);
        let reused = self.reuse(prompt);
        let prefilled = self.prefill(&prompt[reused..]);
        let after_prefill = self.loaded.stats.get();
        let mut outcome = Outcome {
            finish: Finish::Stopped,
            prompt_tokens: prompt.len(),
            reused_tokens: reused,
            tokens: Vec::new(),
            prefill: start.elapsed(),
            first_token: start.elapsed(),
            token_times: Vec::new(),
            prefill_stats: after_prefill.since(&before),
            decode_stats: StreamStats::default(),
            logits_hash: None,
        };
        let result =
            prefilled.and_then(|()| self.decode(prompt, options, &mut hash, &mut outcome, start, show));
        outcome.decode_stats = self.loaded.stats.get().since(&after_prefill);
        outcome.logits_hash = hash;
        match result {
            Ok(finish) => outcome.finish = finish,
            Err(GenerateError::Decode(DecodeError::Aborted)) => outcome.finish = Finish::Stopped,
            Err(error) => return Err(error),
        }
        Ok(outcome)
    }

    /// Keeps the longest common beginning of the prompt and what the KV cache holds; at least the last token of the
    /// prompt is computed again, because its logits are needed.
    fn reuse(&mut self, prompt: &[Token]) -> usize {
        let common = self.cached.iter().zip(prompt).take_while(|(cached, wanted)| cached == wanted).count();
        let keep = common.min(prompt.len() - 1);
        if keep == self.cached.len() || self.truncate(keep) {
            return keep;
        }
        // A recurrent state cannot be rewound.
        self.clear();
        0
    }

    /// Drops everything from position `length` on. False when the memory cannot do that.
    fn truncate(&mut self, length: usize) -> bool {
        let done = self.loaded.context.forget(0, position(length));
        if done {
            self.cached.truncate(length);
        }
        done
    }

    fn prefill(&mut self, tokens: &[Token]) -> Result<(), GenerateError> {
        let room = self.loaded.context.batch_capacity().max(1) as usize;
        let chunks = tokens.len().div_ceil(room);
        for (at, chunk) in tokens.chunks(room).enumerate() {
            self.step(chunk, at + 1 == chunks)?;
        }
        Ok(())
    }

    /// Decodes tokens after what is cached. On failure the KV cache is as before.
    fn step(&mut self, tokens: &[Token], logits: bool) -> Result<(), GenerateError> {
        self.batch.clear();
        let first = self.cached.len();
        for (at, token) in tokens.iter().enumerate() {
            let last = at + 1 == tokens.len();
            self.batch.push(*token, position(first + at), 0, logits && last);
        }
        match self.loaded.context.decode(&self.batch) {
            Ok(()) => {
                self.cached.extend_from_slice(tokens);
                Ok(())
            }
            Err(error) => {
                if !self.loaded.context.forget(0, position(first)) {
                    self.clear();
                }
                Err(error.into())
            }
        }
    }

    fn decode(
        &mut self,
        prompt: &[Token],
        options: &GenerateOptions,
        hash: &mut Option<LogitsHash>,
        outcome: &mut Outcome,
        start: Instant,
        show: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> Result<Finish, GenerateError> {
        let mut sampler = Sampler::new(&self.vocab, &options.sampler);
        for token in prompt {
            sampler.accept(*token);
        }
        let mut text = TextStream::new(&options.stops);
        let limit = options.max_tokens.map_or(usize::MAX, |limit| limit as usize);
        let context = self.loaded.context.capacity() as usize;
        let mut last = Instant::now();
        loop {
            if outcome.tokens.len() >= limit {
                show(&text.finish())?;
                return Ok(Finish::Length);
            }
            if let Some(hash) = hash {
                hash.add(self.loaded.context.logits(-1)?);
            }
            let Some(token) = self.next_token(options, &mut sampler, outcome.tokens.len()) else {
                show(&text.finish())?;
                return Ok(Finish::Length);
            };
            if outcome.tokens.is_empty() {
                outcome.first_token = start.elapsed();
            } else {
                outcome.token_times.push(last.elapsed());
            }
            last = Instant::now();
            outcome.tokens.push(token);
            if self.vocab.is_end(token) && !options.ignore_end {
                show(&text.finish())?;
                return Ok(Finish::End);
            }
            let shown = text.push(&self.vocab.piece(token, false));
            show(&shown.text)?;
            if shown.stopped {
                return Ok(Finish::StopString);
            }
            if outcome.tokens.len() >= limit {
                continue;
            }
            if self.cached.len() >= context {
                show(&text.finish())?;
                return Ok(Finish::ContextFull);
            }
            self.step(&[token], true)?;
        }
    }

    fn next_token(&mut self, options: &GenerateOptions, sampler: &mut Sampler, at: usize) -> Option<Token> {
        match &options.forced {
            Some(forced) => forced.get(at).copied(),
            None => Some(sampler.sample(&mut self.loaded.context, -1)),
        }
    }
}

/// Loads and wraps in one step, for callers with nothing to do in between.
///
/// # Errors
/// [`LoadError`].
pub fn open(planned: crate::load::Planned, progress: &mut dyn FnMut(u64, u64)) -> Result<Session, LoadError> {
    crate::load::load(planned, progress).map(Session::new)
}

fn position(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
