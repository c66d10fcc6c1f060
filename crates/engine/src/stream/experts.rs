//! Streaming of routed experts, one layer at a time.
//!
//! When the ids of a layer are known, its experts are looked up once: hits are pinned, misses get slots and
//! their reads start at once (all parts that are needed first, of all misses, before the parts needed later);
//! experts without a slot go through throwaway cells in the order of use. Then each node computes what is
//! there, and the rest as it lands.
//!
//! Invariant: outside of [`ExpertStreamer::run_op`] and between layers nothing is pinned and no cell is in
//! use; after a failure [`ExpertStreamer::abandon`] restores that.

use hypura_core::cache::SlotId;
use hypura_ggml::{ExecError, GraphRun, MoeIds, StreamedOp};
use hypura_storage::Priority;
use std::ops::Range;
use std::time::Duration;

use super::device::{DeviceSide, DeviceWork, PartOp};
use super::expert_map::ExpertMap;
use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::layer_reads::slot_reads;
use super::polling::{poll_reads, wait_for};
use super::prefetcher::Guess;
use super::ready::{MOST_ROWS, free_cells};
use super::stats::Held;
use super::step::{LayerOps, Step, group_by_expert};
use super::target::{Target, no_layer, no_slots};

/// Streams the experts of one context.
pub(crate) struct ExpertStreamer {
    pub(super) slots: ExpertSlots,
    pub(super) guesses: GuessQueue,
    pub(super) device: Option<DeviceSide>,
    pub(super) step: Option<Step>,
    pub(super) synchronous: bool,
}

impl ExpertStreamer {
    pub fn new(slots: ExpertSlots) -> Self {
        Self { slots, guesses: GuessQueue::default(), device: None, step: None, synchronous: false }
    }

    /// Has every read waited for before anything is computed, part by part: the baseline of benchmarks.
    pub fn synchronous(self) -> Self {
        Self { synchronous: true, ..self }
    }

    /// Has the experts computed on a device.
    pub fn on_device(mut self, device: DeviceSide) -> Self {
        (self.slots.lent, self.slots.pages_must_stay) = (Some(device.lent()), device.imports());
        Self { device: Some(device), ..self }
    }

    /// What is held right now.
    pub fn held(&self) -> Held {
        let held = self.slots.held();
        let Some(device) = &self.device else { return held };
        let (pins, loading_slots) = (held.pins + device.pinned(), held.loading_slots + device.loading());
        Held { pins, loading_slots, ..held }
    }

    /// Where the experts are.
    pub fn slots(&self) -> &ExpertSlots {
        &self.slots
    }

