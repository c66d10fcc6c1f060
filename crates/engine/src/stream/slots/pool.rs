//! The slots of a size class: their cache, and the state of each slot's reads.
//!
//! Invariant: a slot is reported complete to the cache only when no read of any of its parts is out, whether
//! they succeeded or not. So nothing can land in a slot that was given to another expert.

use hypura_core::cache::{EvictionPolicy, ExpertCache, SlotId};
use hypura_core::plan::{ExpertLayout, PartLayout, PartRead};
use hypura_ggml::{ExecError, SlotBinding};
use hypura_storage::{Arena, HugePages, ReadError};
use std::ops::Range;
use std::sync::Arc;

use super::host::HostSlots;
use crate::error::{LoadError, StreamError};

#[derive(Clone, Debug, Default)]
struct SlotReads {
    /// Bit `i`: part `i` is still to land.
    waiting: u8,
    /// Some part will never come.
    failed: Option<Failure>,
}

#[derive(Clone, Debug)]
enum Failure {
    Read(ReadError),
    TakenBack,
}

/// The slots of one size class.
pub(crate) struct SlotPool {
    memory: Option<Arc<HostSlots>>,
    slot_bytes: usize,
    reads: Vec<SlotReads>,
    pub cache: ExpertCache,
    poison: bool,
}

/// The memory of a class's slots, to be bound while the pool itself is used for other things.
#[derive(Clone)]
pub(crate) struct SlotBank {
    memory: Arc<HostSlots>,
    slots: usize,
}

impl SlotBank {
    /// The slots as kernels see one part of them.
    pub fn binding(&self, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        self.memory.binding(self.slots, layout)
    }
}

/// Makes the slots of all classes, in one arena. `policy` is asked for one policy per class.
///
/// # Errors
/// [`LoadError`] when the memory is refused.
pub(crate) fn make_pools(
    layout: &ExpertLayout,
    slots: &[u32],
    policy: &dyn Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    poison: bool,
) -> Result<Vec<SlotPool>, LoadError> {
    let bytes: usize =
        layout.classes.iter().zip(slots).map(|(class, slots)| class.slot_bytes * *slots as usize).sum();
    let memory = if bytes == 0 { None } else { Some(Arena::new(bytes, HugePages::Try)?) };
    let mut base = 0;
    let mut pools = Vec::with_capacity(slots.len());
    for (class, slots) in layout.classes.iter().zip(slots) {
        let count = *slots as usize;
        let arena = memory.as_ref().filter(|_| count > 0);
        let memory = arena.map(|arena| Arc::new(HostSlots::new(Arc::clone(arena), base, class, count)));
        pools.push(SlotPool {
            memory,
            slot_bytes: class.slot_bytes,
            reads: vec![SlotReads::default(); count],
            cache: ExpertCache::new(*slots, policy(*slots)),
            poison,
        });
        base += class.slot_bytes * count;
    }
    Ok(pools)
}

impl SlotPool {
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
            memory.discard(keep..before);
        }
    }

    /// Where the slots are in [`Self::arena`].
    pub fn region(&self) -> Range<usize> {
        self.memory.as_ref().map_or(0..0, |memory| memory.region(self.slot_bytes * self.reads.len()))
    }

    /// So many bytes of [`Self::region`] were touched; slots beyond them are used only where no other is.
    pub fn set_touched(&mut self, bytes: usize) {
        // Parts that lie apart have their pages all over the region.
        let are_whole = self.memory.as_ref().is_some_and(|memory| memory.slots_are_whole());
        let touched = bytes / self.slot_bytes.max(1);
        let is_part = are_whole && touched < self.reads.len();
        let fresh = is_part.then(|| SlotId(u32::try_from(touched).unwrap_or(u32::MAX)));
        self.cache.set_fresh_from(fresh);
    }

    /// The memory of all classes' slots; `None` without slots.
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        Some(self.memory.as_ref()?.arena())
    }

    /// Where the slots are in [`Self::arena`], each part by itself, in whole pages; nowhere without slots.
    pub fn banks(&self) -> Vec<Range<usize>> {
        let memory = self.memory.as_ref().filter(|_| !self.reads.is_empty());
        memory.map(|memory| memory.banks(self.reads.len())).unwrap_or_default()
    }

    /// The memory of the slots; `None` without any.
    pub fn bank(&self) -> Option<SlotBank> {
        Some(SlotBank { memory: Arc::clone(self.memory.as_ref()?), slots: self.reads.len() })
    }

    /// The slots as kernels see one part of them; `None` without slots.
    pub fn binding(&self, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        self.memory.as_ref()?.binding(self.reads.len(), layout)
    }

    /// Where the bytes of one part of one slot are in [`Self::arena`].
    pub fn place(&self, slot: SlotId, layout: &PartLayout) -> Option<Range<usize>> {
        Some(self.memory.as_ref()?.slice(slot.index(), layout))
    }

    /// The bytes of one part of one slot.
    pub fn slice(&self, slot: SlotId, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let bytes = self.arena()?.cells().get(self.place(slot, layout)?)?;
        Some(SlotBinding { memory: bytes.into(), stride: layout.slice_bytes, slots: 1 })
    }

    /// Where the read of a part of a slot goes.
    pub fn destination(&self, slot: SlotId, layout: &PartLayout) -> Option<(Arc<Arena>, usize)> {
        let memory = self.memory.as_ref()?;
        Some((Arc::clone(memory.arena()), memory.destination(slot.index(), layout)))
    }

    /// A slot was given to an expert whose `parts` are about to be read.
    pub fn start(&mut self, slot: SlotId, parts: usize) {
        let reads = &mut self.reads[slot.index()];
        debug_assert_eq!(reads.waiting, 0, "slot {} reused while reads are out", slot.0);
        *reads = SlotReads { waiting: ((1u16 << parts) - 1) as u8, failed: None };
        if let Some(memory) = self.memory.as_ref().filter(|_| self.poison) {
            memory.poison(slot.index());
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
        if let (Ok(()), Some(memory)) = (&result, &self.memory) {
            memory.landed(slot.index(), part, read);
        }
        self.settle(slot, index, result.map_err(Failure::Read).err());
    }

    /// All parts of a slot came from elsewhere, each to its place.
    pub fn fill(&mut self, slot: SlotId) {
        self.reads[slot.index()].waiting = 0;
        self.cache.complete(slot, true);
    }

    /// The read of a part was taken back before it started.
    pub fn give_up(&mut self, slot: SlotId, index: usize) {
        self.settle(slot, index, Some(Failure::TakenBack));
    }

    fn settle(&mut self, slot: SlotId, index: usize, failed: Option<Failure>) {
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
    pub fn failure(&self, slot: SlotId) -> Option<ExecError> {
        Some(match self.reads[slot.index()].failed.clone()? {
            Failure::Read(error) => StreamError::Read(error).into(),
            Failure::TakenBack => StreamError::TakenBack.into(),
        })
    }

    /// Whether a part of a slot was read and can be computed with.
    pub fn ready(&self, slot: SlotId, part: usize) -> bool {
        let reads = &self.reads[slot.index()];
        reads.waiting & (1 << part) == 0 && reads.failed.is_none()
    }
}
