//! What the negative tokens of prompts stand for, and where rows of the KV cache are.
//!
//! A picture or a piece of a sound is known by a hash of everything that decides its rows. Its number
//! is a negative token that nothing else ever gets. Only what the table forgets may be numbered anew.

use hypura_ggml::Token;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What decides the rows of a medium, hashed.
pub(crate) type Key = [u8; 32];

/// From so many media on the table forgets those that nobody has any more.
const MANY: usize = 1024;

/// llama.cpp has a meaning for −1.
const FIRST: Token = -2;

/// The rows of a picture, or of a piece of a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Rows of the KV cache.
    pub rows: usize,
    /// Positions that what follows is further on.
    pub positions: usize,
    /// The largest position of its rows, counted from its first.
    pub last: usize,
}

/// One that has a number.
#[derive(Debug)]
pub(crate) struct Known {
    pub token: Token,
    pub extent: Extent,
}

#[derive(Default)]
struct Inner {
    by_key: HashMap<Key, Arc<Known>>,
    by_token: HashMap<Token, Arc<Known>>,
    given: Token,
}

/// All media that a loaded model was shown and may still have in memory.
pub(crate) struct MediaTable {
    inner: Mutex<Inner>,
    /// Pictures take fewer positions than rows; sounds take as many.
    mrope: bool,
}

impl MediaTable {
    pub fn new(mrope: bool) -> Self {
        Self { inner: Mutex::default(), mrope }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a medium; a new one for one that is not known. `None` when there are no numbers left.
    pub fn number(&self, key: Key, extent: Extent) -> Option<Arc<Known>> {
        let mut inner = self.lock();
        if let Some(known) = inner.by_key.get(&key) {
            return Some(Arc::clone(known));
        }
        let token = FIRST.checked_sub(inner.given)?;
        inner.given += 1;
        let known = Arc::new(Known { token, extent });
        inner.by_key.insert(key, Arc::clone(&known));
        inner.by_token.insert(token, Arc::clone(&known));
        Some(known)
    }

    /// Forgets media that no request has and of which `is_held` says that no memory has them, where there are
    /// many.
    pub fn tidy(&self, is_held: impl Fn(Token) -> bool) {
        /// The two maps of the table.
        const OWN: usize = 2;
        let mut inner = self.lock();
        if inner.by_key.len() < MANY {
            return;
        }
        let Inner { by_key, by_token, .. } = &mut *inner;
        by_key.retain(|_, known| Arc::strong_count(known) > OWN || is_held(known.token));
        let kept: std::collections::HashSet<Token> = by_key.values().map(|known| known.token).collect();
        by_token.retain(|token, _| kept.contains(token));
    }

    /// What a token stands for.
    fn extent(&self, inner: &Inner, token: Token) -> Extent {
        // One that nobody knows does not come here; as a token it would be one row.
        inner.by_token.get(&token).map_or(Extent { rows: 1, positions: 1, last: 0 }, |known| known.extent)
    }

    /// Where the medium begins that row `at` is of, and its extent.
    fn around(&self, inner: &Inner, tokens: &[Token], at: usize) -> (usize, Extent) {
        let token = tokens[at];
        let run = tokens[..at].iter().rev().take_while(|other| **other == token).count();
        let extent = self.extent(inner, token);
        // The same medium may follow itself.
        (at - run % extent.rows.max(1), extent)
    }

    /// The largest length up to `length` that cuts no medium in two.
    pub fn whole(&self, tokens: &[Token], length: usize) -> usize {
        let Some(last) =
            length.checked_sub(1).filter(|last| tokens.get(*last).is_some_and(|token| *token < 0))
        else {
            return length;
        };
        let inner = self.lock();
        let (start, extent) = self.around(&inner, tokens, last);
        if length - start == extent.rows { length } else { start }
    }

    /// The position of row `at`; of a row within a medium that of the medium's beginning.
    pub fn position(&self, tokens: &[Token], at: usize) -> usize {
        if !self.mrope {
            return at;
        }
        let inner = self.lock();
        let (mut row, mut position) = (0, 0);
        while row < at {
            let token = tokens.get(row).copied().unwrap_or(0);
            let extent = if token < 0 {
                self.extent(&inner, token)
            } else {
                Extent { rows: 1, positions: 1, last: 0 }
            };
            if row + extent.rows.max(1) > at {
                break;
            }
            row += extent.rows.max(1);
            position += extent.positions;
        }
        position
    }

    /// The largest position of these rows, which hold media as a whole; `None` without rows.
    pub fn last_position(&self, tokens: &[Token]) -> Option<usize> {
        let last = tokens.len().checked_sub(1)?;
        if !self.mrope || tokens[last] >= 0 {
            return Some(self.position(tokens, last));
        }
        let inner = self.lock();
        let (start, extent) = self.around(&inner, tokens, last);
        drop(inner);
        Some(self.position(tokens, start) + extent.last)
    }
}

/// The same for a model that may have no projector.
#[derive(Clone, Default)]
pub(crate) struct Places(pub Option<Arc<MediaTable>>);

impl Places {
    pub fn whole(&self, tokens: &[Token], length: usize) -> usize {
        self.0.as_ref().map_or(length, |table| table.whole(tokens, length))
    }

