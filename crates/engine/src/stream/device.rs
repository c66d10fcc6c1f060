//! A layer of experts on a device: whole nodes only, over its slots, or over a frame where there are too few
//! of them.
//!
//! The device's slots are a cache over those of the host: an expert that is in one of them is not looked up
//! in the host's memory at all, so the two hold different experts after a while. Any other comes from a slot
//! or a cell of the host, where it is or is read into.
//!
//! Whether a step computes with slots or with frames follows from its tokens and its experts, not from what
//! is in memory. A device computes after the call has returned: what it computes with stays pinned until it
//! is known to be done, when the ids of the next layer have been read, or at the end of the step.

use hypura_core::cache::{EvictionPolicy, Grant, TokenClock};
use hypura_core::plan::LayerLayout;
use hypura_ggml::{DeviceBuffer, ExecError, GraphRun, HostMemory, SlotBinding, StreamedOp};
use std::sync::Arc;

use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::lookups::DECODE_TOKENS;
use super::polling::{poll_reads, wait_for};
use super::ready::free_cells;
use super::slots::device::{DevicePool, Frames, Lent, Source, Uploads, make_device_pools};
use super::step::{DeviceSlot, GroupedIds, Place, Step};
use super::target::{Target, no_slots};
use crate::error::LoadError;

/// What experts on a device need besides the host's memory.
pub(crate) struct DeviceSide {
    uploads: Uploads,
    frames: Frames,
    /// By class; the layers of a class share its pools evenly.
    pools: Vec<Vec<DevicePool>>,
    /// The memory of throwaway cells.
    cells: Arc<dyn HostMemory>,
    /// The memory of the host's slots; `None` without any.
    slots: Option<Arc<dyn HostMemory>>,
    /// Whether the device reads the host's slots by itself: then their pages must stay.
    imports: bool,
    /// Layers that the device may still be computing.
    launched: Vec<Step>,
    pub counts: DeviceCounts,
}

/// What a device did, since the model was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceCounts {
    /// Lookups of decode steps that a slot of the device answered.
    pub hits: u64,
    /// Bytes of experts that were uploaded.
    pub uploaded_bytes: u64,
    /// Times that the host waited for the device.
    pub waits: u64,
}

impl DeviceSide {
    /// `counts` slots of each class where `uploads` leads to, over those of the host.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when the device has no memory left.
    pub fn new(
        uploads: Uploads,
        host: &ExpertSlots,
        counts: &[u32],
        policy: &dyn Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    ) -> Result<Self, LoadError> {
        let layout = host.layout();
        let frames = Frames::new(layout, &uploads);
        let pools = counts.iter().enumerate();
        let pools = pools
            .map(|(class, slots)| make_device_pools(layout, class, *slots as usize, policy, &uploads))
            .collect::<Result<_, _>>()?;
        let (cells, slots) = (Source::of(host.cells.arena()), host.memory().map(Source::of));
        let mut uploader = uploads.lock();
        let imports = slots.as_ref().is_some_and(|slots| uploader.import(uploads.device, slots));
        uploader.import(uploads.device, &cells);
        drop(uploader);
        let (launched, counts) = (Vec::new(), DeviceCounts::default());
        Ok(Self { uploads, frames, pools, cells, slots, imports, launched, counts })
    }

    /// Whether the pages of the host's slots must stay.
    pub fn imports(&self) -> bool {
        self.imports
    }

    /// Looks up the experts of a step that computes with slots: those that are there need nothing of the
    /// host.
    pub(super) fn place(
        &mut self,
        layer: &LayerLayout,
        tokens: usize,
        now: TokenClock,
        grouped: &mut GroupedIds,
    ) {
        self.counts.waits += 1;
        let Some(pool) = pool_of(&mut self.pools, layer) else { return };
        if tokens > DECODE_TOKENS || grouped.wanted.len() > pool.slots() {
            return;
        }
        let grants = pool.cache.acquire(&grouped.demands(layer.layer), now);
        if grants.iter().any(|grant| !matches!(grant, Grant::Hit(_) | Grant::Load(_))) {
            for grant in grants {
                if let Grant::Load(slot) = grant {
                    pool.cache.complete(slot, false);
                }
                grant.slot().into_iter().for_each(|slot| pool.cache.unpin(slot));
            }
            return;
        }
        for (want, grant) in grouped.wanted.iter_mut().zip(grants) {
            let loading = matches!(grant, Grant::Load(_));
            want.on_device = grant.slot().map(|slot| DeviceSlot { slot, loading });
            match grant {
                Grant::Load(slot) => pool.start(slot),
                _ => {
                    want.place = Place::OnDevice;
                    self.counts.hits += 1;
                }
            }
        }
    }

