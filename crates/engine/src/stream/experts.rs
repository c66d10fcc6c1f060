//! Streaming of routed experts, one layer at a time.
//!
//! When the ids of a layer are known, its experts are looked up once: hits are pinned, misses get slots and
//! their reads start at once (all parts that are needed first, of all misses, before the parts needed later);
//! experts without a slot go through throwaway cells in the order of use. Then each node computes what is
//! there, and the rest as it lands.
//!
//! Invariant: outside of [`ExpertStreamer::run_op`] and between layers nothing is pinned and no cell is in
//! use, but for what a device computes with until [`ExpertStreamer::settle`]; after a failure
//! [`ExpertStreamer::abandon`] restores that.

use hypura_ggml::{ExecError, GraphRun, MoeIds, StreamedOp};
use std::ops::Range;
use std::time::Duration;

use super::device::{DeviceCounts, DeviceSide, ExpertDevice, InPlace, PartOp};
use super::expert_map::ExpertMap;
use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::landing::Landing;
use super::misses::{read_in_turn, submit};
use super::prefetcher::Guess;
use super::stats::Held;
use super::step::{LayerOps, Step, group_by_expert};
use super::target::{Target, no_layer};

/// Streams the experts of one context.
pub(crate) struct ExpertStreamer {
    pub(super) slots: ExpertSlots,
    pub(super) guesses: GuessQueue,
    /// The device that computes them; `None` where the host does.
    pub(super) device: Option<ExpertDevice>,
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
        Self { device: Some(ExpertDevice::Uploads(device)), ..self }
    }

    /// Has the experts computed on a device, in the host's memory.
    pub fn in_place(self, device: InPlace) -> Self {
        Self { device: Some(ExpertDevice::InPlace(device)), ..self }
    }

    /// Its experts on their way into memory.
    pub(super) fn landing<'a>(&'a mut self, io: &'a mut Io<Target>) -> Landing<'a> {
        Landing { slots: &mut self.slots, guesses: &mut self.guesses, io }
    }

    /// The device that computes the experts; `None` where the host does.
    pub(super) fn device(&self) -> Option<&ExpertDevice> {
        self.device.as_ref()
    }

    /// The device that computes with slots of its own.
    pub(super) fn uploads(&self) -> Option<&DeviceSide> {
        self.device.as_ref()?.uploads()
    }

    /// What is held right now.
    pub fn held(&self) -> Held {
        let held = self.slots.held();
        let Some(device) = self.uploads() else { return held };
        let (pinned, loading) = device.held();
        Held { pins: held.pins + pinned, loading_slots: held.loading_slots + loading, ..held }
    }

    /// What the device did; `None` where the host computes.
    pub fn device_counts(&self) -> Option<DeviceCounts> {
        self.device.as_ref().map(ExpertDevice::counts)
    }

    /// Where the experts are.
    pub fn slots(&self) -> &ExpertSlots {
        &self.slots
    }

    /// Which of them are in memory, of the host or of a device.
    pub fn expert_map(&self) -> ExpertMap {
        let on_host = self.slots.pools().iter().map(|pool| &pool.cache);
        let on_device = self.uploads().into_iter().flat_map(DeviceSide::caches);
        ExpertMap::new(self.slots.layout(), on_host.chain(on_device), self.slots.clock)
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub fn settle(&mut self) {
        for step in self.device.as_mut().map(ExpertDevice::settle).unwrap_or_default() {
            self.unpin(&step);
        }
        if let Some(ExpertDevice::Uploads(device)) = &mut self.device {
            device.settle_copies(&mut self.slots);
        }
    }

    /// A step is over: nothing is uploaded any more for layers that it did not come to.
    pub fn settle_guesses(&mut self) {
        if let Some(ExpertDevice::Uploads(device)) = &mut self.device {
            device.settle_guesses(&mut self.slots);
        }
    }

    fn unpin(&mut self, step: &Step) {
        if let Some(ExpertDevice::Uploads(device)) = &mut self.device {
            device.unpin(&self.slots.layout.layers[step.layer], step);
        }
        self.slots.unpin(step);
    }

    /// A pass over the layers begins, of `tokens` tokens.
    pub fn begin_pass(&mut self, io: &Io<Target>, tokens: usize) {
        self.guesses.begin_pass(io);
        self.slots.begin_pass(io.bytes_in(Duration::from_secs(1)) as f64);
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
        let mut landing = Landing { slots: &mut self.slots, guesses: &mut self.guesses, io };
        let outcome = match self.device.as_mut().filter(|_| !run.is_host()) {
            Some(device) => device.run_node(landing, run, &mut step, (op, part)),
            None => landing.compute_node(run, &mut step, (op, part)),
        };
        step.ops_left = step.ops_left.saturating_sub(1);
        let done = step.ops_left == 0 && outcome.is_ok();
        if done {
            return self.keep(io, step);
        }
        self.step = Some(step);
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
        let landing = Landing { slots: &mut self.slots, guesses: &mut self.guesses, io };
        let outcome = device.run_layer(landing, run, &mut step, ops, nodes);
        if let Err(error) = outcome {
            // `abandon` gives back what it holds.
            self.step = Some(step);
            return Err(error);
        }
        self.keep(io, step).map(|()| true)
    }

    /// All of a layer was launched: what it holds stays until a device is done with it.
    fn keep(&mut self, io: &mut Io<Target>, step: Step) -> Result<(), ExecError> {
        match &mut self.device {
            Some(device) => device.keep(&mut self.slots, step),
            None => {
                self.end_layer(io, &step);
                Ok(())
            }
        }
    }

    /// The host waited for the device, to know the ids of a layer.
    pub fn note_wait(&mut self, wait: Duration) {
        if let Some(device) = &mut self.device {
            device.counts_mut().note_wait(wait);
        }
    }

    /// All of a layer's experts are computed.
    pub(super) fn end_layer(&mut self, io: &mut Io<Target>, step: &Step) {
        self.slots.unpin(step);
        self.poll_reads(io);
    }

    /// Looks up the experts of a layer and starts all reads.
    ///
    /// # Errors
    /// As [`Self::run_op`].
    pub fn begin(
        &mut self,
        io: &mut Io<Target>,
        index: usize,
        ids_operand: usize,
        ids: &MoeIds,
        ops: &LayerOps,
    ) -> Result<(), ExecError> {
        if let Some(unfinished) = self.step.take() {
            self.unpin(&unfinished);
        }
        // The ids are known: the device is done with the layers before.
        self.settle();
        let mut grouped = group_by_expert(ids, self.slots.layout.layers[index].experts);
        if let Some(ExpertDevice::Uploads(device)) = &mut self.device {
            device.settle_demotions_of(&mut self.slots, index);
            device.place(&self.slots.layout.layers[index], ids.tokens, self.slots.clock, &mut grouped);
            if device.brings_back() {
                self.slots.note_uses(index, ids.tokens, &grouped);
            }
        }
        let loads = self.slots.place(io, index, ids.tokens, &mut grouped);
        if self.synchronous {
            read_in_turn(&mut self.slots, io, index, &loads, &ops.parts);
        } else {
            submit(&self.slots, io, index, &loads, &ops.parts);
        }
        let layer = &self.slots.layout.layers[index];
        // Whether the host's slots are what is computed with.
        let in_slots = self.device.as_ref().is_none_or(|device| device.takes_host_slots(ids.tokens));
        let step = Step::new(index, layer, ids_operand, ids, grouped, ops, !in_slots);
        self.slots.fill_ring(io, self.step.insert(step));
        match &mut self.device {
            Some(ExpertDevice::Uploads(device)) => device.demote(&mut self.slots, index),
            _ => Ok(()),
        }
    }

    /// What the next layer will probably want is uploaded, while the device computes what was launched; what
    /// the host does not have either, or what the device computes with there, is read.
    ///
    /// # Errors
    /// As [`Self::run_op`].
    pub fn expect_on_device(&mut self, io: &mut Io<Target>, guesses: Vec<Guess>) -> Result<(), ExecError> {
        let absent = match &mut self.device {
            Some(ExpertDevice::Uploads(device)) => device.upload_guesses(&mut self.slots, guesses)?,
            _ => guesses,
        };
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
        self.landing(io).poll();
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
        if let Some(ExpertDevice::InPlace(device)) = &mut self.device {
            // Pages that a device holds on to would not be the system's.
            device.release();
        }
        let freed = self.slots.give_back(bytes);
        if let Some(ExpertDevice::InPlace(device)) = &mut self.device {
            device.import_again(&self.slots);
        }
        freed
    }
}
