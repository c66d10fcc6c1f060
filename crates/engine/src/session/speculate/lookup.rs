//! Prompt lookup: an index over the tokens of each sequence.

use hypura_core::speculate::{Confidence, Draft, NgramIndex};
use hypura_ggml::{DecodeError, Token};
use std::collections::HashMap;

use super::proposer::{Ask, Proposer};

/// An answer that is to be like a text begins like it: as sure as after so many equal tokens.
const BEGINNING: u32 = 8;

/// The indices of the sequences that look up.
#[derive(Default)]
pub(super) struct Lookup(HashMap<u64, NgramIndex>);

impl Lookup {
    /// Whether a sequence has an index.
    pub fn knows(&self, id: u64) -> bool {
        self.0.contains_key(&id)
    }

    /// A sequence begins whose answer is probably like `reference`; mostly there is none.
    pub fn begin(&mut self, id: u64, reference: &[Token]) {
        self.0.insert(id, NgramIndex::with_reference(reference));
    }
}

impl Proposer for Lookup {
    fn propose(
        &mut self,
        ask: &Ask<'_>,
        _: &mut dyn FnMut(&[Draft]) -> bool,
    ) -> Result<Vec<Draft>, DecodeError> {
        let Some(index) = self.0.get_mut(&ask.id) else { return Ok(Vec::new()) };
        index.follow(ask.tokens);
        let reference = index.reference();
        // The first token has nothing before it that could match.
        let answer = &ask.tokens[ask.tokens.len().saturating_sub(ask.generated)..];
        let begins = ask.generated < 2 && reference.starts_with(answer);
        let (length, tokens) = if begins && reference.len() > answer.len() {
            (BEGINNING, &reference[answer.len()..])
        } else {
            index.propose(ask.most).unwrap_or((0, &[]))
        };
        let drafts = tokens.iter().take(ask.most).enumerate();
        let draft = |(at, token): (usize, &Token)| {
            let length = length.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            Draft { token: *token, confidence: Confidence::Match(length) }
        };
        Ok(drafts.map(draft).collect())
    }

    fn forget(&mut self, id: u64) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(lookup: &mut Lookup, tokens: &[Token], generated: usize) -> Vec<Token> {
        let ask = Ask { id: 1, row: 0, tokens, generated, most: 3 };
        let drafts = lookup.propose(&ask, &mut |_| true).unwrap();
        drafts.iter().map(|draft| draft.token).collect()
    }

    #[test]
    fn an_answer_that_is_to_be_like_a_text_begins_like_it() {
        let mut lookup = Lookup::default();
        lookup.begin(1, &[7, 8, 9, 10]);
        assert_eq!(proposed(&mut lookup, &[1, 2], 0), [7, 8, 9]);
        assert_eq!(proposed(&mut lookup, &[1, 2, 7], 1), [8, 9, 10]);
        assert!(proposed(&mut lookup, &[1, 2, 5], 1).is_empty(), "it does not");
        assert_eq!(proposed(&mut lookup, &[1, 2, 5, 8, 9], 3), [10], "and comes back to it");
    }

    #[test]
    fn a_request_that_is_over_leaves_nothing() {
        let mut lookup = Lookup::default();
        lookup.begin(1, &[]);
        assert_eq!(proposed(&mut lookup, &[4, 5, 6, 4, 5], 2), [6, 4, 5]);
        lookup.forget(1);
        assert!(proposed(&mut lookup, &[4, 5, 6, 4, 5], 2).is_empty());
    }
}
