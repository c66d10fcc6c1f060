//! Slots in memory: one region of the arena per size class, with its cache and the state of each slot's reads.
//!
//! Invariant: a slot is reported complete to the cache only when no read of any of its parts is out, whether they
//! succeeded or not. So nothing can land in a slot that was given to another expert.

use hypura_core::cache::{EvictionPolicy, ExpertCache, SlotId};
use hypura_ggml::SlabBinding;
use hypura_storage::{Arena, ArenaError, HugePages, ReadError};
use std::sync::Arc;

use crate::error::StreamError;
use hypura_core::plan::{ClassLayout, ExpertLayout, PartLayout, PartRead};

/// A byte pattern that decodes to NaN or huge values in every quantisation, so that stale bytes cannot go unnoticed.
const POISON: u8 = 0xff;

#[derive(Clone, Debug, Default)]
struct SlotReads {
    /// Bit `i`: part `i` is still to land.
    waiting: u8,
    /// Some part will never come; `None` inside: its read was taken back.
    failed: Option<Option<ReadError>>,
}

/// The slots of one size class.
pub(crate) struct Slab {
    memory: Option<Arc<Arena>>,
    base: usize,
    slot_bytes: usize,
    reads: Vec<SlotReads>,
    pub cache: ExpertCache,
    poison: bool,
}

/// Makes the slabs of all classes in one arena. `policy` is asked for one policy per class.
///
/// # Errors
/// [`ArenaError`] when the memory is refused.
pub(crate) fn make_slabs(
    layout: &ExpertLayout,
    slots: &[u32],
    policy: impl Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    poison: bool,
) -> Result<Vec<Slab>, ArenaError> {
    let bytes: usize =
        layout.classes.iter().zip(slots).map(|(class, slots)| class.slot_bytes * *slots as usize).sum();
    let memory = if bytes == 0 { None } else { Some(Arena::new(bytes, HugePages::Try)?) };
    let mut base = 0;
    let slab = |(class, slots): (&ClassLayout, &u32)| {
        let slab = Slab {
            memory: memory.clone(),
            base,
            slot_bytes: class.slot_bytes,
            reads: vec![SlotReads::default(); *slots as usize],
            cache: ExpertCache::new(*slots, policy(*slots)),
            poison,
        };
        base += class.slot_bytes * *slots as usize;
        slab
    };
    Ok(layout.classes.iter().zip(slots).map(slab).collect())
}

impl Slab {
    /// Slots.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.reads.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of a slot.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes as u64
    }

    /// Gives up all slots but the first `keep` and their memory, unless one of them is in use.
    pub fn shrink(&mut self, keep: u32) {
        let (keep, before) = ((keep as usize).min(self.reads.len()), self.reads.len());
        if !self.cache.shrink(u32::try_from(keep).unwrap_or(u32::MAX)) {
            return;
        }
        self.reads.truncate(keep);
        if let Some(memory) = &self.memory {
            memory.discard(self.base + keep * self.slot_bytes..self.base + before * self.slot_bytes);
        }
    }

    /// The memory of all slabs.
    pub fn memory(&self) -> Option<&Arc<Arena>> {
        self.memory.as_ref()
    }

    /// The slots as ggml sees one part of them; `None` without slots.
    pub fn binding(&self, part: &PartLayout) -> Option<SlabBinding<'_>> {
        self.binding_in(self.memory.as_ref()?, part)
    }

    /// The same for who has a handle of the slab's memory, and wants the slab itself meanwhile.
    pub fn binding_in<'m>(&self, memory: &'m Arena, part: &PartLayout) -> Option<SlabBinding<'m>> {
        let slots = self.reads.len();
        let start = self.base + part.data_at();
        let end = start + slots.checked_sub(1)? * self.slot_bytes + part.slice_bytes;
        Some(SlabBinding { memory: memory.cells().get(start..end)?, stride: self.slot_bytes, slots })
    }

    /// The bytes of one part of one slot.
    pub fn slice(&self, slot: SlotId, part: &PartLayout) -> Option<SlabBinding<'_>> {
        let start = self.base + slot.index() * self.slot_bytes + part.data_at();
        let memory = self.memory.as_ref()?.cells().get(start..start + part.slice_bytes)?;
        Some(SlabBinding { memory, stride: part.slice_bytes, slots: 1 })
    }

    /// Where the read of a part of a slot goes.
    pub fn destination(&self, slot: SlotId, part: &PartLayout) -> Option<(Arc<Arena>, usize)> {
        Some((Arc::clone(self.memory.as_ref()?), self.base + slot.index() * self.slot_bytes + part.at))
    }

    /// A slot was given to an expert whose `parts` are about to be read.
    pub fn start(&mut self, slot: SlotId, parts: usize) {
        let reads = &mut self.reads[slot.index()];
        debug_assert_eq!(reads.waiting, 0, "slot {} reused while reads are out", slot.0);
        *reads = SlotReads { waiting: ((1u16 << parts) - 1) as u8, failed: None };
        if self.poison
            && let Some(memory) = &self.memory
        {
            let start = self.base + slot.index() * self.slot_bytes;
            memory.fill(start..start + self.slot_bytes, POISON);
        }
    }

    /// The read of a part ended.
    pub fn land(
        &mut self,
        slot: SlotId,
        index: usize,
        part: &PartLayout,
        read: PartRead,
        result: Result<(), ReadError>,
    ) {
        if let (Ok(()), Some(from), Some(memory)) = (&result, read.move_from, &self.memory) {
            let room = self.base + slot.index() * self.slot_bytes + part.at;
            memory.copy_within(room + from, room, part.slice_bytes);
        }
        self.settle(slot, index, result.err().map(Some));
    }

    /// The read of a part was taken back before it started.
    pub fn give_up(&mut self, slot: SlotId, index: usize) {
        self.settle(slot, index, Some(None));
    }

    fn settle(&mut self, slot: SlotId, index: usize, failed: Option<Option<ReadError>>) {
        let reads = &mut self.reads[slot.index()];
        reads.waiting &= !(1 << index);
        if reads.failed.is_none() {
            reads.failed = failed;
        }
        if reads.waiting == 0 {
            let ok = reads.failed.is_none();
            self.cache.complete(slot, ok);
        }
    }

    /// Why the expert in a slot will never be whole.
    pub fn failure(&self, slot: SlotId) -> Option<StreamError> {
        let failed = self.reads[slot.index()].failed.as_ref()?;
        Some(failed.clone().map_or(StreamError::TakenBack, StreamError::Read))
    }

    /// Whether a part of a slot can be computed with.
    pub fn ready(&self, slot: SlotId, part: usize) -> bool {
        let reads = &self.reads[slot.index()];
        reads.waiting & (1 << part) == 0 && reads.failed.is_none()
    }
}