    pub fn position(&self, tokens: &[Token], at: usize) -> usize {
        self.0.as_ref().map_or(at, |table| table.position(tokens, at))
    }

    pub fn last_position(&self, tokens: &[Token]) -> Option<usize> {
        match &self.0 {
            Some(table) => table.last_position(tokens),
            None => tokens.len().checked_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: Extent = Extent { rows: 6, positions: 3, last: 0 };

    #[test]
    fn a_picture_keeps_its_number_and_no_other_gets_it() {
        let table = MediaTable::new(false);
        let one = table.number([1; 32], PICTURE).unwrap();
        assert_eq!(table.number([1; 32], PICTURE).unwrap().token, one.token);
        let two = table.number([2; 32], PICTURE).unwrap();
        assert_ne!(one.token, two.token);
        assert!(one.token < -1 && two.token < -1);
    }

    #[test]
    fn what_nobody_has_is_forgotten_and_what_somebody_has_is_not() {
        let table = MediaTable::new(false);
        let key = |at: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(at as u64).to_le_bytes());
            key
        };
        let held = table.number(key(0), PICTURE).unwrap();
        let in_memory = table.number(key(1), PICTURE).unwrap().token;
        let gone = table.number(key(2), PICTURE).unwrap().token;
        (3..MANY).for_each(|at| drop(table.number(key(at), PICTURE)));
        table.tidy(|token| token == in_memory);
        assert_eq!(table.number(key(0), PICTURE).unwrap().token, held.token);
        assert_eq!(table.number(key(1), PICTURE).unwrap().token, in_memory);
        let anew = table.number(key(2), PICTURE).unwrap().token;
        assert!(anew < gone, "a number is never given twice");
        assert_eq!(table.lock().by_key.len(), 3);
    }

    #[test]
    fn pictures_take_fewer_positions_than_rows_and_are_never_cut() {
        let table = MediaTable::new(true);
        let picture = table.number([1; 32], PICTURE).unwrap().token;
        // Two words, the picture twice, a word.
        let mut tokens = vec![10, 11];
        tokens.extend([picture; 12]);
        tokens.push(12);
        let at = |row| table.position(&tokens, row);
        assert_eq!([0, 1, 2, 5, 8, 13, 14, 15].map(at), [0, 1, 2, 2, 5, 5, 8, 9]);
        assert_eq!(
            [0, 2, 3, 7, 8, 9, 14, 15].map(|length| table.whole(&tokens, length)),
            [0, 2, 2, 2, 8, 8, 14, 15]
        );
        assert_eq!(table.last_position(&tokens[..8]), Some(2));
        assert_eq!(table.last_position(&tokens[..14]), Some(5));
        assert_eq!(table.last_position(&tokens), Some(8));
        assert_eq!(table.last_position(&[]), None);
        let plain = MediaTable::new(false);
        let picture = plain.number([1; 32], Extent { positions: 6, last: 5, ..PICTURE }).unwrap().token;
        let tokens = [10, picture, picture, picture, picture, picture, picture, 11];
        assert_eq!(plain.position(&tokens, 4), 4);
        assert_eq!(plain.whole(&tokens, 4), 1);
        assert_eq!(plain.last_position(&tokens[..7]), Some(6));
    }
}
