//! One conversation with a loaded model: the loop with a single sequence, on the caller's thread.

use hypura_ggml::{
    ChatPrompt, ChatRequest, ChatTemplates, LoadError as GgmlError, Sampler, SamplerOptions, Token, Vocab,
};
use std::io;
use std::sync::atomic::Ordering;

use super::batcher::{Batcher, Emit, Step};
use super::sequence::Setup;
use crate::error::{GenerateError, LoadError};
use crate::load::LoadedModel;
use crate::media::{MediaPrompt, MediaPromptError, Modalities, prompt};
use crate::prompt::{chat_parts, tokenize_chat};
use crate::request::{Event, Options, Outcome};

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
    /// End where the text of a token came again more often than this, one after the other.
    pub repeat_limit: Option<u32>,
    /// Most drafts of a step; 0: none; `None`: as many as pay.
    pub draft_most: Option<u32>,
    /// A text that the answer is probably like, for prompt lookup.
    pub prediction: Option<String>,
}

/// One conversation with a loaded model.
pub struct Session {
    batcher: Batcher,
    templates: Option<ChatTemplates>,
    template_note: Option<String>,
}

impl Session {
    /// Takes over a loaded model.
    #[must_use]
    pub fn new(loaded: LoadedModel) -> Self {
        Self { batcher: Batcher::new(loaded), templates: None, template_note: None }
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

    /// What is to be told, once, of the chat template that was used: that the file has none, or where it does
    /// not parse.
    pub fn take_template_note(&mut self) -> Option<String> {
        self.template_note.take()
    }

    /// Renders messages (a JSON array in OpenAI's shape) with the model's chat template.
    ///
    /// # Errors
    /// [`GenerateError::Template`].
    pub fn render(&mut self, messages_json: &str) -> Result<ChatPrompt, GenerateError> {
        self.render_as(&ChatRequest::new(messages_json))
    }

    /// The same with what else a request says, whether the model is to think for instance.
    ///
    /// # Errors
    /// [`GenerateError::Template`].
    pub fn render_as(&mut self, request: &ChatRequest) -> Result<ChatPrompt, GenerateError> {
        let templates = match &mut self.templates {
            Some(templates) => templates,
            none => {
                let (templates, note) = ChatTemplates::of_model(&self.batcher.loaded().model)?;
                self.template_note = note;
                none.insert(templates)
            }
        };
        Ok(templates.apply(request).map_err(|error| GgmlError::Template(error.to_string()))?)
    }

    /// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user
    /// typed.
    #[must_use]
    pub fn tokenize_chat(&self, prompt: &ChatPrompt) -> Vec<Token> {
        tokenize_chat(self.vocab(), prompt)
    }

    /// Which media the model can be shown.
    #[must_use]
    pub fn modalities(&self) -> Modalities {
        self.loaded().media.as_ref().map(|media| media.modalities).unwrap_or_default()
    }

    /// Tokens of a rendered prompt with media: each [`crate::media::marker`] in it is the next of `media`,
    /// the bytes of media files.
    ///
    /// # Errors
    /// [`MediaPromptError`].
    pub fn tokenize_with_media(
        &self,
        prompt: &ChatPrompt,
        media: &[&[u8]],
    ) -> Result<MediaPrompt, MediaPromptError> {
        if media.is_empty() {
            return Ok(self.tokenize_chat(prompt).into());
        }
        prompt::tokenize_with_media(self.loaded().media.as_ref(), self.vocab(), &chat_parts(prompt), media)
    }

    /// The same of a text in which control tokens are read.
    ///
    /// # Errors
    /// [`MediaPromptError`].
    pub fn tokenize_text_with_media(
        &self,
        text: &str,
        media: &[&[u8]],
    ) -> Result<MediaPrompt, MediaPromptError> {
        if media.is_empty() {
            return Ok(self.vocab().tokenize(text, true, true).into());
        }
        prompt::tokenize_with_media(
            self.loaded().media.as_ref(),
            self.vocab(),
            &[(text.to_owned(), false)],
            media,
        )
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
        prompt.words().for_each(|token| sampler.accept_prompt(token));
        let setup = Setup {
            prompt,
            options: Options {
                max_tokens: options.max_tokens,
                stops: options.stops.clone(),
                shift: None,
                ignore_end: options.ignore_end,
                repeat_limit: options.repeat_limit,
                draft_most: options.draft_most,
                prediction: options.prediction.clone(),
                ..Options::default()
            },
            sampler,
            hash_logits: options.hash_logits,
            forced: options.forced.clone(),
            every_token: true,
        };
        self.drive(setup, show)
    }

    fn check(&self, prompt: &[Token]) -> Result<(), GenerateError> {
        let context = self.batcher.kv().context_tokens();
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
        let mut emit = Shower { show, ended: None };
        self.batcher.admit(ONLY, setup, &mut emit);
        while self.batcher.active() > 0 {
            match self.batcher.step(&mut emit) {
                Step::Done => {}
                Step::Aborted => self.batcher.end_all(&mut emit),
                Step::Failed { error, .. } => self.batcher.fail(ONLY, error, &mut emit),
            }
        }
        emit.ended.unwrap_or(Err(GenerateError::EmptyPrompt))
    }
}

/// Shows the text of the only sequence, and keeps how it ended.
struct Shower<'a> {
    show: &'a mut dyn FnMut(&str) -> io::Result<()>,
    ended: Option<Result<Outcome, GenerateError>>,
}

impl Emit for Shower<'_> {
    fn event(&mut self, _: u64, event: Event) -> bool {
        match event {
            Event::Text { text, .. } => {
                if let Err(error) = (self.show)(&text) {
                    self.ended.get_or_insert(Err(error.into()));
                    return false;
                }
            }
            Event::Done(outcome) => {
                self.ended.get_or_insert(Ok(*outcome));
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Failed(_) => {}
        }
        true
    }

    fn failed(&mut self, _: u64, error: GenerateError) {
        self.ended.get_or_insert(Err(error));
    }
}

/// Loads and wraps in one step, for callers with nothing to do in between.
///
/// # Errors
/// [`LoadError`].
pub fn open(planned: crate::load::Planned, progress: &mut dyn FnMut(u64, u64)) -> Result<Session, LoadError> {
    crate::load::load(planned, progress).map(Session::new)
}
