//! Tokens, text and chat templates of a loaded model, from any thread.
//!
//! They keep the model in memory, so a runner takes them away when it stops: afterwards every text has no tokens.

use hypura_ggml::{ChatPrompt, ChatTemplates, Model, Token, Vocab};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::GenerateError;
use crate::session::tokenize_chat;

struct Inner {
    vocab: Vocab,
    model: Model,
    /// Parsed at first use.
    templates: Mutex<Option<ChatTemplates>>,
}

/// Tokens, text and chat templates.
pub struct TextTools(RwLock<Option<Arc<Inner>>>);

impl TextTools {
    pub(crate) fn new(model: &Model) -> Self {
        let inner = Inner { vocab: model.vocab(), model: model.clone(), templates: Mutex::default() };
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

    /// Splits text into tokens. `special` adds BOS/EOS where the model wants them; `parse` reads control tokens in the text
    /// (never do that with what a user typed).
    #[must_use]
    pub fn tokenize(&self, text: &str, special: bool, parse: bool) -> Vec<Token> {
        self.inner().map_or_else(Vec::new, |inner| inner.vocab.tokenize(text, special, parse))
    }

    /// The bytes of a token; control tokens give nothing unless `special`.
    #[must_use]
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        self.inner().map_or_else(Vec::new, |inner| inner.vocab.piece(token, special))
    }

    /// The text of tokens, control tokens included; bytes that are no characters become replacement characters.
    #[must_use]
    pub fn detokenize(&self, tokens: &[Token]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.piece(*token, true)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Renders messages (a JSON array in OpenAI's shape) with the model's chat template.
    ///
    /// # Errors
    /// [`GenerateError::Template`] when the template refuses them, [`GenerateError::Unloaded`] after the runner stopped.
    pub fn render(&self, messages_json: &str) -> Result<ChatPrompt, GenerateError> {
        let inner = self.inner().ok_or(GenerateError::Unloaded)?;
        let mut templates = inner.templates.lock().unwrap_or_else(PoisonError::into_inner);
        let parsed = match templates.take() {
            Some(parsed) => parsed,
            None => ChatTemplates::new(&inner.model, None)?,
        };
        let rendered = parsed.render(messages_json);
        *templates = Some(parsed);
        Ok(rendered?)
    }

    /// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user typed.
    #[must_use]
    pub fn tokenize_chat(&self, prompt: &ChatPrompt) -> Vec<Token> {
        self.inner().map_or_else(Vec::new, |inner| tokenize_chat(&inner.vocab, prompt))
    }
}
