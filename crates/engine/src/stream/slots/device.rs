//! Slots in a device's memory: a cache over the slots of the host, filled by uploads.
//!
//! Each part has a bank of its own, slices one behind the other: kernels of devices count in whole blocks of
//! the type, which the host's slots, whole pages with all parts in them, are not multiples of. A class whose
//! banks would be larger than a device can bind has several pools, which the layers share evenly.
//!
//! Invariants: an upload reads host memory that no read writes to until it is done
//! ([`Lent::reclaim`] waits for that), and writes to a slot that nothing computes
//! with (slots are unpinned when the device is done with them).

use hypura_core::cache::{EvictionPolicy, ExpertCache, SlotId};
use hypura_core::plan::{ExpertLayout, LayerLayout, PartLayout};
use hypura_ggml::{
    Device, DeviceBuffer, DeviceEvent, ExecError, GraphRun, HostMemory, SlotBinding, Uploader,
};
use hypura_storage::Arena;
use std::collections::HashSet;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::LoadError;

/// Rooms in a device's memory begin at multiples of this: more than any device asks for.
const ALIGNMENT: usize = 4096;

/// Kernels bind at most so much memory as one operand on any device worth the name.
const LARGEST_BANK: usize = 2 << 30;

/// Host memory that devices read.
pub(crate) struct Source(pub Arc<Arena>);

impl Source {
    pub fn of(arena: &Arc<Arena>) -> Arc<dyn HostMemory> {
        Arc::new(Self(Arc::clone(arena)))
    }
}

impl HostMemory for Source {
    fn bytes(&self) -> &[AtomicU8] {
        self.0.cells()
    }
}

/// The way to a device, shared by all who upload.
#[derive(Clone)]
pub(crate) struct Uploads {
    pub device: Device,
    uploader: Arc<Mutex<Uploader>>,
}

impl Uploads {
    /// # Errors
    /// [`LoadError::Ggml`] when the device cannot be used.
    pub fn new(device: Device) -> Result<Self, LoadError> {
        Ok(Self { device, uploader: Arc::new(Mutex::new(Uploader::new(device)?)) })
    }

    pub fn lock(&self) -> MutexGuard<'_, Uploader> {
        self.uploader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of the device, zeroed: some kernels read a little beyond what they compute with, and what they
    /// find there must be a number.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it has no memory left.
    pub fn buffer(&self, bytes: usize) -> Result<Arc<DeviceBuffer>, LoadError> {
        let mut buffer = DeviceBuffer::new(self.device, bytes)?;
        buffer.fill(0);
        Ok(Arc::new(buffer))
    }
}

/// Slots of the host that uploads may still read, by class.
pub(crate) struct Lent {
    uploads: Uploads,
    /// No fence is behind their uploads yet.
    recent: HashSet<(usize, SlotId)>,
    fenced: HashSet<(usize, SlotId)>,
}

impl Lent {
    pub fn new(uploads: Uploads) -> Self {
        Self { uploads, recent: HashSet::new(), fenced: HashSet::new() }
    }

    /// An upload reads a slot.
    pub fn lend(&mut self, class: usize, slot: SlotId) {
        self.recent.insert((class, slot));
    }

    /// A fence is behind all uploads so far.
    pub fn fence(&mut self) {
        self.fenced.extend(self.recent.drain());
    }

    /// What was launched behind the last fence is done.
    pub fn settle(&mut self) {
        self.fenced.clear();
    }

    /// A slot is about to be written to.
    pub fn reclaim(&mut self, class: usize, slot: SlotId) {
        let slot = (class, slot);
        if self.recent.contains(&slot) || self.fenced.contains(&slot) {
            self.uploads.lock().wait();
            self.recent.clear();
            self.fenced.clear();
        }
    }
}

/// Slices of one part, slot by slot.
struct Bank {
    buffer: Arc<DeviceBuffer>,
    /// Bytes from slot to slot.
    stride: usize,
}

/// Slots of a size class on a device.
pub(crate) struct DevicePool {
    pub cache: ExpertCache,
    /// One for each part.
    banks: Vec<Bank>,
    /// For each slot, which parts were handed to the device since it was given to its expert. Bit `i`: part
    /// `i`.
    handed: Vec<u8>,
}

impl DevicePool {
    fn new(
        strides: &[usize],
        slots: usize,
        policy: Box<dyn EvictionPolicy + Send>,
        uploads: &Uploads,
    ) -> Result<Self, LoadError> {
        let bank = |stride: &usize| {
            // Kernels may read one slice further than the last.
            let buffer = uploads.buffer(((slots + 1) * stride).next_multiple_of(ALIGNMENT))?;
            Ok::<_, LoadError>(Bank { buffer, stride: *stride })
        };
        let banks = strides.iter().map(bank).collect::<Result<_, _>>()?;
        let cache = ExpertCache::new(u32::try_from(slots).unwrap_or(u32::MAX), policy);
        Ok(Self { cache, banks, handed: vec![0; slots] })
    }

    /// How many.
    pub fn slots(&self) -> usize {
        self.handed.len()
    }

    /// A slot was given to an expert.
    pub fn start(&mut self, slot: SlotId) {
        self.handed[slot.index()] = 0;
    }

    /// Whether kernels that are launched behind a fence find the part of a slot.
    pub fn has(&self, slot: SlotId, part: usize) -> bool {
        self.handed[slot.index()] & (1 << part) != 0
    }

