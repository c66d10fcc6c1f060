//! Throwaway cells for slices that have no slot: each is read into, used once and given to the next.

use hypura_ggml::SlotBinding;
use hypura_storage::{Arena, ArenaError, HugePages, ReadError};
use std::ops::Range;
use std::sync::Arc;

use super::POISON;

/// Throwaway cells for slices that have no slot: each is read, used once and given to the next.
pub(crate) struct ScratchRing {
    memory: Arc<Arena>,
    cell_bytes: usize,
    states: Vec<CellState>,
    /// Why reads failed, by cell.
    failures: Vec<Option<ReadError>>,
    poison: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellState {
    Free,
    Reading,
    /// A read is out that nobody waits for any more.
    Orphaned,
    /// The read failed.
    Failed,
    /// Where the slice begins in the cell.
    Ready(usize),
}

impl ScratchRing {
    /// `count` cells of `cell_bytes`, both at least 1.
    ///
    /// # Errors
    /// [`ArenaError`] when the memory is refused.
    pub fn new(count: usize, cell_bytes: usize, poison: bool) -> Result<Self, ArenaError> {
        let memory = Arena::new(count * cell_bytes, HugePages::Try)?;
        let (states, failures) = (vec![CellState::Free; count], vec![None; count]);
        Ok(Self { memory, cell_bytes, states, failures, poison })
    }

    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Cells that are not free.
    pub fn in_use(&self) -> usize {
        self.states.iter().filter(|state| **state != CellState::Free).count()
    }

    /// Takes a free cell for a read.
    pub fn take(&mut self) -> Option<(usize, Arc<Arena>, usize)> {
        let cell = self.states.iter().position(|state| *state == CellState::Free)?;
        self.states[cell] = CellState::Reading;
        Some((cell, Arc::clone(&self.memory), cell * self.cell_bytes))
    }

    /// The read of a cell succeeded; the slice begins at `shift`.
    pub fn land(&mut self, cell: usize, shift: usize) {
        self.settle(cell, CellState::Ready(shift));
    }

    /// The read of a cell failed; what nobody waits for any more leaves no failure behind.
    pub fn fail(&mut self, cell: usize, failure: ReadError) {
        let is_wanted = self.settle(cell, CellState::Failed);
        self.failures[cell] = is_wanted.then_some(failure);
    }

    /// Why the slice of a cell will never come.
    pub fn failure(&self, cell: usize) -> Option<&ReadError> {
        self.failures[cell].as_ref()
    }

    /// Why the slice of some cell that is waited for will never come.
    pub fn any_failure(&self) -> Option<&ReadError> {
        self.failures.iter().flatten().next()
    }

    /// The read of a cell was taken back before it started.
    pub fn give_up(&mut self, cell: usize) {
        self.settle(cell, CellState::Failed);
    }

    /// The read of a cell is no longer out.
    fn settle(&mut self, cell: usize, wanted: CellState) -> bool {
        let is_wanted = self.states[cell] != CellState::Orphaned;
        self.states[cell] = wanted;
        if !is_wanted {
            self.free(cell);
        }
        is_wanted
    }

    /// Whether the slice is there.
    pub fn ready(&self, cell: usize) -> bool {
        matches!(self.states[cell], CellState::Ready(_))
    }

    /// The memory of all cells.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.memory
    }

    /// Bytes of a cell.
    pub fn cell_bytes(&self) -> usize {
        self.cell_bytes
    }

    /// Where the slice in a cell is, once it landed.
    pub fn place(&self, cell: usize, bytes: usize) -> Option<Range<usize>> {
        let CellState::Ready(shift) = self.states[cell] else { return None };
        let start = cell * self.cell_bytes + shift;
        Some(start..start + bytes)
    }

    /// The slice in a cell, once it landed.
    pub fn slice(&self, cell: usize, bytes: usize) -> Option<SlotBinding<'_>> {
        let memory = self.memory.cells().get(self.place(cell, bytes)?)?;
        Some(SlotBinding { memory: memory.into(), stride: bytes, slots: 1 })
    }

    /// Gives all cells back.
    pub fn free_all(&mut self) {
        (0..self.count()).for_each(|cell| self.free(cell));
    }

    /// Gives a cell back. One that is being read into is free once the read has ended.
    pub fn free(&mut self, cell: usize) {
        if matches!(self.states[cell], CellState::Reading | CellState::Orphaned) {
            self.states[cell] = CellState::Orphaned;
            return;
        }
        if self.poison {
            let start = cell * self.cell_bytes;
            self.memory.fill(start..start + self.cell_bytes, POISON);
        }
        self.states[cell] = CellState::Free;
        self.failures[cell] = None;
    }
}
