//! The one generation loop: sequences that join and leave between steps, used by every front end.
//!
//! - `sequence`: one request while it runs
//! - `memory`: who has which tokens in the KV cache
//! - `batcher`: the loop: one step for all running sequences
//! - `media`: steps of rows that are no tokens
//! - `divide`: who gets how much of a step
//! - `grow`: a larger context without loading anything again
//! - `embed`: embeddings of texts
//! - `recall`, `kv_disk`: idle conversations to disk and back
//! - `text`, `logprobs`, `hash`: from tokens and logits to what is shown
//!
//! A [`Session`] is that loop with a single sequence, driven on the caller's thread; the server's scheduler
//! ([`crate::serve`]) drives the same loop for many.

pub(crate) mod batcher;
mod divide;
pub(crate) mod embed;
pub(crate) mod grow;
mod hash;
mod kv_disk;
mod logprobs;
mod media;
pub(crate) mod memory;
mod recall;
pub(crate) mod sequence;
mod text;

pub use hash::LogitsHash;
pub use text::{Shown, TextStream};

use hypura_ggml::{ChatPrompt, ChatTemplates, Sampler, SamplerOptions, Token, Vocab};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{GenerateError, LoadError};
use crate::load::LoadedModel;
use crate::media::{MediaPrompt, SeeError, Senses, prompt};
use crate::serve::{Event, SequenceOptions};
use crate::stream::StreamStats;
use batcher::{Batcher, Step};
use sequence::Setup;

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
            logits_hash: None,
        }
    }
}

/// One conversation with a loaded model.
pub struct Session {
    batcher: Batcher,
    templates: Option<ChatTemplates>,
}

impl Session {
    /// Takes over a loaded model.
    #[must_use]
    pub fn new(loaded: LoadedModel) -> Self {
        Self { batcher: Batcher::new(loaded), templates: None }
    }

    /// The model.
    #[must_use]
    pub fn loaded(&self) -> &LoadedModel {
        self.batcher.loaded()
    }