/// Throwaway cells for slices that have no slot: each is read, used once and given to the next.
pub(crate) struct Cells {
    memory: Arc<Arena>,
    cell_bytes: usize,
    states: Vec<CellState>,
    poison: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellState {
    Free,
    Reading,
    /// A read is out that nobody waits for any more.
    Forsaken,
    /// The read failed.
    Failed,
    /// Where the slice begins in the cell.
    Ready(usize),
}

impl Cells {
    /// `count` cells of `cell_bytes`, both at least 1.
    ///
    /// # Errors
    /// [`ArenaError`] when the memory is refused.
    pub fn new(count: usize, cell_bytes: usize, poison: bool) -> Result<Self, ArenaError> {
        let memory = Arena::new(count * cell_bytes, HugePages::Try)?;
        Ok(Self { memory, cell_bytes, states: vec![CellState::Free; count], poison })
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

    /// The read of a cell failed; returns whether somebody waits for it.
    pub fn fail(&mut self, cell: usize) -> bool {
        self.settle(cell, CellState::Failed)
    }

    /// The read of a cell was taken back before it started.
    pub fn give_up(&mut self, cell: usize) {
        self.settle(cell, CellState::Failed);
    }

    /// The read of a cell is no longer out.
    fn settle(&mut self, cell: usize, wanted: CellState) -> bool {
        let is_wanted = self.states[cell] != CellState::Forsaken;
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

    /// The slice in a cell, once it landed.
    pub fn slice(&self, cell: usize, bytes: usize) -> Option<SlabBinding<'_>> {
        let CellState::Ready(shift) = self.states[cell] else { return None };
        let start = cell * self.cell_bytes + shift;
        let memory = self.memory.cells().get(start..start + bytes)?;
        Some(SlabBinding { memory, stride: bytes, slots: 1 })
    }

    /// Gives a cell back. One that is being read into is free once the read has ended.
    pub fn free(&mut self, cell: usize) {
        if matches!(self.states[cell], CellState::Reading | CellState::Forsaken) {
            self.states[cell] = CellState::Forsaken;
            return;
        }
        if self.poison {
            let start = cell * self.cell_bytes;
            self.memory.fill(start..start + self.cell_bytes, POISON);
        }
        self.states[cell] = CellState::Free;
    }
}

/// Keeps the first of several failures.
pub(crate) fn keep_first(failure: &mut Option<ReadError>, next: ReadError) {
    failure.get_or_insert(next);
}
