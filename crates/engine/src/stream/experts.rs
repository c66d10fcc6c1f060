//! Streaming of routed experts, one layer at a time.
//!
//! When the ids of a layer are known, its experts are looked up once: hits are pinned, misses get slots and
//! their reads start at once (all parts that are needed first, of all misses, before the parts needed later);
//! experts without a slot go through throwaway cells in the order of use. Then each node computes what is
//! there, and the rest as it lands.
//!
//! Invariant: outside of [`ExpertStreamer::run_op`] and between layers nothing is pinned and no cell is in
//! use; after a failure [`ExpertStreamer::abandon`] restores that.

use hypura_core::cache::{ExpertKey, Grant, SlotId, TokenClock};
use hypura_core::plan::ExpertLayout;
use hypura_core::prefetch::QUEUE;
use hypura_ggml::{ExecError, GraphRun, MoeIds, StreamedOp};
use hypura_storage::{Arena, Priority, ReadError};

use super::device::{DeviceNode, DeviceSide};
use super::io::{Io, Landed};
use super::layer_reads::{fill_scratch_ring, slot_reads};
use super::prefetcher::Guess;
use super::ready::free_cells;
use super::slots::device::Uploads;
use super::slots::{ScratchRing, SlotPool};
use super::stats::Held;
use super::step::{GroupedIds, LayerOps, Place, Step, group_by_expert};
use crate::error::StreamError;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most tokens of a step that counts as decoding: their experts are looked up and kept like those of one
/// token.
pub(crate) const DECODE_TOKENS: usize = hypura_core::cache::DECODE_TOKENS as usize;

/// Most rows computed in one call, unless one expert alone has more. Bounds the memory of gathered rows, and
/// ggml's work memory, which grows with slots × rows.
pub(super) const MOST_ROWS: usize = 512;

/// Bounds of the disk's queue ([`QUEUE`]) in bytes: for a disk that has not shown yet what it does, and for
/// one whose rate was never slow.
const QUEUE_BYTES: (usize, usize) = (3 << 20, 16 << 20);

/// What a read is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// A part of an expert in a slot.
    Slot { layer: usize, expert: u32, slot: SlotId, part: usize },
    /// A slice in a throwaway cell, which begins at `shift`.
    Cell { cell: usize, shift: usize },
}

/// Lookups of one kind of step, one per expert per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lookups {
    /// Found in memory.
    pub hits: u64,
    /// Read for this step, on demand or because a prefetch guessed right.
    pub misses: u64,
    /// Of the misses, those whose read a prefetch had started.
    pub prefetched: u64,
    /// Of those, the ones whose read was still under way.
    pub late: u64,
}

/// Experts were placed in a pool that has no memory.
pub(super) fn no_slots() -> ExecError {
    ExecError::Misuse("a pool without slots".to_owned())
}

/// A node of experts came before its layer began, or after it ended.
pub(super) fn no_layer() -> ExecError {
    ExecError::Misuse("a node of experts outside of its layer".to_owned())
}

/// Streams the experts of one context.
pub(crate) struct ExpertStreamer {
    pub(super) layout: ExpertLayout,
    pub(super) pools: Vec<SlotPool>,
    /// Slots of each pool at first.
    pub(super) planned: Vec<u32>,
    pub(super) cells: ScratchRing,
    pub(super) device: Option<DeviceSide>,
    pub(super) step: Option<Step>,
    clock: TokenClock,
    /// Experts to read ahead when the disk has time, likeliest first.
    guesses: VecDeque<Guess>,
    queue_bytes: usize,
    failure: Option<ReadError>,
    pub(super) synchronous: bool,
    pub decode: Lookups,
    pub prefill: Lookups,
    /// Bytes that rows of decode steps did not have to read, because another row of the same step did.
    pub shared_bytes: u64,
}

