//! Tokens, text and chat templates of a loaded model, from any thread.
//!
//! They keep the model in memory, so a runner takes them away when it stops: afterwards every text has no
//! tokens.

use hypura_ggml::{
    ChatCaps, ChatError, ChatPrompt, ChatRequest, ChatTemplates, LoadError, Model, Token, Vocab,
};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::error::GenerateError;
use crate::media::prompt::DecodedMedia;
use crate::media::{MediaPrompt, MediaPromptError, MediaTools, prompt};
use crate::prompt::{chat_parts, tokenize_chat, tokenize_parts};
use crate::request::{Prompt, PromptPart};

struct Inner {
    vocab: Vocab,
    model: Model,
    media: Option<MediaTools>,
    /// Parsed at first use, with what is to be told of it; the reason where that failed.
    templates: OnceLock<Result<(ChatTemplates, Option<String>), String>>,
}

impl Inner {
    fn templates(&self) -> Result<&ChatTemplates, String> {
        let parsed = self.templates.get_or_init(|| {
            ChatTemplates::of_model(&self.model).map_err(|error| match error {
                LoadError::Template(reason) => reason,
                error => error.to_string(),
            })
        });
        parsed.as_ref().map(|(templates, _)| templates).map_err(Clone::clone)
    }
}

/// Tokens, text and chat templates.
pub struct TextTools(RwLock<Option<Arc<Inner>>>);

impl TextTools {
    pub(crate) fn new(model: &Model, media: Option<MediaTools>) -> Self {
        let (vocab, model) = (model.vocab(), model.clone());
        let inner = Inner { vocab, model, media, templates: OnceLock::new() };
        Self(RwLock::new(Some(Arc::new(inner))))
    }

    /// Lets go of the model.
    pub(crate) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn inner(&self) -> Option<Arc<Inner>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn vocab(&self) -> Option<Vocab> {
        self.inner().map(|inner| inner.vocab.clone())
    }

    /// Splits text into tokens. `special` adds BOS/EOS where the model wants them; `parse` reads control
    /// tokens in the text (never do that with what a user typed).
    #[must_use]
    pub fn tokenize(&self, text: &str, special: bool, parse: bool) -> Vec<Token> {
        self.inner().map_or_else(Vec::new, |inner| inner.vocab.tokenize(text, special, parse))
    }

