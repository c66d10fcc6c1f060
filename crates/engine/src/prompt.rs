//! From the text that a chat template made to tokens.

use hypura_ggml::{ChatPrompt, Token, Vocab};

/// Tokens of a rendered prompt: control tokens are read in what the template wrote, never in what a user
/// typed.
pub(crate) fn tokenize_chat(vocab: &Vocab, prompt: &ChatPrompt) -> Vec<Token> {
    if prompt.parts.is_empty() {
        return vocab.tokenize(&prompt.text, true, true);
    }
    tokenize_parts(vocab, prompt.parts.iter().map(|(text, is_input)| (text.as_str(), !is_input)))
}

/// Tokens of texts that follow each other, and whether control tokens are read in each.
pub(crate) fn tokenize_parts<'a>(vocab: &Vocab, parts: impl Iterator<Item = (&'a str, bool)>) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (at, (text, control)) in parts.enumerate() {
        tokens.extend(vocab.tokenize(text, at == 0, control));
    }
    if begins_twice(vocab, &tokens) {
        tokens.remove(0);
    }
    tokens
}

/// Whether a prompt has BOS twice: once from the vocabulary, and once from a template that spells it out
/// itself.
pub(crate) fn begins_twice(vocab: &Vocab, tokens: &[Token]) -> bool {
    vocab.bos().is_some_and(|bos| tokens.starts_with(&[bos, bos]))
}

/// The parts of a rendered prompt: texts, and whether they came from messages.
pub(crate) fn chat_parts(prompt: &ChatPrompt) -> Vec<(String, bool)> {
    if prompt.parts.is_empty() { vec![(prompt.text.clone(), false)] } else { prompt.parts.clone() }
}