    /// Its vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocab {
        self.batcher.vocab()
    }

    /// Forgets the conversation.
    pub fn clear(&mut self) {
        self.batcher.clear();
    }

    /// Uses this chat template (Jinja) instead of the model's own.
    ///
    /// # Errors
    /// [`GenerateError::Template`].
    pub fn use_template(&mut self, template: &str) -> Result<(), GenerateError> {
        self.templates = Some(ChatTemplates::new(&self.loaded().model, Some(template))?);
        Ok(())
    }

    /// Renders messages (a JSON array in OpenAI's shape) with the model's chat template.
    ///
    /// # Errors
    /// [`GenerateError::Template`].
    pub fn render(&mut self, messages_json: &str) -> Result<ChatPrompt, GenerateError> {
        let templates = match self.templates.take() {
            Some(templates) => templates,
            None => ChatTemplates::new(&self.loaded().model, None)?,
        };
        let prompt = templates.render(messages_json)?;
        self.templates = Some(templates);
        Ok(prompt)
    }

    /// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user typed.
    #[must_use]
    pub fn tokenize_chat(&self, prompt: &ChatPrompt) -> Vec<Token> {
        tokenize_chat(self.vocab(), prompt)
    }

    /// Which media the model can be shown.
    #[must_use]
    pub fn senses(&self) -> Senses {
        self.loaded().media.as_ref().map(|media| media.senses).unwrap_or_default()
    }

    /// Tokens of a rendered prompt with media: each [`crate::media::marker`] in it is the next of `media`, the bytes of
    /// media files.
    ///
    /// # Errors
    /// [`SeeError`].
    pub fn see(&self, prompt: &ChatPrompt, media: &[&[u8]]) -> Result<MediaPrompt, SeeError> {
        if media.is_empty() {
            return Ok(self.tokenize_chat(prompt).into());
        }
        prompt::see(self.loaded().media.as_ref(), self.vocab(), &chat_parts(prompt), media)
    }

    /// The same of a text in which control tokens are read.
    ///
    /// # Errors
    /// [`SeeError`].
    pub fn see_text(&self, text: &str, media: &[&[u8]]) -> Result<MediaPrompt, SeeError> {
        if media.is_empty() {
            return Ok(self.vocab().tokenize(text, true, true).into());
        }
        prompt::see(self.loaded().media.as_ref(), self.vocab(), &[(text.to_owned(), false)], media)
    }

    /// Generates after `prompt`; `show` gets text as it becomes certain.
    ///
    /// # Errors
    /// [`GenerateError`]; the session can go on afterwards.
    pub fn generate(
        &mut self,
        prompt: &[Token],
        options: &GenerateOptions,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Outcome, GenerateError> {
        self.generate_after(prompt.to_vec().into(), options, show)
    }

    /// The same after a prompt that may have media.
    ///
    /// # Errors
    /// [`GenerateError`]; the session can go on afterwards.
    pub fn generate_after(
        &mut self,
        prompt: MediaPrompt,
        options: &GenerateOptions,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Outcome, GenerateError> {
        self.check(&prompt.tokens)?;
        self.loaded().abort.store(false, Ordering::Relaxed);
        let mut sampler = Sampler::new(self.vocab(), &options.sampler);
        prompt.words().for_each(|token| sampler.accept(token));
        let setup = Setup {
            prompt,
            options: SequenceOptions {
                max_tokens: options.max_tokens,
                stops: options.stops.clone(),
                shift: None,
                ignore_end: options.ignore_end,
                ..SequenceOptions::default()
            },
            sampler,
            hash_logits: options.hash_logits,
            forced: options.forced.clone(),
            every_token: true,
        };
        self.drive(setup, show)
    }

    fn check(&self, prompt: &[Token]) -> Result<(), GenerateError> {
        let context = self.batcher.context();
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(GenerateError::PromptTooLong { prompt: prompt.len(), context });
        }
        Ok(())
    }

    /// Steps until the one sequence is over.
    fn drive(
        &mut self,
        setup: Setup,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Outcome, GenerateError> {
        const ONLY: u64 = 0;
        let mut ended: Option<Result<Outcome, GenerateError>> = None;
        let mut emit = |_: u64, event: Event| match event {
            Event::Text { text, .. } => match show(&text) {
                Ok(()) => true,
                Err(error) => {
                    ended.get_or_insert(Err(error.into()));
                    false
                }
            },
            Event::Done(outcome) => {
                ended.get_or_insert(Ok(*outcome));
                true
            }
            Event::Failed(error) => {
                ended.get_or_insert(Err(error));
                true
            }
            Event::Started { .. } | Event::Progress { .. } => true,
        };
        self.batcher.admit(ONLY, setup, &mut emit);
        while self.batcher.active() > 0 {
            match self.batcher.step(&mut emit) {
                Step::Done => {}
                Step::Aborted => self.batcher.end_all(&mut emit),
                Step::Failed { error, .. } => self.batcher.fail(ONLY, error, &mut emit),
            }
        }
        ended.unwrap_or(Err(GenerateError::EmptyPrompt))
    }
}

/// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user typed.
pub(crate) fn tokenize_chat(vocab: &Vocab, prompt: &ChatPrompt) -> Vec<Token> {
    if prompt.parts.is_empty() {
        return vocab.tokenize(&prompt.text, true, true);
    }
    let mut tokens = Vec::new();
    for (at, (text, is_input)) in prompt.parts.iter().enumerate() {
        tokens.extend(vocab.tokenize(text, at == 0, !is_input));
    }
    if begins_twice(vocab, &tokens) {
        tokens.remove(0);
    }
    tokens
}

/// Whether a prompt has BOS twice: once from the vocabulary, and once from a template that spells it out itself.
pub(crate) fn begins_twice(vocab: &Vocab, tokens: &[Token]) -> bool {
    vocab.bos().is_some_and(|bos| tokens.starts_with(&[bos, bos]))
}

/// The parts of a rendered prompt: texts, and whether they came from messages.
pub(crate) fn chat_parts(prompt: &ChatPrompt) -> Vec<(String, bool)> {
    if prompt.parts.is_empty() { vec![(prompt.text.clone(), false)] } else { prompt.parts.clone() }
}

/// Loads and wraps in one step, for callers with nothing to do in between.
///
/// # Errors
/// [`LoadError`].
pub fn open(planned: crate::load::Planned, progress: &mut dyn FnMut(u64, u64)) -> Result<Session, LoadError> {
    crate::load::load(planned, progress).map(Session::new)
}