    /// The bytes of a token; control tokens give nothing unless `special`.
    #[must_use]
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        self.inner().map_or_else(Vec::new, |inner| inner.vocab.piece(token, special))
    }

    /// The text of tokens, control tokens included; bytes that are no characters become replacement
    /// characters.
    #[must_use]
    pub fn detokenize(&self, tokens: &[Token]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.piece(*token, true)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the chat template can do; nothing where it cannot be read.
    #[must_use]
    pub fn caps(&self) -> ChatCaps {
        let caps = self.inner().and_then(|inner| inner.templates().map(ChatTemplates::caps).ok());
        caps.unwrap_or_default()
    }

    /// What is to be told of the chat template that is in use: that the file has none, or where it does not
    /// parse. Known once it was used.
    #[must_use]
    pub fn template_note(&self) -> Option<String> {
        self.inner()?.templates.get()?.as_ref().ok()?.1.clone()
    }

    /// Renders a conversation with the model's chat template.
    ///
    /// # Errors
    /// [`ChatError`] when the template refuses it, or after the runner stopped.
    pub fn apply(&self, request: &ChatRequest) -> Result<ChatPrompt, ChatError> {
        let unloaded = || ChatError::Template(GenerateError::Unloaded.to_string());
        let inner = self.inner().ok_or_else(unloaded)?;
        inner.templates().map_err(ChatError::Template)?.apply(request)
    }

    /// Renders a conversation with another template (Jinja source) than the model's.
    ///
    /// # Errors
    /// As [`Self::apply`], also when the template cannot be read.
    pub fn apply_template(&self, template: &str, request: &ChatRequest) -> Result<ChatPrompt, ChatError> {
        let unloaded = || ChatError::Template(GenerateError::Unloaded.to_string());
        let inner = self.inner().ok_or_else(unloaded)?;
        let templates = ChatTemplates::new(&inner.model, Some(template))
            .map_err(|error| ChatError::Template(error.to_string()))?;
        templates.apply(request)
    }

    /// Whether a JSON schema can be enforced; its grammar is then [`Grammar::json_schema`](crate::Grammar).
    ///
    /// # Errors
    /// [`ChatError::Schema`]: what of it cannot be, and where; also after the runner stopped.
    pub fn check_schema(&self, schema: &str) -> Result<(), ChatError> {
        let unloaded = || ChatError::Schema(GenerateError::Unloaded.to_string());
        let vocab = self.vocab().ok_or_else(unloaded)?;
        vocab.check_schema(schema).map_err(|error| ChatError::Schema(error.to_string()))
    }

    /// The tokens around a gap to fill: before the beginning, before the end, before the middle; `None` where
    /// the model was not trained for that.
    #[must_use]
    pub fn infill(&self) -> Option<(Token, Token, Token)> {
        self.inner()?.vocab.infill()
    }

    /// Decodes media files, for prompts that show all of them or some. Takes its time.
    ///
    /// # Errors
    /// [`MediaPromptError`].
    pub fn decode(&self, media: &[&[u8]]) -> Result<DecodedMedia, MediaPromptError> {
        let inner = self.inner().ok_or(MediaPromptError::Unloaded)?;
        prompt::decode(inner.media.as_ref(), media)
    }

    /// Tokens of a rendered prompt that shows `which` of the media, in this order.
    ///
    /// # Errors
    /// [`MediaPromptError`].
    pub fn see_decoded(
        &self,
        prompt: &ChatPrompt,
        media: &DecodedMedia,
        which: &[usize],
    ) -> Result<MediaPrompt, MediaPromptError> {
        let inner = self.inner().ok_or(MediaPromptError::Unloaded)?;
        if which.is_empty() {
            return Ok(tokenize_chat(&inner.vocab, prompt).into());
        }
        prompt::see_decoded(inner.media.as_ref(), &inner.vocab, &chat_parts(prompt), media, which)
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
        self.tokenize_with_media(&[(text.to_owned(), false)], media)
    }

    fn tokenize_with_media(
        &self,
        parts: &[(String, bool)],
        media: &[&[u8]],
    ) -> Result<MediaPrompt, MediaPromptError> {
        let inner = self.inner().ok_or(MediaPromptError::Unloaded)?;
        prompt::tokenize_with_media(inner.media.as_ref(), &inner.vocab, parts, media)
    }

    /// A prompt cut into tokens and rows of media. With media it takes its time: they are decoded.
    ///
    /// # Errors
    /// [`MediaPromptError`].
    pub fn cut(&self, prompt: Prompt) -> Result<MediaPrompt, MediaPromptError> {
        let parts = match prompt {
            Prompt::Tokens(tokens) => return Ok(tokens.into()),
            Prompt::Parts(parts) => parts,
        };
        let inner = self.inner().ok_or(MediaPromptError::Unloaded)?;
        if parts.iter().any(|part| matches!(part, PromptPart::Media(_))) {
            return prompt::cut(inner.media.as_ref(), &inner.vocab, &parts);
        }
        let texts = parts.iter().filter_map(|part| match part {
            PromptPart::Text { text, control } => Some((text.as_str(), *control)),
            PromptPart::Media(_) => None,
        });
        Ok(tokenize_parts(&inner.vocab, texts).into())
    }

    /// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user
    /// typed.
    #[must_use]
    pub fn tokenize_chat(&self, prompt: &ChatPrompt) -> Vec<Token> {
        self.inner().map_or_else(Vec::new, |inner| tokenize_chat(&inner.vocab, prompt))
    }
}
