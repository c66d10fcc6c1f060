//! What an answer must look like: a grammar of llama.cpp's, and values of JSON schemas in its placeholders.
//!
//! An answer may be read in several *ways* at the same time: white space may be the grammar's or the
//! beginning of a value, `12` may be a whole number or the beginning of one. A token is allowed that goes on
//! in any of them; the others end. A token may also begin in the grammar and end in a value (`":{"`), or the
//! other way round (`"}}`): such a one is allowed where it was chosen, but is not among those that are
//! offered instead of another.

use crate::rules::Owned;
use crate::schema::{PlaceholderTokens, SchemaCompiler, SchemaMatcher, placeholder_ending};
use crate::sys;
use crate::vocab::{Token, Vocab};
use llguidance::toktrie::SimpleVob;
use std::sync::Arc;

/// Ways to read an answer that are followed; more come from grammars that are ambiguous without end.
const MOST_WAYS: usize = 16;

/// A grammar, its schemas, and where the answer is.
pub(crate) struct Constraint {
    vocab: Vocab,
    placeholders: Option<Placeholders>,
    ways: Vec<Way>,
}

/// The schemas of a grammar.
struct Placeholders {
    compiler: Arc<SchemaCompiler>,
    schemas: Vec<String>,
}

/// A way to read the answer.
struct Way {
    /// The grammar, behind the placeholder where there is a value.
    rules: Owned,
    value: Option<SchemaMatcher>,
}

impl Constraint {
    /// At the beginning. `rules` is the sampler of a grammar with placeholders for these schemas.
    pub fn new(vocab: &Vocab, rules: Owned, schemas: Option<(Arc<SchemaCompiler>, Vec<String>)>) -> Self {
        let placeholders = schemas.map(|(compiler, schemas)| Placeholders { compiler, schemas });
        let mut new = Self { vocab: vocab.clone(), placeholders, ways: vec![Way { rules, value: None }] };
        new.open();
        new
    }

    /// Whether the token may come next.
    pub fn allows(&mut self, token: Token) -> bool {
        self.allowed(token).contains(&true) || self.across(token).is_some()
    }

    /// Goes on; false, and nothing changes, where the token is not allowed.
    pub fn accept(&mut self, token: Token) -> bool {
        if self.accept_whole(token) {
            return true;
        }
        match self.across(token) {
            Some(ways) => self.ways = ways,
            None => return false,
        }
        true
    }

    /// Takes from a row of candidates, one for each token and in their order, what may not come next.
    pub fn apply(&mut self, candidates: &mut [sys::llama_token_data]) {
        if let ([Way { rules, value: None }], None) = (self.ways.as_slice(), &self.placeholders) {
            rules.apply(candidates);
            return;
        }
        Self::apply_mask(&self.mask(), candidates);
    }