    /// Keeps account of the host's slots that uploads read.
    pub fn lent(&self) -> Lent {
        Lent::new(self.uploads.clone())
    }

    /// A node to be computed here.
    pub(super) fn node<'a>(
        &'a mut self,
        slots: &'a mut ExpertSlots,
        guesses: &'a mut GuessQueue,
        io: &'a mut Io<Target>,
        op: StreamedOp,
        part: usize,
    ) -> DeviceNode<'a> {
        DeviceNode { device: self, slots, guesses, io, op, part }
    }

    /// A layer has been launched; it keeps what it holds.
    pub(super) fn keep(&mut self, layer: &LayerLayout, mut step: Step) {
        if let Some(pool) = pool_of(&mut self.pools, layer) {
            let loading = |slot: &&mut DeviceSlot| slot.loading;
            for place in step.wanted.iter_mut().filter_map(|want| want.on_device.as_mut()).filter(loading) {
                pool.cache.complete(place.slot, pool.is_whole(place.slot, layer.parts.len()));
                place.loading = false;
            }
        }
        self.settle_uploads();
        self.launched.push(step);
    }

    /// Slots that are given to others must not be waiting for an upload: none comes between two layers,
    /// unless the layer's nodes came in several graphs or were given up.
    fn settle_uploads(&mut self) {
        let mut uploader = self.uploads.lock();
        if uploader.is_unfenced() {
            self.counts.waits += 1;
            uploader.wait();
        }
    }

    /// Gives back what a layer holds of the device.
    pub(super) fn unpin(&mut self, layer: &LayerLayout, step: &Step) {
        self.settle_uploads();
        let Some(pool) = pool_of(&mut self.pools, layer) else { return };
        for DeviceSlot { slot, loading } in step.wanted.iter().filter_map(|want| want.on_device) {
            if loading {
                pool.cache.complete(slot, false);
            }
            pool.cache.unpin(slot);
        }
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub(super) fn settle(&mut self) -> Vec<Step> {
        self.frames.settle();
        std::mem::take(&mut self.launched)
    }

    /// Slots that are pinned.
    pub fn pinned(&self) -> usize {
        self.pools.iter().flatten().map(|pool| pool.cache.pinned()).sum()
    }

    /// Slots whose experts are on their way.
    pub fn loading(&self) -> usize {
        self.pools.iter().flatten().map(|pool| pool.cache.loading()).sum()
    }
}

/// The pool of a layer; `None` where its class has none.
fn pool_of<'a>(pools: &'a mut [Vec<DevicePool>], layer: &LayerLayout) -> Option<&'a mut DevicePool> {
    let of_class = pools.get_mut(layer.class)?;
    let count = of_class.len();
    of_class.get_mut((layer.layer as usize).checked_rem(count)?)
}

/// One node, a part of the experts of a layer, to be computed on a device.
pub(super) struct DeviceNode<'a> {
    device: &'a mut DeviceSide,
    slots: &'a mut ExpertSlots,
    guesses: &'a mut GuessQueue,
    io: &'a mut Io<Target>,
    op: StreamedOp,
    part: usize,
}