    /// Which of them are in memory, of the host or of a device.
    pub fn expert_map(&self) -> ExpertMap {
        let on_host = self.slots.pools().iter().map(|pool| &pool.cache);
        let on_device = self.device.iter().flat_map(DeviceSide::caches);
        ExpertMap::new(self.slots.layout(), on_host.chain(on_device), self.slots.clock)
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub fn settle(&mut self) {
        for step in self.device.as_mut().map(DeviceSide::settle).unwrap_or_default() {
            self.unpin(&step);
        }
    }

    /// A step is over: nothing is uploaded any more for layers that it did not come to.
    pub fn settle_guesses(&mut self) {
        if let Some(device) = &mut self.device {
            device.settle_guesses(&self.slots.layout);
        }
    }

    fn unpin(&mut self, step: &Step) {
        if let Some(device) = &mut self.device {
            device.unpin(&self.slots.layout.layers[step.layer], step);
        }
        self.slots.unpin(step);
    }

    /// A pass over the layers begins, of `tokens` tokens.
    pub fn begin_pass(&mut self, io: &Io<Target>, tokens: usize) {
        self.guesses.begin_pass(io);
        self.slots.clock = self.slots.clock.after_step(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    /// Runs one streamed node, a part of its experts.
    pub fn run_op(
        &mut self,
        io: &mut Io<Target>,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        part: usize,
    ) -> Result<(), ExecError> {
        let step = self.step.take().filter(|step| step.ids == op.ids);
        let mut step = step.ok_or_else(no_layer)?;
        let outcome = match self.device.as_mut().filter(|_| !run.is_host()) {
            Some(device) => {
                let (slots, guesses) = (&mut self.slots, &mut self.guesses);
                DeviceWork { device, slots, guesses, io }.run_node(run, &mut step, (op, part))
            }
            None => self.compute(io, run, op, part, &mut step),
        };
        step.ops_left = step.ops_left.saturating_sub(1);
        let done = step.ops_left == 0 && outcome.is_ok();
        match &mut self.device {
            _ if !done => self.step = Some(step),
            Some(device) => device.keep(&self.slots.layout.layers[step.layer], step),
            None => self.end_layer(io, &step),
        }
        outcome
    }

    /// Has a device compute the layer that has just begun, and the nodes behind it, in one call, where its
    /// experts are in slots: `ops` are all its nodes, the first of `nodes` is the first of them. Returns
    /// whether it does.
    ///
    /// # Errors
    /// As [`Self::run_op`].
    pub fn run_on_device(
        &mut self,
        io: &mut Io<Target>,
        run: &mut GraphRun<'_>,
        ops: &[PartOp],
        nodes: Range<usize>,
    ) -> Result<bool, ExecError> {
        // A ubatch without outputs has no tokens left in its last layer.
        let has_slots = |step: &Step| step.slots.as_ref().is_some_and(|slots| !slots.is_empty());
        let in_slots = self.step.as_ref().is_some_and(has_slots);
        let Some(device) = self.device.as_mut().filter(|_| in_slots && !run.is_host()) else {
            return Ok(false);
        };
        let mut step = self.step.take().ok_or_else(no_layer)?;
        let (slots, guesses) = (&mut self.slots, &mut self.guesses);
        let mut work = DeviceWork { device, slots, guesses, io };
        match work.run_layer(run, &mut step, ops, nodes) {
            Ok(()) => {
                work.device.keep(&work.slots.layout.layers[step.layer], step);
                Ok(true)
            }
            Err(error) => {
                // `abandon` gives back what it holds.
                self.step = Some(step);
                Err(error)
            }
        }
    }

    /// The host waited for the device, to know the ids of a layer.
    pub fn note_wait(&mut self, wait: Duration) {
        if let Some(device) = &mut self.device {
            device.counts.note_wait(wait);
        }
    }

    /// All of a layer's experts are computed.
    pub(super) fn end_layer(&mut self, io: &mut Io<Target>, step: &Step) {
        self.slots.unpin(step);
        self.poll_reads(io);
    }

    /// Looks up the experts of a layer and starts all reads.
    pub fn begin(
        &mut self,
        io: &mut Io<Target>,
        index: usize,
        ids_operand: usize,
        ids: &MoeIds,
        ops: &LayerOps,
    ) {
        if let Some(unfinished) = self.step.take() {
            self.unpin(&unfinished);
        }
        // The ids are known: the device is done with the layers before.
        self.settle();
        let mut grouped = group_by_expert(ids, self.slots.layout.layers[index].experts);
        if let Some(device) = &mut self.device {
            device.place(&self.slots.layout.layers[index], ids.tokens, self.slots.clock, &mut grouped);
        }
        let loads = self.slots.place(io, index, ids.tokens, &mut grouped);
        if self.synchronous {
            self.read_one_part_after_the_other(io, index, &loads, &ops.parts);
        } else {
            self.submit(io, index, &loads, &ops.parts);
        }
        let (layer, on_device) = (&self.slots.layout.layers[index], self.device.is_some());
        let step = Step::new(index, layer, ids_operand, ids, grouped, ops, on_device);
        self.slots.fill_ring(io, self.step.insert(step));
    }

    /// Starts reads of parts into slots.
    fn submit(&self, io: &mut Io<Target>, index: usize, loads: &[(u32, SlotId)], parts: &[usize]) {
        let layer = &self.slots.layout.layers[index];
        io.submit(slot_reads(layer, index, self.slots.pool(index), loads, parts, Priority::Demand));
    }

    /// Reads a part of all misses, waits for it, then the next part. A failed read is found when the expert
    /// is used.
    fn read_one_part_after_the_other(
        &mut self,
        io: &mut Io<Target>,
        index: usize,
        loads: &[(u32, SlotId)],
        parts: &[usize],
    ) {
        for part in parts {
            self.submit(io, index, loads, &[*part]);
            // An error says that nothing is out any more.
            while let Ok(landed) = io.wait() {
                self.slots.absorb(landed);
            }
        }
    }

    /// What the next layer will probably want is uploaded, while the device computes what was launched; what
    /// the host does not have either is read.
    ///
    /// # Errors
    /// As [`Self::run_op`].
    pub fn expect_on_device(&mut self, io: &mut Io<Target>, guesses: Vec<Guess>) -> Result<(), ExecError> {
        let Some(device) = &mut self.device else { return Ok(()) };
        let (slots, queue) = (&mut self.slots, &mut self.guesses);
        let absent = DeviceWork { device, slots, guesses: queue, io }.upload_guesses(guesses)?;
        self.expect(io, absent);
        Ok(())
    }

    /// What the next layers will probably want replaces what they were thought to want.
    pub fn expect(&mut self, io: &mut Io<Target>, guesses: Vec<Guess>) {
        self.guesses.replace(guesses);
        self.guesses.issue(&mut self.slots, io);
    }

    /// Takes in what has landed and gives the disk more.
    pub(super) fn poll_reads(&mut self, io: &mut Io<Target>) {
        poll_reads(&mut self.slots, &mut self.guesses, io);
    }

    fn compute(
        &mut self,
        io: &mut Io<Target>,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        part: usize,
        step: &mut Step,
    ) -> Result<(), ExecError> {
        self.poll_reads(io);
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        // A ubatch without outputs has no tokens left in its last layer.
        if let Some(slots) = &step.slots
            && !todo.is_empty()
            && slots.len() <= MOST_ROWS
            && todo.iter().all(|want| self.slots.is_ready(step, *want, part))
        {
            let layout = &self.slots.layout.layers[step.layer].parts[part];
            let pool = self.slots.pool(step.layer).binding(layout).ok_or_else(no_slots)?;
            return run.meanwhile(&mut || io.resubmit(), |run| run.run_bound(op, pool, slots));
        }
        run.zero_rows(op, &step.none)?;
        while !todo.is_empty() {
            let (ready, rest) = self.slots.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                wait_for(&mut self.slots, &mut self.guesses, io, step, &todo)?;
            } else {
                run.meanwhile(&mut || io.resubmit(), |run| {
                    self.slots.run_ready(run, op, part, step, &ready)
                })?;
                free_cells(&mut self.slots.cells, step, part, &ready);
                self.slots.fill_ring(io, step);
                self.poll_reads(io);
            }
        }
        Ok(())
    }

    /// Ends a step that failed or was stopped, and of which nothing is being computed any more: waits for its
    /// reads as long as the disk answers, then gives back pins and cells. What is still being read lands
    /// later, as a guess would.
    pub fn abandon(&mut self, io: &mut Io<Target>) {
        self.settle();
        self.settle_guesses();
        let (landed, taken_back) = io.quiesce();
        self.slots.absorb(landed);
        self.guesses.clear();
        if let Some(step) = self.step.take() {
            self.unpin(&step);
        }
        self.slots.abandon(taken_back);
    }

    /// Gives up slots of at least so many bytes, as far as they may go; returns how many bytes. No step is in
    /// progress.
    pub fn give_back(&mut self, io: &mut Io<Target>, bytes: u64) -> u64 {
        // Guesses may still be landing in them.
        self.abandon(io);
        self.slots.give_back(bytes)
    }
}