    /// A part of a slot is handed to the device; returns where it is.
    pub fn hand(&mut self, slot: SlotId, part: usize) -> Option<(Arc<DeviceBuffer>, usize)> {
        self.handed[slot.index()] |= 1 << part;
        self.room(slot, part)
    }

    /// Where a part of a slot is.
    pub fn room(&self, slot: SlotId, part: usize) -> Option<(Arc<DeviceBuffer>, usize)> {
        let bank = self.banks.get(part)?;
        Some((Arc::clone(&bank.buffer), slot.index() * bank.stride))
    }

    /// Whether all parts of a slot were.
    pub fn is_whole(&self, slot: SlotId, parts: usize) -> bool {
        (0..parts).all(|part| self.has(slot, part))
    }

    /// The slots as kernels see one part of them; `None` without slots.
    pub fn binding(&self, part: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let Bank { buffer, stride } = self.banks.get(part)?;
        let end = self.slots().checked_sub(1)? * stride + layout.slice_bytes;
        Some(SlotBinding { memory: buffer.region(0..end)?.into(), stride: *stride, slots: self.slots() })
    }
}

/// Makes the pools of a class, `slots` slots in all of them together.
///
/// # Errors
/// [`LoadError::Ggml`] when the device has no memory left.
pub(crate) fn make_device_pools(
    layout: &ExpertLayout,
    class: usize,
    slots: usize,
    policy: &dyn Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    uploads: &Uploads,
) -> Result<Vec<DevicePool>, LoadError> {
    let mut strides: Vec<usize> = Vec::new();
    let layers = layout.layers.iter().filter(|layer| layer.class == class);
    for layer in layers.clone() {
        strides.resize(strides.len().max(layer.parts.len()), 0);
        for (stride, part) in strides.iter_mut().zip(&layer.parts) {
            *stride = part.slice_bytes.max(*stride);
        }
    }
    let largest = strides.iter().max().copied().unwrap_or(0);
    let bank_bytes = uploads.device.largest_buffer_bytes().min(LARGEST_BANK);
    let count = (slots * largest).div_ceil(bank_bytes.max(1)).clamp(1, layers.count().max(1));
    let pool = |_| {
        let slots = slots / count;
        DevicePool::new(&strides, slots, policy(u32::try_from(slots).unwrap_or(u32::MAX)), uploads)
    };
    if slots / count == 0 { Ok(Vec::new()) } else { (0..count).map(pool).collect() }
}

/// Whether pools, by class, have a slot for every expert of a model.
pub(crate) fn have_room_for_all(pools: &[Vec<DevicePool>], layout: &ExpertLayout) -> bool {
    let slots = |pools: &Vec<DevicePool>| pools.iter().map(DevicePool::slots).sum::<usize>();
    pools.iter().map(slots).zip(&layout.classes).all(|(slots, class)| slots as u64 >= class.experts)
}

/// The pool of a layer; `None` where its class has none.
pub(crate) fn pool_of<'a>(
    pools: &'a mut [Vec<DevicePool>],
    layer: &LayerLayout,
) -> Option<&'a mut DevicePool> {
    let of_class = pools.get_mut(layer.class)?;
    let count = of_class.len();
    of_class.get_mut((layer.layer as usize).checked_rem(count)?)
}

/// Whole stacks of one part of a layer, for steps that use more experts than there are slots: in the order of
/// the file, with ids as they are. Two, so that one is filled while the device computes with the other.
pub(crate) struct Frames {
    uploads: Uploads,
    bytes: usize,
    frames: [Option<Frame>; 2],
    next: usize,
}

struct Frame {
    buffer: Arc<DeviceBuffer>,
    /// Behind what computes with it; `None` where the device has no events.
    computed: Option<DeviceEvent>,
}

impl Frames {
    /// Room for the largest stack of a model. Memory is taken when it is first wanted.
    pub fn new(layout: &ExpertLayout, uploads: &Uploads) -> Self {
        let bytes = layout.largest_stack_bytes().next_multiple_of(ALIGNMENT);
        Self { uploads: uploads.clone(), bytes, frames: [None, None], next: 0 }
    }

    /// A frame; what is uploaded from now on waits until nothing computes with it.
    pub fn begin(&mut self, run: &mut GraphRun<'_>) -> Result<Arc<DeviceBuffer>, ExecError> {
        let frame = &mut self.frames[self.next];
        let Frame { buffer, computed } = match frame {
            Some(frame) => frame,
            None => {
                let buffer = self.uploads.buffer(self.bytes).map_err(ExecError::engine)?;
                frame.insert(Frame { buffer, computed: DeviceEvent::new(self.uploads.device) })
            }
        };
        match computed {
            Some(computed) => self.uploads.lock().hold(computed),
            None => run.synchronize(),
        }
        Ok(Arc::clone(buffer))
    }

    /// Nothing is being computed: what the device keeps of events goes.
    pub fn settle(&self) {
        let computed = self.frames.iter().flatten().filter_map(|frame| frame.computed.as_ref());
        computed.for_each(DeviceEvent::wait);
    }

    /// The frame of the last [`Self::begin`] is being computed with.
    pub fn launch(&mut self, run: &mut GraphRun<'_>) {
        let frame = self.frames[self.next].as_mut();
        if let Some(computed) = frame.and_then(|frame| frame.computed.as_mut()) {
            computed.record_behind(run);
        }
        self.next = (self.next + 1) % self.frames.len();
    }
}
