//! The slots of a size class: their cache, and the state of each slot's reads.
//!
//! Invariant: a slot is reported complete to the cache only when no read of any of its parts is out, whether
//! they succeeded or not. So nothing can land in a slot that was given to another expert.

use hypura_core::cache::{EvictionPolicy, ExpertCache, SlotId};
use hypura_core::plan::{ExpertLayout, PartLayout, PartRead};
use hypura_ggml::{ExecError, SlotBinding};
use hypura_storage::{Arena, HugePages, ReadError};
use std::sync::Arc;

use super::SlotMemory;
use super::device::{DeviceSlots, Uploads};
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
    /// It was read, and the device did not take it.
    Upload(ExecError),
}

/// The slots of one size class.
pub(crate) struct SlotPool {
    memory: Option<Arc<dyn SlotMemory>>,
    slot_bytes: usize,
    reads: Vec<SlotReads>,
    pub cache: ExpertCache,
    poison: bool,
}

/// The memory of a class's slots, to be bound while the slab itself is used for other things.
#[derive(Clone)]
pub(crate) struct SlotBank {
    memory: Arc<dyn SlotMemory>,
    slots: usize,
}

impl SlotBank {
    /// The slots as kernels see one part of them.
    pub fn binding(&self, part: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        self.memory.binding(self.slots, part, layout)
    }

    /// Their memory.
    pub fn memory(&self) -> &dyn SlotMemory {
        &*self.memory
    }
}

/// Makes the slabs of all classes, in one arena and, with `uploads`, on that device. `policy` is asked for
/// one policy per class.
///
/// # Errors
/// [`LoadError`] when the memory is refused.
pub(crate) fn make_pools(
    layout: &ExpertLayout,
    slots: &[u32],
    policy: impl Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    poison: bool,
    uploads: Option<&Uploads>,
) -> Result<Vec<SlotPool>, LoadError> {
    let bytes: usize =
        layout.classes.iter().zip(slots).map(|(class, slots)| class.slot_bytes * *slots as usize).sum();
    let memory = if bytes == 0 { None } else { Some(Arena::new(bytes, HugePages::Try)?) };
    let mut base = 0;
    let mut pools = Vec::with_capacity(slots.len());
    for (index, (class, slots)) in layout.classes.iter().zip(slots).enumerate() {
        let count = *slots as usize;
        let memory: Option<Arc<dyn SlotMemory>> = match memory.as_ref().filter(|_| count > 0) {
            None => None,
            Some(arena) => {
                let host = HostSlots::new(Arc::clone(arena), base, class.slot_bytes);
                Some(match uploads {
                    None => Arc::new(host),
                    Some(uploads) => Arc::new(DeviceSlots::new(host, layout, index, count, uploads)?),
                })
            }
        };
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

    /// The host memory of all slabs; `None` without slots.
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        Some(self.memory.as_ref()?.arena())
    }

    /// The memory of the slots; `None` without any.
    pub fn bank(&self) -> Option<SlotBank> {
        Some(SlotBank { memory: Arc::clone(self.memory.as_ref()?), slots: self.reads.len() })
    }

    /// The slots as kernels see one part of them; `None` without slots.
    pub fn binding(&self, part: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        self.memory.as_ref()?.binding(self.reads.len(), part, layout)
    }

    /// The bytes of one part of one slot in the host's memory.
    pub fn host_slice(&self, slot: SlotId, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let memory = self.memory.as_ref()?;
        let bytes = memory.arena().cells().get(memory.host_slice(slot.index(), layout))?;
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
        if let Some(memory) = &self.memory {
            memory.prepare(slot.index(), self.poison);
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
        let outcome = match (result, &self.memory) {
            (Ok(()), Some(memory)) => memory.landed(slot.index(), index, part, read).map_err(Failure::Upload),
            (result, _) => result.map_err(Failure::Read),
        };
        self.settle(slot, index, outcome.err());
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
            Failure::Upload(error) => error,
        })
    }

    /// Whether a part of a slot was read.
    pub fn landed(&self, slot: SlotId, part: usize) -> bool {
        let reads = &self.reads[slot.index()];
        reads.waiting & (1 << part) == 0 && reads.failed.is_none()
    }

    /// Whether a part of a slot can be computed with.
    pub fn ready(&self, slot: SlotId, part: usize) -> bool {
        self.landed(slot, part)
            && self.memory.as_ref().is_some_and(|memory| memory.usable(slot.index(), part))
    }
}
