//! Tokens and text.

use crate::model::Model;
use crate::sys;

/// A token id.
pub type Token = i32;

/// The vocabulary of a model.
#[derive(Clone)]
pub struct Vocab {
    model: Model,
}

impl Model {
    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> Vocab {
        Vocab::new(self.clone())
    }
}

impl Vocab {
    pub(crate) fn new(model: Model) -> Self {
        Self { model }
    }

    pub(crate) fn raw(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive, and its vocabulary lives as long.
        unsafe { sys::llama_model_get_vocab(self.model.raw()) }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Context length the model was trained for.
    #[must_use]
    pub fn context_train(&self) -> u32 {
        self.model.context_train()
    }

    /// Number of tokens, which is the length of a row of logits.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: the vocabulary is alive.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.raw()) }).unwrap_or(0)
    }

    /// Whether the model has no vocabulary.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Splits text into tokens. `special` adds BOS/EOS where the model wants them; `parse` reads control
    /// tokens in the text (never do that with what a user typed).
    #[must_use]
    pub fn tokenize(&self, text: &str, special: bool, parse: bool) -> Vec<Token> {
        let Ok(length) = i32::try_from(text.len()) else { return Vec::new() };
        let call = |buffer: &mut [Token]| {
            let room = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
            // SAFETY: text and buffer are passed with their lengths.
            unsafe {
                sys::llama_tokenize(
                    self.raw(),
                    text.as_ptr().cast(),
                    length,
                    buffer.as_mut_ptr(),
                    room,
                    special,
                    parse,
                )
            }
        };
        // A token covers at least one byte, except BOS and EOS. A negative result is the size that was
        // needed.
        let mut tokens = vec![0; text.len() + 2];
        let mut count = call(&mut tokens);
        if count < 0 {
            tokens.resize(count.unsigned_abs() as usize, 0);
            count = call(&mut tokens);
        }
        tokens.truncate(usize::try_from(count).unwrap_or(0));
        tokens
    }

    /// The bytes of a token; control tokens give nothing unless `special`. A character may span several
    /// tokens.
    #[must_use]
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if usize::try_from(token).is_ok_and(|token| token >= self.len()) || token < 0 {
            return Vec::new();
        }
        let call = |buffer: &mut [u8]| {
            let room = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
            // SAFETY: the buffer is passed with its length, the token was checked.
            unsafe {
                sys::llama_token_to_piece(self.raw(), token, buffer.as_mut_ptr().cast(), room, 0, special)
            }
        };
        let mut bytes = vec![0; 64];
        let mut count = call(&mut bytes);
        if count < 0 {
            bytes.resize(count.unsigned_abs() as usize, 0);
            count = call(&mut bytes);
        }
        bytes.truncate(usize::try_from(count).unwrap_or(0));
        bytes
    }

    /// Whether the token ends a generation (EOS, EOT and their like).
    #[must_use]
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is alive; llama.cpp answers false for unknown ids.
        unsafe { sys::llama_vocab_is_eog(self.raw(), token) }
    }

    /// Whether the token is a control token.
    #[must_use]
    pub fn is_control(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is alive.
        usize::try_from(token).is_ok_and(|index| index < self.len())
            && unsafe { sys::llama_vocab_is_control(self.raw(), token) }
    }

    /// The token that begins a text, where the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive; −1 means none.
        Some(unsafe { sys::llama_vocab_bos(self.raw()) }).filter(|token| *token >= 0)
    }

    /// The token that ends a text, where the model has one.
    #[must_use]
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive; −1 means none.
        Some(unsafe { sys::llama_vocab_eos(self.raw()) }).filter(|token| *token >= 0)
    }

    /// The tokens around a gap that the model was trained to fill: before the beginning, before the end,
    /// before the middle. `None` where the vocabulary has no such tokens.
    #[must_use]
    pub fn infill(&self) -> Option<(Token, Token, Token)> {
        // SAFETY: the vocabulary is alive; −1 means none.
        let tokens = unsafe {
            (
                sys::llama_vocab_fim_pre(self.raw()),
                sys::llama_vocab_fim_suf(self.raw()),
                sys::llama_vocab_fim_mid(self.raw()),
            )
        };
        (tokens.0 >= 0 && tokens.1 >= 0 && tokens.2 >= 0).then_some(tokens)
    }

    /// Whether texts begin with BOS.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary is alive.
        unsafe { sys::llama_vocab_get_add_bos(self.raw()) }
    }
}
