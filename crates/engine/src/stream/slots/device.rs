//! Slots in a device's memory: a read lands in the host's memory, where the expert stays, and is used after
//! an upload.
//!
//! Each part has a bank of its own, slices one behind the other: kernels of devices count in whole blocks of
//! the type, which the host's slots, whole pages with all parts in them, are not multiples of.
//!
//! Invariants: an upload reads host memory that no read writes to until it is done ([`SlotMemory::prepare`]
//! waits for that), and writes to a slot that nothing computes with (slots are unpinned when the device is
//! done with them).

use hypura_core::plan::{ExpertLayout, PartLayout, PartRead};
use hypura_ggml::{Device, DeviceBuffer, ExecError, GraphRun, HostMemory, SlotBinding, Uploader};
use hypura_storage::Arena;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SlotMemory;
use super::host::HostSlots;
use crate::error::LoadError;

/// Rooms in a device's memory begin at multiples of this: more than any device asks for.
const ALIGNMENT: usize = 4096;

/// Host memory that devices read.
pub(crate) struct Source(pub Arc<Arena>);

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
}

/// The slots of one size class on a device.
pub(crate) struct DeviceSlots {
    host: HostSlots,
    source: Arc<dyn HostMemory>,
    buffer: Arc<DeviceBuffer>,
    /// Where the bank of each part begins, and the bytes from slot to slot.
    banks: Vec<(usize, usize)>,
    uploads: Uploads,
    /// For each slot, which parts were handed to the device. Bit `i`: part `i`.
    handed: Vec<AtomicU8>,
}

impl DeviceSlots {
    /// Slots of a class over `host`, which has as many.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when the device has no memory left.
    pub fn new(
        host: HostSlots,
        layout: &ExpertLayout,
        class: usize,
        slots: usize,
        uploads: &Uploads,
    ) -> Result<Self, LoadError> {
        let mut strides: Vec<usize> = Vec::new();
        for layer in layout.layers.iter().filter(|layer| layer.class == class) {
            strides.resize(strides.len().max(layer.parts.len()), 0);
            for (stride, part) in strides.iter_mut().zip(&layer.parts) {
                *stride = part.slice_bytes.max(*stride);
            }
        }
        let mut bytes = 0;
        let bank = |stride: usize| {
            let at = bytes;
            bytes = (bytes + slots * stride).next_multiple_of(ALIGNMENT);
            (at, stride)
        };
        let banks = strides.into_iter().map(bank).collect();
        let source: Arc<dyn HostMemory> = Arc::new(Source(Arc::clone(host.arena())));
        let buffer = Arc::new(DeviceBuffer::new(uploads.device, bytes.max(ALIGNMENT))?);
        let handed = (0..slots).map(|_| AtomicU8::new(0)).collect();
        Ok(Self { host, source, buffer, banks, uploads: uploads.clone(), handed })
    }
}

impl SlotMemory for DeviceSlots {
    fn arena(&self) -> &Arc<Arena> {
        self.host.arena()
    }

    fn destination(&self, slot: usize, layout: &PartLayout) -> usize {
        self.host.destination(slot, layout)
    }

    fn prepare(&self, slot: usize, poison: bool) {
        if self.handed[slot].swap(0, Ordering::Relaxed) != 0 {
            self.uploads.lock().wait();
        }
        self.host.prepare(slot, poison);
    }

    fn landed(&self, slot: usize, part: usize, layout: &PartLayout, read: PartRead) -> Result<(), ExecError> {
        self.host.landed(slot, part, layout, read)?;
        let (bank, stride) = self.banks[part];
        let from = self.host.host_slice(slot, layout);
        self.uploads.lock().upload(&self.source, from, &self.buffer, bank + slot * stride)?;
        self.handed[slot].fetch_or(1 << part, Ordering::Relaxed);
        Ok(())
    }

    fn usable(&self, slot: usize, part: usize) -> bool {
        self.handed[slot].load(Ordering::Relaxed) & (1 << part) != 0
    }

    fn fence(&self, run: &mut GraphRun<'_>) {
        self.uploads.lock().fence(run);
    }

    fn binding(&self, slots: usize, part: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let (bank, stride) = *self.banks.get(part)?;
        let end = bank + slots.checked_sub(1)? * stride + layout.slice_bytes;
        let region = self.buffer.region(bank..end)?;
        Some(SlotBinding { memory: region.into(), stride, slots })
    }

    fn host_slice(&self, slot: usize, layout: &PartLayout) -> Range<usize> {
        self.host.host_slice(slot, layout)
    }

    fn discard(&self, slots: Range<usize>) {
        // The device's part stays: its buffer is one piece.
        self.host.discard(slots);
    }
}

/// Whole stacks of one part of a layer, for steps that use more experts than there are slots: in the order of
/// the file, with ids as they are. Two, so that one is filled while the device computes with the other.
pub(crate) struct Frames {
    uploads: Uploads,
    bytes: usize,
    frames: [Option<Arc<DeviceBuffer>>; 2],
    next: usize,
    /// Of the last frames that were launched, how many the device may not be done with.
    launched: usize,
}

impl Frames {
    /// Room for the largest stack of a model. Memory is taken when it is first wanted.
    pub fn new(layout: &ExpertLayout, uploads: &Uploads) -> Self {
        let stacks = layout
            .layers
            .iter()
            .flat_map(|layer| layer.parts.iter().map(|part| part.slice_bytes * layer.experts as usize));
        let bytes = stacks.max().unwrap_or(0).next_multiple_of(ALIGNMENT);
        Self { uploads: uploads.clone(), bytes, frames: [None, None], next: 0, launched: 0 }
    }

    /// A frame that nothing computes with.
    pub fn begin(&mut self, run: &mut GraphRun<'_>) -> Result<Arc<DeviceBuffer>, ExecError> {
        if self.launched == self.frames.len() {
            run.synchronize();
            self.launched = 0;
        }
        let frame = &mut self.frames[self.next];
        if let Some(frame) = frame {
            return Ok(Arc::clone(frame));
        }
        let made = DeviceBuffer::new(self.uploads.device, self.bytes).map_err(ExecError::engine)?;
        Ok(Arc::clone(frame.insert(Arc::new(made))))
    }

    /// The frame of the last [`Self::begin`] is being computed with.
    pub fn launch(&mut self) {
        self.next = (self.next + 1) % self.frames.len();
        self.launched += 1;
    }

    /// The device is done with everything.
    pub fn settle(&mut self) {
        self.launched = 0;
    }
}
