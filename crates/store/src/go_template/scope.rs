//! Variables: which of them a name means, and where each is kept.

use super::GoTemplateError;

/// Where a variable is kept: each declaration has a place of its own.
pub(super) type Slot = usize;

/// The variables that can be seen, the innermost last, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Scope {
    names: Vec<(String, Slot)>,
    slots: Slot,
}

impl Scope {
    /// The variable that a name means.
    pub fn find(&self, name: &str) -> Result<Slot, GoTemplateError> {
        let found = self.names.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, slot)| *slot).ok_or_else(|| GoTemplateError::UndefinedVariable(format!("${name}")))
    }

    /// A variable that is seen from here on.
    pub fn declare(&mut self, name: &str) -> Slot {
        let slot = self.unnamed();
        self.names.push((name.to_owned(), slot));
        slot
    }

    /// How many variables are seen.
    pub fn seen(&self) -> usize {
        self.names.len()
    }

    /// At the end of a block: those behind the first so many are seen no more.
    pub fn forget(&mut self, seen: usize) {
        self.names.truncate(seen);
    }

    /// A place for what has no name.
    pub fn unnamed(&mut self) -> Slot {
        self.slots += 1;
        self.slots
    }
}
