//! The place of a schema in a grammar of llama.cpp's.
//!
//! A chat template's grammar has a value of a schema somewhere: behind reasoning, within a fence, as the
//! arguments of a call. llama.cpp is told that this value is a certain text, a *placeholder*. Its grammar is
//! then given another text there, which begins with a control character that nobody may say, and where it
//! takes that text, a value of the schema is read by llguidance. Where any text is taken (while a model
//! thinks) a placeholder is, too; what is then read as a value is text all the same.

use serde_json::{Value, json};

use crate::vocab::Token;

/// What every placeholder begins with.
const BEGINNING: &str = "hypura-schema-";

/// What they begin with in a grammar: a control character.
const MARK: u8 = 1;

/// A byte that is no text by itself. A grammar that sleeps takes it, others only within characters.
pub(super) const NO_TEXT: u8 = 0x80;

/// The schema that only a placeholder's text fits.
pub(crate) fn placeholder_schema(index: usize) -> Value {
    json!({ "const": format!("{BEGINNING}{index}-") })
}

/// A placeholder as a grammar of llama.cpp's has it.
pub(crate) fn placeholder_rule(index: usize) -> String {
    format!("\"\\\"{BEGINNING}{index}-\\\"\"")
}

/// A grammar with texts that nobody may say in the places of so many schemas.
pub(crate) fn with_marks(gbnf: &str, schemas: usize) -> String {
    (0..schemas).fold(gbnf.to_owned(), |gbnf, index| {
        gbnf.replace(&placeholder_rule(index), &format!("\"\\x{MARK:02x}{BEGINNING}{index}-\""))
    })
}

/// Whether a rendered prompt has placeholders, because its template shows schemas to the model.
pub(crate) fn shows_placeholders(prompt: &str) -> bool {
    prompt.contains(BEGINNING)
}

/// The texts of placeholders, in tokens of a vocabulary.
pub(crate) struct PlaceholderTokens {
    /// That of [`NO_TEXT`].
    pub no_text: Token,
    /// What all begin with.
    pub beginning: Vec<Token>,
    /// What none goes on with, but any text might.
    pub no_ending: Vec<Token>,
    /// All tokens that begin with the mark.
    pub marked: Vec<Token>,
}

impl PlaceholderTokens {
    /// `tokens_of` makes tokens of a text; `words` are those of all tokens.
    pub fn new<'a>(
        no_text: Token,
        tokens_of: impl Fn(&[u8]) -> Vec<Token>,
        words: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let beginning = tokens_of(&[&[MARK], BEGINNING.as_bytes()].concat());
        let marked = (0..).zip(words).filter(|(_, word)| word.first() == Some(&MARK));
        let marked = marked.map(|(token, _)| token).collect();
        Self { no_text, beginning, no_ending: tokens_of(b"none-"), marked }
    }
}

/// What tells one placeholder from others, behind the beginning.
pub(crate) fn placeholder_ending(index: usize) -> String {
    format!("{index}-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_placeholders_become_texts_that_nobody_may_say() {
        let gbnf = format!("root ::= \"a\" {} {}", placeholder_rule(0), placeholder_rule(12));
        let marked = r#"root ::= "a" "\x01hypura-schema-0-" "\x01hypura-schema-12-""#;
        assert_eq!(with_marks(&gbnf, 13), marked);
        let words: [&[u8]; 4] = [b"a", b"\x01", b"", b"\x01\x01"];
        let tokens = PlaceholderTokens::new(9, |text| vec![Token::from(text[0])], words.into_iter());
        assert_eq!((tokens.marked, tokens.beginning, tokens.no_text), (vec![1, 3], vec![1], 9));
    }
}
