//! Streaming of routed experts, one layer at a time.
//!
//! When the ids of a layer are known, its experts are looked up once: hits are pinned, misses get slots and
//! their reads start at once (all parts that are needed first, of all misses, before the parts needed later);
//! experts without a slot go through throwaway cells in the order of use. Then each node computes what is
//! there, and the rest as it lands.
//!
//! Invariant: outside of [`ExpertStreamer::run_op`] and between layers nothing is pinned and no cell is in
//! use; after a failure [`ExpertStreamer::abandon`] restores that.

use hypura_ggml::{ExecError, GraphRun, MoeIds, StreamedOp};
use std::ops::Range;
use std::time::Duration;

use super::device::{DeviceCounts, DeviceSide, DeviceWork, InPlace, InPlaceWork, PartOp};
use super::expert_map::ExpertMap;
use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::misses::{read_in_turn, submit};
use super::on_host::HostWork;
use super::polling::poll_reads;
use super::prefetcher::Guess;
use super::stats::Held;
use super::step::{LayerOps, Step, group_by_expert};
use super::target::{Target, no_layer};

/// Streams the experts of one context.
pub(crate) struct ExpertStreamer {
    pub(super) slots: ExpertSlots,
    pub(super) guesses: GuessQueue,
    /// A device that computes with slots of its own.
    pub(super) device: Option<DeviceSide>,
    /// One that computes with those of the host.
    pub(super) in_place: Option<InPlace>,
    pub(super) step: Option<Step>,
    pub(super) synchronous: bool,
}

impl ExpertStreamer {
    pub fn new(slots: ExpertSlots) -> Self {
        let guesses = GuessQueue::default();
        Self { slots, guesses, device: None, in_place: None, step: None, synchronous: false }
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

    /// Has the experts computed on a device, in the host's memory.
    pub fn in_place(self, device: InPlace) -> Self {
        Self { in_place: Some(device), ..self }
    }

    /// What is held right now.
    pub fn held(&self) -> Held {
        let held = self.slots.held();
        let Some(device) = &self.device else { return held };
        let (pins, loading_slots) = (held.pins + device.pinned(), held.loading_slots + device.loading());
        Held { pins, loading_slots, ..held }
    }

    /// What the device did; `None` where the host computes.
    pub fn device_counts(&self) -> Option<DeviceCounts> {
        let uploading = self.device.as_ref().map(|device| device.counts);
        uploading.or_else(|| self.in_place.as_ref().map(|device| device.counts))
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
        let uploaded = self.device.as_mut().map(DeviceSide::settle);
        let in_place = self.in_place.as_mut().map(InPlace::settle);
        for step in uploaded.into_iter().chain(in_place).flatten() {
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
        let (slots, guesses) = (&mut self.slots, &mut self.guesses);
        let outcome = match (&mut self.device, &mut self.in_place) {
            (Some(device), _) if !run.is_host() => {
                DeviceWork { device, slots, guesses, io }.run_node(run, &mut step, (op, part))
            }
            (None, Some(device)) if !run.is_host() => {
                InPlaceWork { device, slots, guesses, io }.run_node(run, &mut step, (op, part))
            }
            _ => HostWork { slots, guesses, io }.run_node(run, &mut step, (op, part)),
        };
        step.ops_left = step.ops_left.saturating_sub(1);
        let done = step.ops_left == 0 && outcome.is_ok();
        if done {
            self.keep(io, step);
        } else {
            self.step = Some(step);
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
        let on_device = self.device.is_some() || self.in_place.is_some();
        if run.is_host() || !in_slots || !on_device {
            return Ok(false);
        }
        let mut step = self.step.take().ok_or_else(no_layer)?;
        let (slots, guesses) = (&mut self.slots, &mut self.guesses);
        let outcome = match (&mut self.device, &mut self.in_place) {
            (Some(device), _) => {
                DeviceWork { device, slots, guesses, io }.run_layer(run, &mut step, ops, nodes)
            }
            (None, Some(device)) => {
                InPlaceWork { device, slots, guesses, io }.run_layer(run, &mut step, ops, nodes)
            }
            (None, None) => Err(no_layer()),
        };
        match outcome {
            Ok(()) => self.keep(io, step),
            // `abandon` gives back what it holds.
            Err(_) => self.step = Some(step),
        }
        outcome.map(|()| true)
    }

    /// All of a layer was launched: what it holds stays until a device is done with it.
    fn keep(&mut self, io: &mut Io<Target>, step: Step) {
        match (&mut self.device, &mut self.in_place) {
            (Some(device), _) => device.keep(&self.slots.layout.layers[step.layer], step),
            (None, Some(device)) => device.keep(step),
            (None, None) => self.end_layer(io, &step),
        }
    }

    /// The host waited for the device, to know the ids of a layer.
    pub fn note_wait(&mut self, wait: Duration) {
        let counts = self.device.as_mut().map(|device| &mut device.counts);
        if let Some(counts) = counts.or(self.in_place.as_mut().map(|device| &mut device.counts)) {
            counts.note_wait(wait);
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
            read_in_turn(&mut self.slots, io, index, &loads, &ops.parts);
        } else {
            submit(&self.slots, io, index, &loads, &ops.parts);
        }
        let layer = &self.slots.layout.layers[index];
        // Whether the host's slots are what is computed with.
        let in_slots = self.device.is_none() && (self.in_place.is_none() || InPlace::takes_slots(ids.tokens));
        let step = Step::new(index, layer, ids_operand, ids, grouped, ops, !in_slots);
        self.slots.fill_ring(io, self.step.insert(step));
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
        if let Some(device) = &mut self.in_place {
            // Pages that a device holds on to would not be the system's.
            device.release();
        }
        let freed = self.slots.give_back(bytes);
        if let Some(device) = &mut self.in_place {
            device.import_again(&self.slots);
        }
        freed
    }
}
