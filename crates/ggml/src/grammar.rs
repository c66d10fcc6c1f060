//! Grammars: what a text may look like, in llama.cpp's GBNF.
//!
//! A grammar is plain data until a [`Sampler`](crate::Sampler) is built with it; that is where a bad one is
//! refused.

use crate::schema::placeholder_rule;
use crate::vocab::Token;
use serde::{Deserialize, Serialize};

/// Where a grammar comes from, which decides whether it begins at the answer or at what the chat template
/// already wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GrammarKind {
    /// Given by a user: begins with the first generated token.
    #[default]
    User,
    /// Made by a chat template for an output format: begins with the template's generation prompt.
    OutputFormat,
    /// Made by a chat template for tool calls: likewise.
    ToolCalls,
}

/// What wakes a lazy grammar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrammarTrigger {
    /// This token.
    Token(Token),
    /// These characters, wherever they stand.
    Word(String),
    /// A regular expression (ECMAScript); the grammar begins at its first group.
    Pattern(String),
    /// A regular expression that the whole answer so far must match.
    PatternFull(String),
}

/// A grammar and when it applies.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Grammar {
    /// The rules, with `root` as the start.
    pub gbnf: String,
    /// JSON schemas. Where the rules have the text of a placeholder, a value of the schema with its number
    /// stands.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Where it comes from.
    pub kind: GrammarKind,
    /// Only applies once a trigger was met.
    pub lazy: bool,
    /// Begins with the first generated token that is not reasoning, where the model was not asked whether it
    /// wants to: a call that must come.
    pub forced: bool,
    /// What wakes it, when lazy.
    pub triggers: Vec<GrammarTrigger>,
    /// What the chat template wrote at the beginning of the answer; grammars made by a template read over it.
    pub generation_prompt: String,
    /// Begins a stretch of reasoning, in which a lazy grammar sleeps; empty for none.
    pub thinking_start: String,
    /// Ends such a stretch.
    pub thinking_ends: Vec<String>,
}

impl Grammar {
    /// A grammar of a user: applies from the first token on.
    #[must_use]
    pub fn user(gbnf: impl Into<String>) -> Self {
        Self { gbnf: gbnf.into(), ..Self::default() }
    }

    /// A value of a JSON schema (which [`Vocab::check_schema`](crate::Vocab::check_schema) checks), and
    /// nothing else.
    #[must_use]
    pub fn json_schema(schema: impl Into<String>) -> Self {
        Self { schemas: vec![schema.into()], ..Self::user(format!("root ::= {}", placeholder_rule(0))) }
    }
}

/// Regular expressions and tokens for llama.cpp, from triggers.
pub(crate) fn patterns_and_tokens(triggers: &[GrammarTrigger]) -> (Vec<String>, Vec<Token>) {
    let (mut patterns, mut tokens) = (Vec::new(), Vec::new());
    for trigger in triggers {
        match trigger {
            GrammarTrigger::Token(token) => tokens.push(*token),
            GrammarTrigger::Word(word) => patterns.push(escape(word)),
            GrammarTrigger::Pattern(pattern) => patterns.push(pattern.clone()),
            GrammarTrigger::PatternFull(pattern) => patterns.push(anchored(pattern)),
        }
    }
    (patterns, tokens)
}

fn escape(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() * 2);
    for character in word.chars() {
        if ".^$|()*+?[]{}\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

fn anchored(pattern: &str) -> String {
    let begin = if pattern.starts_with('^') { "" } else { "^" };
    let end = if pattern.ends_with('$') { "" } else { "$" };
    format!("{begin}{pattern}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_literal_patterns_and_whole_patterns_are_anchored() {
        let triggers = [
            GrammarTrigger::Word("<a(b)*>".to_owned()),
            GrammarTrigger::PatternFull("x+".to_owned()),
            GrammarTrigger::PatternFull("^x+$".to_owned()),
            GrammarTrigger::Token(7),
        ];
        let (patterns, tokens) = patterns_and_tokens(&triggers);
        assert_eq!(patterns, ["<a\\(b\\)\\*>", "^x+$", "^x+$"]);
        assert_eq!(tokens, [7]);
    }
}
