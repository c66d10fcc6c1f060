//! The tokens of a model as llguidance wants them, and the schemas that were compiled for them.

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::SchemaError;
use super::faults::first_fault;
use super::matcher::SchemaMatcher;
use super::placeholders::{NO_TEXT, PlaceholderTokens};
use super::rewrite::{Extras, enforced};
use crate::deep_stack::on_deep_stack;
use crate::vocab::{Token, Vocab};

/// Schemas that are kept compiled. Agents send the same tools with every request.
const KEPT: usize = 256;

/// States of the lexer of a schema, of about 2 KB each.
const MOST_STATES: usize = 50_000;

/// Characters between the parts of a JSON value: as much as pretty printing needs. Without a limit small
/// models write nothing else.
const WHITE_SPACE: &str = r"( |\n{1,2}[ \t]{0,40})";

/// Compiles schemas for one vocabulary.
pub(crate) struct SchemaCompiler {
    factory: ParserFactory,
    placeholder_tokens: PlaceholderTokens,
    /// Tokens that end an answer.
    ends: Vec<Token>,
    /// By their text.
    compiled: Mutex<HashMap<String, Result<Matcher, SchemaError>>>,
}

impl SchemaCompiler {
    /// For a model. Takes a moment: all its tokens are sorted into a tree.
    ///
    /// # Errors
    /// llguidance's reason.
    pub fn new(vocab: &Vocab) -> Result<Self, String> {
        let count = Token::try_from(vocab.len()).unwrap_or(Token::MAX);
        let words: Vec<Vec<u8>> = (0..count).map(|token| word(vocab, token)).collect();
        let end = vocab.eos().unwrap_or(0).cast_unsigned();
        let info = TokRxInfo::new(count.cast_unsigned(), end);
        let new = Self::of_tokens(Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words))))?;
        Ok(Self { ends: (0..count).filter(|token| vocab.is_end(*token)).collect(), ..new })
    }

    /// For these tokens.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn of_tokens(tokens: TokEnv) -> Result<Self, String> {
        let trie = tokens.tok_trie();
        let no_text = trie.token_id(&[NO_TEXT]).and_then(|token| Token::try_from(token).ok());
        let no_text =
            no_text.ok_or("the model's vocabulary has no tokens for single bytes, which constraints need")?;
        let words = (0..u32::try_from(trie.vocab_size()).unwrap_or(u32::MAX)).map(|token| trie.token(token));
        let tokens_of = |text: &[u8]| signed(trie.greedy_tokenize(text));
        let placeholder_tokens = PlaceholderTokens::new(no_text, tokens_of, words);
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| error.to_string())?;
        factory.quiet();
        *factory.limits_mut() =
            ParserLimits { verbose_errors: false, max_lexer_states: MOST_STATES, ..ParserLimits::default() };
        Ok(Self { factory, placeholder_tokens, ends: Vec::new(), compiled: Mutex::default() })
    }

    /// The texts that stand for schemas in grammars.
    pub fn placeholder_tokens(&self) -> &PlaceholderTokens {
        &self.placeholder_tokens
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[Token] {
        &self.ends
    }

    /// Tokens that make these bytes, not always those that a tokenizer makes.
    pub fn tokens_of(&self, bytes: &[u8]) -> Vec<Token> {
        signed(self.factory.tok_env().tok_trie().greedy_tokenize(bytes))
    }

    /// A value of this schema (JSON text), at its beginning.
    ///
    /// # Errors
    /// [`SchemaError`]: what of it cannot be enforced, and where.
    pub fn matcher(&self, schema: &str) -> Result<SchemaMatcher, SchemaError> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = compiled.get(schema) {
            return known.clone().map(SchemaMatcher::new);
        }
        let made = on_deep_stack(|| Ok(self.compile_text(schema)))
            .unwrap_or_else(|error| Err(SchemaError::at_root(error)));
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        compiled.insert(schema.to_owned(), made.clone());
        made.map(SchemaMatcher::new)
    }

    fn compile_text(&self, schema: &str) -> Result<Matcher, SchemaError> {
        let schema = serde_json::from_str(schema).map_err(|error| SchemaError::at_root(error.to_string()))?;
        self.compile(&schema, Extras::OnlyWhereAskedFor)
    }

    pub(super) fn compile(&self, schema: &Value, extras: Extras) -> Result<Matcher, SchemaError> {
        let enforced = enforced(schema, extras)?;
        self.compile_enforced(&enforced).map_err(|reason| {
            let compiles = |part: &Value| self.compile_enforced(part).is_ok();
            SchemaError { place: first_fault(&enforced, compiles), reason }
        })
    }

    fn compile_enforced(&self, schema: &Value) -> Result<Matcher, String> {
        let options = serde_json::json!({ "whitespace_pattern": WHITE_SPACE });
        let mut schema = schema.clone();
        if let Some(fields) = schema.as_object_mut() {
            fields.insert("x-guidance".to_owned(), options);
        }
        // Models write a blank before a value, in one token with what begins it.
        let text = format!("start: WS? value\nWS: /{WHITE_SPACE}/\nvalue: %json {schema}\n");
        let parser = self.factory.create_parser(TopLevelGrammar::from_lark(text));
        let mut matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(reason(&error)),
            // A schema that nothing fits shows here at the latest.
            None if matcher.compute_mask().is_err() => Err("nothing fits it".to_owned()),
            None => Ok(matcher),
        }
    }
}

fn signed(tokens: Vec<u32>) -> Vec<Token> {
    tokens.into_iter().filter_map(|token| Token::try_from(token).ok()).collect()
}

/// The text of a token as llguidance wants it: control tokens are none, and begin with a byte that no text
/// has.
fn word(vocab: &Vocab, token: Token) -> Vec<u8> {
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    if vocab.is_end(token) || vocab.is_control(token) {
        return [&[MARKER], format!("<{token}>").as_bytes()].concat();
    }
    let piece = vocab.piece(token, false);
    if piece.first() == Some(&MARKER) { Vec::new() } else { piece }
}

/// The reason in the words of a client: without the state of the compiler, which llguidance appends.
fn reason(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default().trim();
    let line = line.split_once("failed to compile JSON schema: ").map_or(line, |(_, reason)| reason);
    let line = line.strip_prefix("Unsatisfiable schema: ").unwrap_or(line);
    if line.starts_with("oneOf constraints") {
        return "`oneOf` whose alternatives may overlap cannot be enforced, `anyOf` can".to_owned();
    }
    if let Some(names) = line.strip_prefix("Unimplemented keys: ") {
        let names = names.trim_matches(['[', ']']).replace('"', "`");
        return format!("{names} cannot be enforced");
    }
    if let Some((place, _)) =
        line.strip_prefix("Resource ").and_then(|line| line.split_once(" is not present"))
    {
        return format!("`$ref` to {place}, which is not in this schema");
    }
    line.chars().take(300).collect()
}