    /// The same with a mask.
    pub fn apply_mask(mask: &SimpleVob, candidates: &mut [sys::llama_token_data]) {
        for (at, candidate) in candidates.iter_mut().enumerate() {
            if at >= mask.len() || !mask.get(at) {
                candidate.logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The tokens that may come next.
    pub fn mask(&mut self) -> SimpleVob {
        let mut mask = SimpleVob::alloc(self.vocab.len());
        for way in self.ways.iter().filter(|way| way.value.is_none()) {
            way.rules.mark(&mut mask);
        }
        let Some(placeholders) = &self.placeholders else { return mask };
        let unsigned =
            |tokens: &[Token]| tokens.iter().map(|token| token.cast_unsigned()).collect::<Vec<_>>();
        let compiler = &placeholders.compiler;
        unsigned(&compiler.placeholder_tokens().marked)
            .into_iter()
            .for_each(|token| mask.disallow_token(token));
        let ends = unsigned(compiler.ends());
        for mut values in self.ways.iter_mut().filter_map(|way| way.value.as_mut()?.mask()) {
            // The end of a value is not that of the answer.
            ends.iter().for_each(|token| values.disallow_token(*token));
            mask.or(&values);
        }
        mask
    }

    /// Whether the answer is in a value of a schema.
    pub fn is_in_value(&self) -> bool {
        self.ways.iter().any(|way| way.value.is_some())
    }

    fn accept_whole(&mut self, token: Token) -> bool {
        let allowed = self.allowed(token);
        if !allowed.contains(&true) {
            return false;
        }
        let mut allowed = allowed.into_iter();
        self.ways.retain_mut(|way| allowed.next().unwrap_or(false) && way.accept(token));
        self.open();
        !self.ways.is_empty()
    }

    /// Whether each way goes on with the token.
    fn allowed(&mut self, token: Token) -> Vec<bool> {
        let (vocab, is_mark) = (&self.vocab, self.marked().contains(&token));
        self.ways
            .iter_mut()
            .map(|way| !(is_mark && way.value.is_none()) && way.allows(vocab, token))
            .collect()
    }

    /// Tokens that only placeholders have.
    fn marked(&self) -> &[Token] {
        self.placeholders
            .as_ref()
            .map_or(&[], |placeholders| &placeholders.compiler.placeholder_tokens().marked)
    }

    /// Adds the ways that begin here: behind values that may end, and into placeholders.
    fn open(&mut self) {
        let Some(placeholders) = &self.placeholders else { return };
        let mut at = 0;
        while at < self.ways.len() && self.ways.len() < MOST_WAYS {
            let way = &mut self.ways[at];
            let (must_end, may_end) = match &mut way.value {
                Some(value) => (value.must_end(), value.may_end()),
                None => (false, false),
            };
            if must_end {
                // It is looked at once more, as a way without a value.
                way.value = None;
                continue;
            }
            let new = if may_end {
                vec![Way { rules: way.rules.cloned(), value: None }]
            } else if way.value.is_none() {
                placeholders.ways_into(&way.rules)
            } else {
                Vec::new()
            };
            self.ways.extend(new);
            at += 1;
        }
    }

    /// The ways after a token that is in part the grammar's and in part a value's.
    fn across(&self, token: Token) -> Option<Vec<Way>> {
        let placeholders = self.placeholders.as_ref()?;
        let bytes = self.vocab.piece(token, false);
        let is_border = |at: &usize| b"}]\"".contains(&bytes[at - 1]) || b"{[\"".contains(&bytes[*at]);
        (1..bytes.len()).filter(is_border).find_map(|at| {
            let mut trial = self.cloned();
            let parts = [&bytes[..at], &bytes[at..]].map(|part| placeholders.compiler.tokens_of(part));
            parts.into_iter().flatten().all(|token| trial.accept_whole(token)).then_some(trial.ways)
        })
    }

    fn cloned(&self) -> Self {
        let placeholders = self.placeholders.as_ref().map(|Placeholders { compiler, schemas }| {
            Placeholders { compiler: Arc::clone(compiler), schemas: schemas.clone() }
        });
        let ways = self.ways.iter().map(|way| Way { rules: way.rules.cloned(), value: way.value.clone() });
        Self { vocab: self.vocab.clone(), placeholders, ways: ways.collect() }
    }
}

impl Way {
    fn allows(&mut self, vocab: &Vocab, token: Token) -> bool {
        match &mut self.value {
            Some(value) => !vocab.is_end(token) && value.allows(token),
            None => self.rules.allows(token),
        }
    }

    /// Goes on with a token that is allowed.
    fn accept(&mut self, token: Token) -> bool {
        match &mut self.value {
            Some(value) => value.accept(token),
            None => self.rules.accept(token),
        }
    }
}

impl Placeholders {
    /// Ways into the placeholders that a grammar is at. One that sleeps, or is within a character, is at
    /// none.
    fn ways_into(&self, rules: &Owned) -> Vec<Way> {
        let PlaceholderTokens { no_text, beginning, no_ending, .. } = self.compiler.placeholder_tokens();
        if rules.allows(*no_text) {
            return Vec::new();
        }
        let Some(begun) = said(rules, beginning) else { return Vec::new() };
        // Of many, none is meant where any text is taken.
        if self.schemas.len() > 1 && said(&begun, no_ending).is_some() {
            return Vec::new();
        }
        let into = |(index, schema): (usize, &String)| {
            let ending = self.compiler.tokens_of(placeholder_ending(index).as_bytes());
            let rules = said(&begun, &ending)?;
            // One that does not compile any more was refused when the request came.
            let value = self.compiler.matcher(schema).ok()?;
            Some(Way { rules, value: Some(value) })
        };
        self.schemas.iter().enumerate().filter_map(into).collect()
    }
}

/// A grammar after these tokens, if it takes them.
fn said(rules: &Owned, tokens: &[Token]) -> Option<Owned> {
    if !tokens.first().is_some_and(|token| rules.allows(*token)) {
        return None;
    }
    let rules = rules.cloned();
    tokens.iter().all(|token| rules.allows(*token) && rules.accept(*token)).then_some(rules)
}
