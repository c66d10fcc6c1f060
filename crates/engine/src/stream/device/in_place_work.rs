//! Computing a layer with the host's memory where it is: over the slots in one call, up to where the host
//! must know the next ids; or node by node over frames.

use hypura_ggml::{ExecError, GraphRun, SlotBinding, StreamedOp};
use std::ops::Range;
use std::time::Instant;

use super::in_place::InPlace;
use super::work::PartOp;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::guesses::GuessQueue;
use crate::stream::io::Io;
use crate::stream::polling::{poll_reads, wait_for};
use crate::stream::ready::free_cells;
use crate::stream::step::{Place, Step};
use crate::stream::target::{Target, no_slots};

/// Experts in the host's memory, and the nodes of a device that use them.
pub(in crate::stream) struct InPlaceWork<'a> {
    pub device: &'a mut InPlace,
    pub slots: &'a mut ExpertSlots,
    pub guesses: &'a mut GuessQueue,
    pub io: &'a mut Io<Target>,
}

impl InPlaceWork<'_> {
    /// Launches one node.
    pub fn run_node(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        (op, part): PartOp,
    ) -> Result<(), ExecError> {
        match &step.slots {
            None => self.run_in_frame(run, step, op, part),
            // A ubatch without outputs has no tokens left in its last layer.
            Some(slots) if slots.is_empty() => Ok(()),
            Some(_) => self.run_layer(run, step, &[(op, part)], op.node..op.node + 1),
        }
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
        poll_reads(self.slots, self.guesses, self.io);
        for (_, part) in ops {
            self.wait_for_part(step, *part)?;
        }
        let slots = step.slots.as_deref().ok_or_else(no_slots)?;
        let begun = Instant::now();
        if let Some((op, _)) = ops.first() {
            run.send_slots(*op, slots)?;
        }
        let binding = |(op, part): &PartOp| Ok((*op, self.device.binding(self.slots, step.layer, *part)?));
        let bindings: Vec<(StreamedOp, SlotBinding<'_>)> =
            ops.iter().map(binding).collect::<Result<_, ExecError>>()?;
        run.run_layer(&bindings, slots, nodes)?;
        self.device.counts.launch += begun.elapsed();
        poll_reads(self.slots, self.guesses, self.io);
        Ok(())
    }

    /// Waits until a part of all experts has landed.
    fn wait_for_part(&mut self, step: &mut Step, part: usize) -> Result<(), ExecError> {
        loop {
            let waiting: Vec<usize> =
                (0..step.wanted.len()).filter(|want| !self.slots.is_ready(step, *want, part)).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            wait_for(self.slots, self.guesses, self.io, step, &waiting)?;
        }
    }

    fn run_in_frame(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        op: StreamedOp,
        part: usize,
    ) -> Result<(), ExecError> {
        let InPlace { frames, counts, .. } = self.device;
        frames.begin(run, counts);
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        while !todo.is_empty() {
            let (ready, rest) = self.slots.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                wait_for(self.slots, self.guesses, self.io, step, &todo)?;
                continue;
            }
            for want in &ready {
                self.copy(step, *want, part)?;
            }
            free_cells(&mut self.slots.cells, step, part, &ready);
            self.slots.fill_ring(self.io, step);
            poll_reads(self.slots, self.guesses, self.io);
        }
        let layer = &self.slots.layout.layers[step.layer];
        let frame = self.device.frames.buffer();
        let stack_bytes = layer.parts[part].slice_bytes * layer.experts as usize;
        let region = frame.region(0..stack_bytes).ok_or_else(no_slots)?;
        let begun = Instant::now();
        let outcome = run.meanwhile(&mut || poll_reads(self.slots, self.guesses, self.io), |run| {
            run.run_elsewhere(op, region.into())
        });
        self.device.counts.launch += begun.elapsed();
        self.device.frames.launch(run);
        outcome
    }

    /// Copies a part of an expert, which has landed, to the frame.
    fn copy(&self, step: &Step, want: usize, part: usize) -> Result<(), ExecError> {
        let (layer, pool) = (&self.slots.layout.layers[step.layer], self.slots.pool(step.layer));
        let (layout, want) = (&layer.parts[part], &step.wanted[want]);
        let (memory, from) = match &want.place {
            Place::Slot(slot) => {
                (pool.arena().ok_or_else(no_slots)?, pool.place(*slot, layout).ok_or_else(no_slots)?)
            }
            Place::Cells(cells) => {
                let cell = cells[part].ok_or_else(no_slots)?;
                let from = self.slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
                (self.slots.cells.arena(), from)
            }
            Place::OnDevice => return Err(no_slots()),
        };
        self.device.frames.copy(memory, from.start, want.expert, layout.slice_bytes);
        Ok(())
    }
}
