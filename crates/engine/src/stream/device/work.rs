//! Computing a layer on a device: over its slots in one call, up to where the host must know the next ids; or
//! node by node over frames.

use hypura_core::cache::{ExpertKey, Residency, SlotId};
use hypura_ggml::{DeviceBuffer, ExecError, GraphRun, SlotBinding, StreamedOp};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::side::{DeviceSide, pool_of};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::guesses::GuessQueue;
use crate::stream::io::Io;
use crate::stream::polling::{poll_reads, wait_for};
use crate::stream::prefetcher::Guess;
use crate::stream::ready::free_cells;
use crate::stream::step::{DeviceSlot, Place, Step};
use crate::stream::target::{Target, no_slots};

/// A streamed node of a layer, and which part of the experts is its weight.
pub(in crate::stream) type PartOp = (StreamedOp, usize);

/// Experts of the host on their way to a device, and the nodes that use them.
pub(in crate::stream) struct DeviceWork<'a> {
    pub device: &'a mut DeviceSide,
    pub slots: &'a mut ExpertSlots,
    pub guesses: &'a mut GuessQueue,
    pub io: &'a mut Io<Target>,
}

impl DeviceWork<'_> {
    /// Launches one node.
    pub fn run_node(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        (op, part): PartOp,
    ) -> Result<(), ExecError> {
        match &step.slots {
            None => return self.run_in_frame(run, step, op, part),
            // A ubatch without outputs has no tokens left in its last layer.
            Some(slots) if slots.is_empty() => return Ok(()),
            Some(_) => {}
        }
        self.run_layer(run, step, &[(op, part)], op.node..op.node + 1)?;
        // What later nodes need and is here goes over while the device computes this one.
        for part in 0..self.slots.layout.layers[step.layer].parts.len() {
            self.hand_over(step, part)?;
        }
        Ok(())
    }

    /// Launches `nodes` of a step that computes with slots; `ops` are those of them that have experts as
    /// their weight.
    pub fn run_layer(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        ops: &[PartOp],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        // Apart from the step, which changes while they are used.
        let slots = step.slots.take().ok_or_else(no_slots)?;
        let outcome = self.launch(run, step, ops, &slots, nodes);
        step.slots = Some(slots);
        outcome
    }

    fn launch(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        ops: &[PartOp],
        slots: &[i32],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        poll_reads(self.slots, self.guesses, self.io);
        for (_, part) in ops {
            self.wait_for_part(step, *part)?;
        }
        let begun = Instant::now();
        if let Some((op, _)) = ops.first() {
            run.send_slots(*op, slots)?;
        }
        self.device.fence(&self.slots.layout, run);
        let layer = &self.slots.layout.layers[step.layer];
        let pool = pool_of(&mut self.device.pools, layer).ok_or_else(no_slots)?;
        let binding = |(op, part): &PartOp| Some((*op, pool.binding(*part, &layer.parts[*part])?));
        let bindings: Option<Vec<(StreamedOp, SlotBinding<'_>)>> = ops.iter().map(binding).collect();
        run.run_layer(&bindings.ok_or_else(no_slots)?, slots, nodes)?;
        self.device.counts.launch += begun.elapsed();
        poll_reads(self.slots, self.guesses, self.io);
        Ok(())
    }

    /// Uploads a part of all experts, as they land.
    fn wait_for_part(&mut self, step: &mut Step, part: usize) -> Result<(), ExecError> {
        loop {
            let waiting = self.hand_over(step, part)?;
            if waiting.is_empty() {
                return Ok(());
            }
            wait_for(self.slots, self.guesses, self.io, step, &waiting)?;
        }
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
        let begun = Instant::now();
        self.device.uploads.lock().wait();
        self.device.counts.note_wait(begun.elapsed());
        free_cells(&mut self.slots.cells, step, part, uploaded);
        self.slots.fill_ring(self.io, step);
    }

    fn run_in_frame(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        op: StreamedOp,
        part: usize,
    ) -> Result<(), ExecError> {
        let frame = self.device.frames.begin(run)?;
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
        self.device.fence(&self.slots.layout, run);
        let region = frame.region(0..slice * experts).ok_or_else(no_slots)?;
        let begun = Instant::now();
        let outcome = run.meanwhile(&mut || poll_reads(self.slots, self.guesses, self.io), |run| {
            run.run_elsewhere(op, region.into())
        });
        self.device.counts.launch += begun.elapsed();
        self.device.frames.launch(run);
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
        match &step.wanted[want].place {
            Place::Slot(slot) => self.upload_slot(step.layer, *slot, part, buffer, at),
            Place::Cells(cells) => {
                let begun = Instant::now();
                let layout = &self.slots.layout.layers[step.layer].parts[part];
                let cell = cells[part].ok_or_else(no_slots)?;
                let from = self.slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
                self.device.uploads.lock().upload(&self.device.cells, from, buffer, at)?;
                self.device.counts.note_upload(layout.slice_bytes, begun.elapsed());
                Ok(())
            }
            Place::OnDevice => Err(no_slots()),
        }
    }

    /// Brings a part of an expert in a slot of the host to the device.
    fn upload_slot(
        &mut self,
        layer: usize,
        slot: SlotId,
        part: usize,
        buffer: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        let begun = Instant::now();
        let of = &self.slots.layout.layers[layer];
        let layout = &of.parts[part];
        let from = self.slots.pool(layer).place(slot, layout).ok_or_else(no_slots)?;
        let source = self.device.slots.as_ref().ok_or_else(no_slots)?;
        self.device.uploads.lock().upload(source, from, buffer, at)?;
        if let Some(lent) = &mut self.slots.lent {
            lent.lend(of.class, slot);
        }
        self.device.counts.note_upload(layout.slice_bytes, begun.elapsed());
        Ok(())
    }

    /// Uploads what a later layer will probably use and the host has, while the device computes; returns what
    /// has to be read first.
    pub fn upload_guesses(&mut self, guesses: Vec<Guess>) -> Result<Vec<Guess>, ExecError> {
        let mut absent = Vec::new();
        for guess in guesses {
            let layer = &self.slots.layout.layers[guess.layer];
            let key = ExpertKey::new(layer.layer, guess.expert);
            let Some(pool) = pool_of(&mut self.device.pools, layer) else { continue };
            if pool.cache.peek(key) != Residency::Absent {
                continue;
            }
            let Some(from) = self.slots.pool(guess.layer).cache.slot_of(key) else {
                absent.push(guess);
                continue;
            };
            let Some(slot) = pool.cache.prefetch(key, self.slots.clock) else { continue };
            pool.start(slot);
            self.device.note_guess(guess.layer, slot);
            for part in 0..layer.parts.len() {
                let pool = pool_of(&mut self.device.pools, &self.slots.layout.layers[guess.layer]);
                let pool = pool.ok_or_else(no_slots)?;
                let (buffer, at) = pool.room(slot, part).ok_or_else(no_slots)?;
                pool.hand(slot, part);
                self.upload_slot(guess.layer, from, part, &buffer, at)?;
            }
        }
        Ok(absent)
    }
}
