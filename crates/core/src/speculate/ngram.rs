//! Prompt lookup: what was just said was perhaps said before, and goes on as it did then.
//!
//! Own code, not llama.cpp's n-gram maps: those sit behind C++ handles with state of their own for each
//! sequence, and propose only after keys of a fixed length; this one finds the longest match, tells its
//! length, which is what acceptance depends on, and is pure. Memory: 8 bytes and a share of a hash table for
//! each token.
//!
//! Invariant: `previous[at]` is the last position before `at` that ends the same pair of tokens.

use std::collections::HashMap;

/// Positions looked at in one search: texts that repeat one pair all the time would take quadratic time.
const MOST_CANDIDATES: usize = 64;
/// Longest match that is told apart from longer ones.
const LONGEST: usize = 32;
/// No position.
const NONE: u32 = u32::MAX;

/// Tokens of a sequence, and where each pair of them was before. Negative tokens (media) match nothing.
#[derive(Clone, Debug, Default)]
pub struct NgramIndex {
    tokens: Vec<i32>,
    /// Tokens before those of the sequence.
    reference: usize,
    previous: Vec<u32>,
    latest: HashMap<(i32, i32), u32>,
}

impl NgramIndex {
    /// An index whose sequence may go on like this text, of which it has nothing yet.
    #[must_use]
    pub fn with_reference(reference: &[i32]) -> Self {
        let mut index = Self::default();
        reference.iter().for_each(|token| index.push(*token));
        if !reference.is_empty() {
            // No match reaches from one text into the other.
            index.push(-1);
        }
        index.reference = index.tokens.len();
        index
    }

    /// The text that the sequence may go on like.
    #[must_use]
    pub fn reference(&self) -> &[i32] {
        &self.tokens[..self.reference.saturating_sub(1)]
    }

    /// Takes up what the sequence has become: mostly a few tokens more. One that was changed before its end
    /// is indexed anew.
    pub fn follow(&mut self, sequence: &[i32]) {
        /// Tokens at the end of what is known that are compared with the sequence.
        const COMPARED: usize = 8;
        let known = self.tokens.len() - self.reference;
        let tail = known.saturating_sub(COMPARED);
        let same = sequence.get(tail..known) == Some(&self.tokens[self.reference + tail..]);
        let new = if same {
            known
        } else {
            let reference = self.reference().to_vec();
            *self = Self::with_reference(&reference);
            0
        };
        sequence[new..].iter().for_each(|token| self.push(*token));
    }

    /// What came after the longest match of the end of the sequence, the latest of equals: at most `most`
    /// tokens, and how long the match is. Nothing where not even two tokens match.
    #[must_use]
    pub fn propose(&self, most: usize) -> Option<(u32, &[i32])> {
        let mut at = *self.previous.last()?;
        let (mut best, mut length) = (NONE, 0);
        for _ in 0..MOST_CANDIDATES {
            if at == NONE {
                break;
            }
            let matched = self.matched(at as usize);
            if matched > length {
                (best, length) = (at, matched);
            }
            if length >= LONGEST {
                break;
            }
            at = self.previous[at as usize];
        }
        let from = best.checked_add(1)? as usize;
        let follows = &self.tokens[from..self.tokens.len().min(from.saturating_add(most))];
        let until = follows.iter().position(|token| *token < 0).unwrap_or(follows.len());
        (until > 0).then(|| (length as u32, &follows[..until]))
    }

    /// Tokens that are equal before `at` and at the end, going back.
    fn matched(&self, at: usize) -> usize {
        let there = self.tokens[..=at].iter().rev();
        there
            .zip(self.tokens.iter().rev())
            .take(LONGEST)
            .take_while(|(one, other)| one == other && **one >= 0)
            .count()
    }

    fn push(&mut self, token: i32) {
        let at = self.tokens.len() as u32;
        let before = self.tokens.last().copied().unwrap_or(-1);
        self.tokens.push(token);
        let pair = (before >= 0 && token >= 0).then_some((before, token));
        let previous = pair.and_then(|pair| self.latest.insert(pair, at));
        self.previous.push(previous.unwrap_or(NONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proposed(sequence: &[i32], most: usize) -> Option<(u32, Vec<i32>)> {
        let mut index = NgramIndex::default();
        index.follow(sequence);
        index.propose(most).map(|(length, tokens)| (length, tokens.to_vec()))
    }

    #[test]
    fn the_longest_match_wins_over_the_latest() {
        assert_eq!(proposed(&[1, 2, 3, 7, 8, 2, 3, 9, 1, 2, 3], 2), Some((3, vec![7, 8])));
        assert_eq!(
            proposed(&[5, 2, 3, 7, 6, 2, 3, 9, 1, 2, 3], 1),
            Some((2, vec![9])),
            "the latest of equals"
        );
        assert_eq!(proposed(&[1, 2, 3, 4], 5), None);
        assert_eq!(proposed(&[], 5), None);
        assert_eq!(proposed(&[4, 4, 4, 4], 3), Some((3, vec![4])), "a text that repeats itself goes on so");
    }

    #[test]
    fn media_match_nothing_and_end_what_is_proposed() {
        assert_eq!(proposed(&[-3, -3, 1, -3, -3], 4), None);
        assert_eq!(proposed(&[1, 2, 5, -3, 6, 1, 2], 4), Some((2, vec![5])));
        assert_eq!(proposed(&[1, 2, -3, 6, 1, 2], 4), None);
    }

    #[test]
    fn a_reference_is_looked_into_and_no_match_crosses_its_border() {
        let mut index = NgramIndex::with_reference(&[1, 2, 3, 4]);
        assert_eq!(index.reference(), [1, 2, 3, 4]);
        index.follow(&[9, 2, 3]);
        assert_eq!(index.propose(8), Some((2, [4].as_slice())));
        index.follow(&[9, 2, 3, 4, 9]);
        assert_eq!(index.propose(8), None);
    }

    #[test]
    fn a_sequence_that_lost_its_middle_is_indexed_anew() {
        let mut index = NgramIndex::with_reference(&[7]);
        index.follow(&[1, 2, 3, 4, 5, 6, 1, 2]);
        index.follow(&[1, 2, 5, 6, 1, 2]);
        assert_eq!(index.propose(1), Some((2, [5].as_slice())));
        assert_eq!(index.reference(), [7]);
    }

    proptest! {
        #[test]
        fn what_is_proposed_followed_the_same_tokens_before(
            sequence in prop::collection::vec(-1i32..4, 0..80), most in 0usize..9, cut in 0usize..80,
        ) {
            let mut index = NgramIndex::default();
            index.follow(&sequence[..cut.min(sequence.len())]);
            index.follow(&sequence);
            if let Some((length, tokens)) = index.propose(most) {
                prop_assert!(length >= 2 && !tokens.is_empty() && tokens.len() <= most);
                let end = &sequence[sequence.len() - length as usize..];
                let whole = [end, tokens].concat();
                prop_assert!(sequence.windows(whole.len()).any(|window| window == whole));
            }
        }
    }
}