impl ExpertStreamer {
    pub fn new(layout: ExpertLayout, pools: Vec<SlotPool>, cells: ScratchRing) -> Self {
        Self {
            layout,
            planned: pools.iter().map(SlotPool::slots).collect(),
            pools,
            cells,
            device: None,
            step: None,
            clock: TokenClock::default(),
            guesses: VecDeque::new(),
            queue_bytes: QUEUE_BYTES.0,
            failure: None,
            synchronous: false,
            decode: Lookups::default(),
            prefill: Lookups::default(),
            shared_bytes: 0,
        }
    }

    /// Has every read waited for before anything is computed, part by part: the baseline of benchmarks.
    pub fn synchronous(self) -> Self {
        Self { synchronous: true, ..self }
    }

    /// Has the experts computed on the device that `uploads` leads to, where their slots are.
    pub fn on_device(mut self, uploads: Uploads) -> Self {
        self.device = Some(DeviceSide::new(uploads, &self.layout, &self.cells));
        self
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub fn settle(&mut self) {
        for step in self.device.as_mut().map(DeviceSide::settle).unwrap_or_default() {
            self.unpin(&step);
        }
    }

    pub fn layout(&self) -> &ExpertLayout {
        &self.layout
    }

    /// The memory of all slots; `None` without slots.
    pub fn memory(&self) -> Option<&Arc<Arena>> {
        self.pools.iter().find_map(SlotPool::arena)
    }

    pub fn pools(&self) -> &[SlotPool] {
        &self.pools
    }

    /// A pass over the layers begins, of `tokens` tokens.
    pub fn begin_pass(&mut self, io: &Io<Target>, tokens: usize) {
        self.guesses.clear();
        self.queue_bytes = io.bytes_in(QUEUE).clamp(QUEUE_BYTES.0, QUEUE_BYTES.1);
        self.clock = self.clock.after_step(u32::try_from(tokens).unwrap_or(u32::MAX));
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
        let outcome = if run.is_host() {
            self.compute(io, run, op, part, &mut step)
        } else {
            DeviceNode { streamer: self, io, op, part }.run(run, &mut step)
        };
        step.ops_left = step.ops_left.saturating_sub(1);
        let done = step.ops_left == 0 && outcome.is_ok();
        match &mut self.device {
            _ if !done => self.step = Some(step),
            Some(device) => device.keep(step),
            None => self.end_layer(io, &step),
        }
        outcome
    }

    /// All of a layer's experts are computed.
    pub(super) fn end_layer(&mut self, io: &mut Io<Target>, step: &Step) {
        self.unpin(step);
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
        let layer = &self.layout.layers[index];
        let mut grouped = group_by_expert(ids, layer.experts);
        let loads = self.place(io, index, ids.tokens, &mut grouped);
        let layer = &self.layout.layers[index];
        let pool = &self.pools[layer.class];
        if self.synchronous {
            read_one_part_after_the_other(self, io, index, &loads, &ops.parts);
        } else {
            io.submit(slot_reads(layer, index, pool, &loads, &ops.parts, Priority::Demand));
        }
        let layer = &self.layout.layers[index];
        let mut step = Step::new(index, layer, ids_operand, ids, grouped, ops);
        if self.device.is_some() {
            step.experts.clone_from(&ids.experts);
        }
        let step = self.step.insert(step);
        fill_scratch_ring(io, &self.layout, &mut self.cells, step);
    }

    /// Asks the cache for every expert of a layer, and counts. Returns what must be read into slots.
    fn place(
        &mut self,
        io: &mut Io<Target>,
        index: usize,
        tokens: usize,
        grouped: &mut GroupedIds,
    ) -> Vec<(u32, SlotId)> {
        let layer = &self.layout.layers[index];
        let demands = grouped.demands(layer.layer);
        let pool = &mut self.pools[layer.class];
        let prefetches_used = pool.cache.counters().prefetches_used;
        let grants = pool.cache.acquire_step(&demands, self.clock, u32::try_from(tokens).unwrap_or(u32::MAX));
        let lookups = if tokens <= DECODE_TOKENS { &mut self.decode } else { &mut self.prefill };
        let mut loads = Vec::new();
        let expert_bytes: u64 = layer.parts.iter().map(|part| part.slice_bytes as u64).sum();
        for (want, grant) in grouped.wanted.iter_mut().zip(&grants) {
            if tokens <= DECODE_TOKENS && matches!(grant, Grant::Load(_) | Grant::NoRoom) {
                self.shared_bytes += expert_bytes * (want.pairs.len() as u64 - 1);
            }
            match grant {
                Grant::Hit(_) => lookups.hits += 1,
                Grant::Joined(late) => {
                    lookups.hits += 1;
                    lookups.late += 1;
                    io.promote(|target| {
                        matches!(target, Target::Slot { layer: other, slot, .. }
                            if slot == late && self.layout.layers[*other].class == layer.class)
                    });
                }
                Grant::Load(slot) => {
                    lookups.misses += 1;
                    pool.start(*slot, layer.parts.len());
                    loads.push((want.expert, *slot));
                }
                Grant::NoRoom => lookups.misses += 1,
            }
            if let Some(slot) = grant.slot() {
                want.place = Place::Slot(slot);
            }
        }
        // An expert that is here only because a prefetch read it for this step is no hit of the cache.
        let prefetched = pool.cache.counters().prefetches_used - prefetches_used;
        lookups.prefetched += prefetched;
        lookups.misses += prefetched;
        lookups.hits = lookups.hits.saturating_sub(prefetched);
        loads
    }

    /// Whether every expert of the model is in a slot: nothing is left to read ahead.
    pub fn holds_all(&self) -> bool {
        let classes = self.pools.iter().zip(&self.layout.classes);
        classes.into_iter().all(|(pool, class)| pool.cache.resident() as u64 == class.experts)
    }

    /// What the next layers will probably want replaces what they were thought to want.
    pub fn expect(&mut self, io: &mut Io<Target>, guesses: Vec<Guess>) {
        self.guesses = guesses.into();
        self.issue_prefetches(io);
    }

    /// Starts reads of guessed experts, likeliest first, while the disk has too little to do; as far as they
    /// are absent and there is room that nobody needs more.
    pub(super) fn issue_prefetches(&mut self, io: &mut Io<Target>) {
        let mut backlog = io.backlog_bytes();
        let mut reads = Vec::new();
        while backlog < self.queue_bytes {
            let Some(Guess { layer: index, expert }) = self.guesses.pop_front() else { break };
            let layer = &self.layout.layers[index];
            let pool = &mut self.pools[layer.class];
            if let Some(slot) = pool.cache.prefetch(ExpertKey::new(layer.layer, expert), self.clock) {
                pool.start(slot, layer.parts.len());
                let parts: Vec<usize> = (0..layer.parts.len()).collect();
                reads.extend(slot_reads(layer, index, pool, &[(expert, slot)], &parts, Priority::Prefetch));
                backlog += layer.parts.iter().map(|part| part.slice_bytes).sum::<usize>();
            }
        }
        io.submit(reads);
    }

    /// Takes in what has landed and gives the disk more.
    pub(super) fn poll_reads(&mut self, io: &mut Io<Target>) {
        let landed = io.poll();
        self.absorb(landed);
        self.issue_prefetches(io);
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
            && todo.iter().all(|want| self.is_ready(step, *want, part))
        {
            let layer = &self.layout.layers[step.layer];
            let pool = self.pools[layer.class].binding(part, &layer.parts[part]);
            let pool = pool.ok_or_else(no_slots)?;
            return run.meanwhile(&mut || io.resubmit(), |run| run.run_bound(op, pool, slots));
        }
        run.zero_rows(op, &step.none)?;
        while !todo.is_empty() {
            let (ready, rest) = self.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                self.check(step, &todo)?;
                let landed = io.wait()?;
                self.absorb(landed);
                // A stopped step may have left cells behind that are free only now.
                fill_scratch_ring(io, &self.layout, &mut self.cells, step);
                self.issue_prefetches(io);
            } else {
                run.meanwhile(&mut || io.resubmit(), |run| self.run_ready(run, op, part, step, &ready))?;
                free_cells(&mut self.cells, step, part, &ready);
                fill_scratch_ring(io, &self.layout, &mut self.cells, step);
                self.poll_reads(io);
            }
        }
        Ok(())
    }