impl DeviceNode<'_> {
    /// Launches it.
    pub fn run(&mut self, run: &mut GraphRun<'_>, step: &mut Step) -> Result<(), ExecError> {
        match step.slots.take() {
            Some(slots) => {
                let outcome = self.run_in_slots(run, step, &slots);
                step.slots = Some(slots);
                outcome
            }
            None => self.run_in_frame(run, step),
        }
    }

    fn run_in_slots(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        slots: &[i32],
    ) -> Result<(), ExecError> {
        if slots.is_empty() {
            // A ubatch without outputs has no tokens left in its last layer.
            return Ok(());
        }
        poll_reads(self.slots, self.guesses, self.io);
        loop {
            let waiting = self.hand_over(step, self.part)?;
            if waiting.is_empty() {
                break;
            }
            wait_for(self.slots, self.guesses, self.io, step, &waiting)?;
        }
        self.device.uploads.lock().fence(run);
        let layer = &self.slots.layout.layers[step.layer];
        let pool = pool_of(&mut self.device.pools, layer).ok_or_else(no_slots)?;
        let bound = pool.binding(self.part, &layer.parts[self.part]).ok_or_else(no_slots)?;
        run.run_bound(self.op, bound, slots)?;
        // What later nodes need and is here goes over while the device computes this one.
        for part in 0..self.slots.layout.layers[step.layer].parts.len() {
            self.hand_over(step, part)?;
        }
        poll_reads(self.slots, self.guesses, self.io);
        Ok(())
    }

    /// Uploads a part of all experts that have landed and are not there yet; returns those that have not
    /// landed.
    fn hand_over(&mut self, step: &mut Step, part: usize) -> Result<Vec<usize>, ExecError> {
        let (mut waiting, mut from_cells) = (Vec::new(), Vec::new());
        for want in 0..step.wanted.len() {
            let Some(DeviceSlot { slot, loading: true }) = step.wanted[want].on_device else { continue };
            let layer = &self.slots.layout.layers[step.layer];
            let pool = pool_of(&mut self.device.pools, layer).ok_or_else(no_slots)?;
            if pool.has(slot, part) {
                continue;
            }
            if !self.slots.is_ready(step, want, part) {
                waiting.push(want);
                continue;
            }
            let (buffer, at) = pool.room(slot, part).ok_or_else(no_slots)?;
            pool.hand(slot, part);
            self.upload(step, want, part, &buffer, at)?;
            if matches!(step.wanted[want].place, Place::Cells(_)) {
                from_cells.push(want);
            }
        }
        self.release_cells(step, part, &from_cells);
        Ok(waiting)
    }

    /// Cells are read into again as soon as they are free.
    fn release_cells(&mut self, step: &mut Step, part: usize, uploaded: &[usize]) {
        if uploaded.is_empty() {
            return;
        }
        self.device.counts.waits += 1;
        self.device.uploads.lock().wait();
        free_cells(&mut self.slots.cells, step, part, uploaded);
        self.slots.fill_ring(self.io, step);
    }

    fn run_in_frame(&mut self, run: &mut GraphRun<'_>, step: &mut Step) -> Result<(), ExecError> {
        let frame = self.device.frames.begin(run)?;
        let part = self.part;
        let (slice, experts) = {
            let layer = &self.slots.layout.layers[step.layer];
            (layer.parts[part].slice_bytes, layer.experts as usize)
        };
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        while !todo.is_empty() {
            let (ready, rest) = self.slots.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                wait_for(self.slots, self.guesses, self.io, step, &todo)?;
                continue;
            }
            for want in &ready {
                self.upload(step, *want, part, &frame, step.wanted[*want].expert as usize * slice)?;
            }
            let in_cell = |want: &usize| matches!(step.wanted[*want].place, Place::Cells(_));
            let from_cells: Vec<usize> = ready.into_iter().filter(in_cell).collect();
            self.release_cells(step, part, &from_cells);
            poll_reads(self.slots, self.guesses, self.io);
        }
        self.device.uploads.lock().fence(run);
        let region = frame.region(0..slice * experts).ok_or_else(no_slots)?;
        let bound = SlotBinding { memory: region.into(), stride: slice, slots: experts };
        let op = self.op;
        let outcome = run.meanwhile(&mut || poll_reads(self.slots, self.guesses, self.io), |run| {
            run.run_bound(op, bound, &step.experts)
        });
        self.device.frames.launch();
        outcome
    }

    /// Brings a part of an expert, which has landed, to the device.
    fn upload(
        &mut self,
        step: &Step,
        want: usize,
        part: usize,
        buffer: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        let layer = &self.slots.layout.layers[step.layer];
        let layout = &layer.parts[part];
        let mut uploader = self.device.uploads.lock();
        match &step.wanted[want].place {
            Place::Slot(slot) => {
                let from = self.slots.pool(step.layer).place(*slot, layout).ok_or_else(no_slots)?;
                let source = self.device.slots.as_ref().ok_or_else(no_slots)?;
                uploader.upload(source, from, buffer, at)?;
                if let Some(lent) = &mut self.slots.lent {
                    lent.lend(layer.class, *slot);
                }
            }
            Place::Cells(cells) => {
                let cell = cells[part].ok_or_else(no_slots)?;
                let from = self.slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
                uploader.upload(&self.device.cells, from, buffer, at)?;
            }
            Place::OnDevice => return Err(no_slots()),
        }
        self.device.counts.uploaded_bytes += layout.slice_bytes as u64;
        Ok(())
    }
}
