//! A device that computes with the host's slots where they are.
//!
//! Each part of a class lies in a bank of its own in the host's memory (`core::plan::banks`), which the
//! device reads by itself; direct I/O writes into slots of it that nothing computes with. So there is one
//! cache, and nothing is uploaded. Steps of more tokens than a decode step has, or of more experts than have
//! slots, get frames, which are host memory too: whole stacks of one part in the order of the file, with ids
//! as they are, copied together by the host.
//!
//! Invariants: what a launched graph reads stays pinned until the device is known to be done with it, when
//! the ids of the next layer have been read or at the end of the step. Pages are given back to the system
//! only after the device has let go of their bank.

use hypura_ggml::{Device, DeviceBuffer, DeviceEvent, ExecError, GraphRun, HostMemory, SlotBinding};
use hypura_storage::{Arena, HugePages};
use std::sync::Arc;
use std::time::Instant;

use super::counts::DeviceCounts;
use crate::error::{LoadError, StreamError};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::lookups::DECODE_TOKENS;
use crate::stream::slots::device::Source;
use crate::stream::step::Step;
use crate::stream::target::no_slots;

/// Frames begin at multiples of this: more than any device or system asks for.
const ALIGNMENT: usize = 64 << 10;

/// What a device computes with of the host's memory.
pub(crate) struct InPlace {
    device: Device,
    /// By class and part; none of a class without slots.
    banks: Vec<Vec<Arc<DeviceBuffer>>>,
    pub(super) frames: Frames,
    /// Why the device does not read the slots any more.
    refused: Option<String>,
    /// Layers that the device may still be computing.
    launched: Vec<Step>,
    pub counts: DeviceCounts,
}

impl InPlace {
    /// Has a device read the slots, and room for frames.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it refuses, [`LoadError::Arena`] when the system does.
    pub fn new(device: Device, host: &ExpertSlots) -> Result<Self, LoadError> {
        let frames = Frames::new(device, host.layout().largest_stack_bytes())?;
        let (banks, launched, counts) = (Vec::new(), Vec::new(), DeviceCounts::default());
        let mut in_place = Self { device, banks, frames, refused: None, launched, counts };
        in_place.import(host)?;
        Ok(in_place)
    }

    /// Has the device read the slots that there are.
    ///
    /// # Errors
    /// As [`Self::new`].
    fn import(&mut self, host: &ExpertSlots) -> Result<(), LoadError> {
        let Some(memory) = host.memory().map(Source::of) else { return Ok(()) };
        let mut banks = Vec::with_capacity(host.pools().len());
        for pool in host.pools() {
            let import = |range| Ok(Arc::new(DeviceBuffer::over(self.device, &memory, range)?));
            banks.push(pool.banks().into_iter().map(import).collect::<Result<_, LoadError>>()?);
        }
        self.banks = banks;
        Ok(())
    }

    /// Has the device let go of the slots; nothing is being computed with them.
    pub fn release(&mut self) {
        self.banks.clear();
    }

    /// Has the device read the slots that are left. Should it refuse what it read before, whoever computes
    /// next is told.
    pub fn import_again(&mut self, host: &ExpertSlots) {
        self.refused = self.import(host).err().map(|error| error.to_string());
    }

    /// Whether a step of so many tokens is computed over slots, where all its experts have one.
    pub fn takes_slots(tokens: usize) -> bool {
        tokens <= DECODE_TOKENS
    }

    /// A layer has been launched; it keeps what it holds.
    pub(in crate::stream) fn keep(&mut self, step: Step) {
        self.launched.push(step);
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub(in crate::stream) fn settle(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.launched)
    }

    /// The slots of a layer as the device's kernels see one part of them.
    pub(super) fn binding<'a>(
        &'a self,
        slots: &ExpertSlots,
        layer: usize,
        part: usize,
    ) -> Result<SlotBinding<'a>, ExecError> {
        if let Some(reason) = &self.refused {
            return Err(StreamError::Import(reason.clone()).into());
        }
        let layer = &slots.layout().layers[layer];
        let bank = self.banks.get(layer.class).and_then(|banks| banks.get(part)).ok_or_else(no_slots)?;
        let (layout, count) = (&layer.parts[part], slots.pools()[layer.class].slots() as usize);
        let start = layout.shift.unwrap_or(0);
        let reach = count.checked_sub(1).ok_or_else(no_slots)? * layout.stride + layout.slice_bytes;
        let memory = bank.region(start..start + reach).ok_or_else(no_slots)?;
        Ok(SlotBinding { memory: memory.into(), stride: layout.stride, slots: count })
    }
}

/// Whole stacks of one part, in the host's memory. Two, so that one is filled while the device computes with
/// the other.
pub(super) struct Frames {
    memory: Arc<Arena>,
    frames: [Frame; 2],
    next: usize,
}

struct Frame {
    buffer: Arc<DeviceBuffer>,
    /// Where it begins.
    at: usize,
    /// Behind what computes with it; `None` where the device has no events.
    computed: Option<DeviceEvent>,
}

impl Frames {
    fn new(device: Device, stack_bytes: usize) -> Result<Self, LoadError> {
        let bytes = stack_bytes.max(1).next_multiple_of(ALIGNMENT);
        let memory = Arena::new(2 * bytes, HugePages::Try)?;
        let source: Arc<dyn HostMemory> = Source::of(&memory);
        let frame = |at: usize| {
            let buffer = Arc::new(DeviceBuffer::over(device, &source, at..at + bytes)?);
            Ok::<_, LoadError>(Frame { buffer, at, computed: DeviceEvent::new(device) })
        };
        Ok(Self { frames: [frame(0)?, frame(bytes)?], memory, next: 0 })
    }

    /// Waits until nothing computes with the next frame.
    pub fn begin(&mut self, run: &mut GraphRun<'_>, counts: &mut DeviceCounts) {
        let begun = Instant::now();
        match &self.frames[self.next].computed {
            Some(computed) => computed.wait(),
            None => run.synchronize(),
        }
        counts.note_wait(begun.elapsed());
    }

    /// Copies a slice to its place in the frame.
    pub fn copy(&self, from: &Arena, at: usize, expert: u32, slice_bytes: usize) {
        let to = self.frames[self.next].at + expert as usize * slice_bytes;
        from.copy_to(at, &self.memory, to, slice_bytes);
    }

    /// The frame, to be computed with.
    pub fn buffer(&self) -> Arc<DeviceBuffer> {
        Arc::clone(&self.frames[self.next].buffer)
    }

    /// The frame of the last [`Self::begin`] is being computed with.
    pub fn launch(&mut self, run: &mut GraphRun<'_>) {
        if let Some(computed) = &mut self.frames[self.next].computed {
            computed.record_behind(run);
        }
        self.next = (self.next + 1) % self.frames.len();
    }
}
