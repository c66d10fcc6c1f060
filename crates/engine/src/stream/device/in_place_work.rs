//! Computing a layer with the host's memory where it is: over the slots in one call, up to where the host
//! must know the next ids; or node by node over frames.

use hypura_ggml::{ExecError, GraphRun, SlotBinding, StreamedOp};
use std::ops::Range;
use std::time::Instant;

use super::in_place::{Frames, InPlace};
use super::work::PartOp;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::landing::Landing;
use crate::stream::step::{Place, Step};
use crate::stream::target::no_slots;

/// Experts in the host's memory, and the nodes of a device that use them.
pub(in crate::stream) struct InPlaceWork<'a> {
    pub device: &'a mut InPlace,
    pub landing: Landing<'a>,
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
        self.landing.poll();
        for (_, part) in ops {
            self.wait_for_part(step, *part)?;
        }
        let slots = step.slots.as_deref().ok_or_else(no_slots)?;
        let begun = Instant::now();
        if let Some((op, _)) = ops.first() {
            run.send_slots(*op, slots)?;
        }
        let binding =
            |(op, part): &PartOp| Ok((*op, self.device.binding(self.landing.slots, step.layer, *part)?));
        let bindings: Vec<(StreamedOp, SlotBinding<'_>)> =
            ops.iter().map(binding).collect::<Result<_, ExecError>>()?;
        run.run_layer(&bindings, slots, nodes)?;
        self.device.counts.launch += begun.elapsed();
        self.landing.poll();
        Ok(())
    }

    /// Waits until a part of all experts has landed.
    fn wait_for_part(&mut self, step: &mut Step, part: usize) -> Result<(), ExecError> {
        loop {
            let is_missing = |want: &usize| !self.landing.slots.is_ready(step, *want, part);
            let waiting: Vec<usize> = (0..step.wanted.len()).filter(is_missing).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            self.landing.wait(step, &waiting)?;
        }
    }

    fn run_in_frame(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        op: StreamedOp,
        part: usize,
    ) -> Result<(), ExecError> {
        let Self { device: InPlace { frames, counts, .. }, landing } = self;
        frames.begin(run, counts);
        landing.hand_out(step, part, |landing, step, ready| {
            ready.iter().try_for_each(|want| copy(frames, landing.slots, step, *want, part))
        })?;
        let stack_bytes = landing.slots.layout.layers[step.layer].stack_bytes(part);
        let begun = Instant::now();
        let outcome = landing.run_stack(run, op, &frames.buffer(), stack_bytes);
        counts.launch += begun.elapsed();
        frames.launch(run);
        outcome
    }
}

/// Copies a part of an expert, which has landed, to the frame.
fn copy(
    frames: &Frames,
    slots: &ExpertSlots,
    step: &Step,
    want: usize,
    part: usize,
) -> Result<(), ExecError> {
    let (layer, pool) = (&slots.layout.layers[step.layer], slots.pool(step.layer));
    let (layout, want) = (&layer.parts[part], &step.wanted[want]);
    let (memory, from) = match &want.place {
        Place::Slot(slot) => {
            (pool.arena().ok_or_else(no_slots)?, pool.place(*slot, layout).ok_or_else(no_slots)?)
        }
        Place::Cells(cells) => {
            let cell = cells[part].ok_or_else(no_slots)?;
            let from = slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
            (slots.cells.arena(), from)
        }
        Place::OnDevice => return Err(no_slots()),
    };
    frames.copy(memory, from.start, want.expert, layout.slice_bytes);
    Ok(())
}