    pub(super) fn absorb(&mut self, landed: Vec<Landed<Target>>) {
        for Landed { target, result } in landed {
            self.land(target, result);
        }
    }

    fn land(&mut self, target: Target, result: Result<(), ReadError>) {
        match target {
            Target::Slot { layer, expert, slot, part } => {
                let layer = &self.layout.layers[layer];
                let layout = &layer.parts[part];
                let read = layout.read(expert);
                self.pools[layer.class].land(slot, part, layout, read, result);
            }
            Target::Cell { cell, shift } => match result {
                Ok(()) => self.cells.land(cell, shift),
                Err(failure) => {
                    if self.cells.fail(cell, failure.clone()) {
                        self.failure.get_or_insert(failure);
                    }
                }
            },
        }
    }

    /// Fails when an expert that the step waits for cannot come any more. A failed prefetch of an expert that
    /// nobody wants is no failure: a later demand reads it again.
    pub(super) fn check(&self, step: &Step, todo: &[usize]) -> Result<(), ExecError> {
        let pool = &self.pools[self.layout.layers[step.layer].class];
        let failed = todo.iter().find_map(|want| match step.wanted[*want].place {
            Place::Slot(slot) => pool.failure(slot),
            Place::Cells(_) => None,
        });
        match failed.or_else(|| Some(StreamError::Read(self.failure.clone()?).into())) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    pub(super) fn unpin(&mut self, step: &Step) {
        let pool = &mut self.pools[self.layout.layers[step.layer].class];
        for want in &step.wanted {
            if let Place::Slot(slot) = want.place {
                pool.cache.unpin(slot);
            }
        }
    }

    /// Ends a step that failed or was stopped, and of which nothing is being computed any more: waits for its
    /// reads as long as the disk answers, then gives back pins and cells. What is still being read lands
    /// later, as a guess would.
    pub fn abandon(&mut self, io: &mut Io<Target>) {
        self.settle();
        let (landed, taken_back) = io.quiesce();
        self.absorb(landed);
        for target in taken_back {
            match target {
                Target::Slot { layer, slot, part, .. } => {
                    let layer = &self.layout.layers[layer];
                    self.pools[layer.class].give_up(slot, part);
                }
                Target::Cell { cell, .. } => self.cells.give_up(cell),
            }
        }
        self.failure = None;
        self.guesses.clear();
        if let Some(step) = self.step.take() {
            self.unpin(&step);
        }
        for cell in 0..self.cells.count() {
            self.cells.free(cell);
        }
    }

    /// What is held right now.
    pub fn held(&self) -> Held {
        Held {
            pins: self.pools.iter().map(|pool| pool.cache.pinned()).sum(),
            loading_slots: self.pools.iter().map(|pool| pool.cache.loading()).sum(),
            cells: self.cells.in_use(),
            reads: 0,
        }
    }
}

/// Reads a part of all misses, waits for it, then the next part. A failed read is found when the expert
/// is used.
fn read_one_part_after_the_other(
    streamer: &mut ExpertStreamer,
    io: &mut Io<Target>,
    index: usize,
    loads: &[(u32, SlotId)],
    parts: &[usize],
) {
    for part in parts {
        let layer = &streamer.layout.layers[index];
        let pool = &streamer.pools[layer.class];
        io.submit(slot_reads(layer, index, pool, loads, &[*part], Priority::Demand));
        // An error says that nothing is out any more.
        while let Ok(landed) = io.wait() {
            streamer.absorb(landed);
        }
    }
}
