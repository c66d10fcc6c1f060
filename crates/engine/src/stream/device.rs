//! A layer of experts on a device: whole nodes only, over its slots, or over a frame where there are too few
//! of them.
//!
//! A device computes after the call has returned. What it computes with stays pinned until it is known to be
//! done: when the ids of the next layer have been read, or at the end of the step.

use hypura_core::plan::ExpertLayout;
use hypura_ggml::{DeviceBuffer, ExecError, GraphRun, HostMemory, SlotBinding, StreamedOp};
use std::sync::Arc;

use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::polling::{poll_reads, wait_for};
use super::ready::free_cells;
use super::slots::ScratchRing;
use super::slots::device::{Frames, Source, Uploads};
use super::step::{Place, Step};
use super::target::{Target, no_slots};

/// What experts on a device need besides slots there.
pub(crate) struct DeviceSide {
    uploads: Uploads,
    frames: Frames,
    /// The memory of throwaway cells.
    cells: Arc<dyn HostMemory>,
    /// Layers that the device may still be computing.
    launched: Vec<Step>,
}

impl DeviceSide {
    /// Slots and frames are where `uploads` leads to; `cells` are those of the host.
    pub fn new(uploads: Uploads, layout: &ExpertLayout, cells: &ScratchRing) -> Self {
        let frames = Frames::new(layout, &uploads);
        let cells: Arc<dyn HostMemory> = Arc::new(Source(Arc::clone(cells.arena())));
        Self { uploads, frames, cells, launched: Vec::new() }
    }

    /// A node to be computed here.
    pub fn node<'a>(
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
    pub fn keep(&mut self, step: Step) {
        self.launched.push(step);
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub fn settle(&mut self) -> Vec<Step> {
        self.frames.settle();
        std::mem::take(&mut self.launched)
    }
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
            let waits = |want: &usize| !self.slots.is_ready(step, *want, self.part);
            let waiting: Vec<usize> = (0..step.wanted.len()).filter(waits).collect();
            if waiting.is_empty() {
                break;
            }
            wait_for(self.slots, self.guesses, self.io, step, &waiting)?;
        }
        let layer = &self.slots.layout.layers[step.layer];
        let bank = self.slots.pool(step.layer).bank().ok_or_else(no_slots)?;
        bank.memory().fence(run);
        let pool = bank.binding(self.part, &layer.parts[self.part]).ok_or_else(no_slots)?;
        self.launch(run, pool, slots)
    }

    fn run_in_frame(&mut self, run: &mut GraphRun<'_>, step: &mut Step) -> Result<(), ExecError> {
        let frame = self.device.frames.begin(run)?;
        let uploads = self.device.uploads.clone();
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        while !todo.is_empty() {
            let (ready, rest) = self.slots.split_ready(step, todo, self.part);
            todo = rest;
            if ready.is_empty() {
                wait_for(self.slots, self.guesses, self.io, step, &todo)?;
                continue;
            }
            for want in &ready {
                self.upload(step, *want, &frame)?;
            }
            if ready.iter().any(|want| matches!(step.wanted[*want].place, Place::Cells(_))) {
                // Cells are read into again as soon as they are free.
                uploads.lock().wait();
                free_cells(&mut self.slots.cells, step, self.part, &ready);
            }
            self.slots.fill_ring(self.io, step);
            poll_reads(self.slots, self.guesses, self.io);
        }
        let layer = &self.slots.layout.layers[step.layer];
        let (stride, slots) = (layer.parts[self.part].slice_bytes, layer.experts as usize);
        uploads.lock().fence(run);
        let region = frame.region(0..stride * slots).ok_or_else(no_slots)?;
        let outcome = self.launch(run, SlotBinding { memory: region.into(), stride, slots }, &step.experts);
        self.device.frames.launch();
        outcome
    }

    fn launch(
        &mut self,
        run: &mut GraphRun<'_>,
        pool: SlotBinding<'_>,
        slots: &[i32],
    ) -> Result<(), ExecError> {
        let op = self.op;
        run.meanwhile(&mut || poll_reads(self.slots, self.guesses, self.io), |run| {
            run.run_bound(op, pool, slots)
        })
    }

    /// Brings the slice of an expert, which has landed, to its place in a frame.
    fn upload(&self, step: &Step, want: usize, frame: &Arc<DeviceBuffer>) -> Result<(), ExecError> {
        let layer = &self.slots.layout.layers[step.layer];
        let (layout, want) = (&layer.parts[self.part], &step.wanted[want]);
        let at = want.expert as usize * layout.slice_bytes;
        let mut uploader = self.device.uploads.lock();
        match &want.place {
            Place::Slot(slot) => {
                let bank = self.slots.pool(step.layer).bank().ok_or_else(no_slots)?;
                let from = bank.memory().host_slice(slot.index(), layout);
                // The arena of slots is another than that of cells.
                let source: Arc<dyn HostMemory> = Arc::new(Source(Arc::clone(bank.memory().arena())));
                uploader.upload(&source, from, frame, at)
            }
            Place::Cells(cells) => {
                let cell = cells[self.part].ok_or_else(no_slots)?;
                let place = self.slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
                uploader.upload(&self.device.cells, place, frame, at)
            }
        }
    }
}
