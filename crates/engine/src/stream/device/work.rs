//! Computing a layer on a device: over its slots in one call, up to where the host must know the next ids; or
//! node by node over frames.

use hypura_ggml::{ExecError, GraphRun, SlotBinding, StreamedOp};
use std::ops::Range;
use std::time::Instant;

use super::side::DeviceSide;
use crate::stream::landing::Landing;
use crate::stream::slots::device::pool_of;
use crate::stream::step::{DeviceSlot, ExpertDemand, Place, Step};
use crate::stream::target::no_slots;

/// A streamed node of a layer, and which part of the experts is its weight.
pub(in crate::stream) type PartOp = (StreamedOp, usize);

/// Experts of the host on their way to a device, and the nodes that use them.
pub(in crate::stream) struct DeviceWork<'a> {
    pub device: &'a mut DeviceSide,
    pub landing: Landing<'a>,
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
        for part in 0..self.landing.slots.layout.layers[step.layer].parts.len() {
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
        self.landing.poll();
        for (_, part) in ops {
            self.wait_for_part(step, *part)?;
        }
        let begun = Instant::now();
        if let Some((op, _)) = ops.first() {
            run.send_slots(*op, slots)?;
        }
        self.device.fence(self.landing.slots, run);
        let layer = &self.landing.slots.layout.layers[step.layer];
        let pool = pool_of(&mut self.device.pools, layer).ok_or_else(no_slots)?;
        let binding = |(op, part): &PartOp| Some((*op, pool.binding(*part, &layer.parts[*part])?));
        let bindings: Option<Vec<(StreamedOp, SlotBinding<'_>)>> = ops.iter().map(binding).collect();
        run.run_layer(&bindings.ok_or_else(no_slots)?, slots, nodes)?;
        self.device.counts.launch += begun.elapsed();
        self.landing.poll();
        Ok(())
    }

    /// Uploads a part of all experts, as they land.
    fn wait_for_part(&mut self, step: &mut Step, part: usize) -> Result<(), ExecError> {
        loop {
            let waiting = self.hand_over(step, part)?;
            if waiting.is_empty() {
                return Ok(());
            }
            self.landing.wait(step, &waiting)?;
        }
    }

    /// Uploads a part of all experts that have landed and are not there yet; returns those that have not
    /// landed.
    fn hand_over(&mut self, step: &mut Step, part: usize) -> Result<Vec<usize>, ExecError> {
        let Self { device, landing } = self;
        let (mut waiting, mut from_cells) = (Vec::new(), Vec::new());
        for want in 0..step.wanted.len() {
            let Some(DeviceSlot { slot, loading: true }) = step.wanted[want].on_device else { continue };
            let layer = &landing.slots.layout.layers[step.layer];
            let pool = pool_of(&mut device.pools, layer).ok_or_else(no_slots)?;
            if pool.has(slot, part) {
                continue;
            }
            if !landing.slots.is_ready(step, want, part) {
                waiting.push(want);
                continue;
            }
            let (buffer, at) = pool.hand(slot, part).ok_or_else(no_slots)?;
            device.upload(landing.slots, step, want, part, &buffer, at)?;
            if matches!(step.wanted[want].place, Place::Cells(_)) {
                from_cells.push(want);
            }
        }
        if !from_cells.is_empty() {
            // Cells are read into again as soon as they are free.
            device.wait_for_uploads();
            landing.free(step, part, &from_cells);
        }
        Ok(waiting)
    }

    fn run_in_frame(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        op: StreamedOp,
        part: usize,
    ) -> Result<(), ExecError> {
        let Self { device, landing } = self;
        let frame = device.frames.begin(run)?;
        let slice = landing.slots.layout.layers[step.layer].parts[part].slice_bytes;
        landing.hand_out(step, part, |landing, step, ready| {
            let mut from_cells = false;
            for want in ready {
                let ExpertDemand { expert, place, .. } = &step.wanted[*want];
                device.upload(landing.slots, step, *want, part, &frame, *expert as usize * slice)?;
                from_cells |= matches!(place, Place::Cells(_));
            }
            if from_cells {
                device.wait_for_uploads();
            }
            Ok(())
        })?;
        device.fence(landing.slots, run);
        let stack_bytes = landing.slots.layout.layers[step.layer].stack_bytes(part);
        let begun = Instant::now();
        let outcome = landing.run_stack(run, op, &frame, stack_bytes);
        device.counts.launch += begun.elapsed();
        device.frames.launch(run);
        outcome
    }
}
