//! Where experts are: slots of their size class, and throwaway cells for those that found no room.
//!
//! Looks experts up, takes in what lands, and says what of a step is there. Starts no reads of its own; what
//! is computed with is pinned until [`ExpertSlots::unpin`].

use hypura_core::cache::{Grant, SlotId, TokenClock};
use hypura_core::plan::ExpertLayout;
use hypura_ggml::ExecError;
use hypura_storage::{Arena, Population, ReadError};
use std::sync::Arc;

use super::io::{Io, Landed};
use super::layer_reads::fill_scratch_ring;
use super::lookups::{DECODE_TOKENS, LookupCounts};
use super::slots::device::Lent;
use super::slots::{ScratchRing, SlotPool};
use super::stats::Held;
use super::step::{GroupedIds, Place, Step};
use super::target::Target;
use crate::error::StreamError;

/// The memory of a context's routed experts.
pub(crate) struct ExpertSlots {
    pub(super) layout: ExpertLayout,
    pub(super) pools: Vec<SlotPool>,
    /// Slots of each pool at first.
    pub(super) planned: Vec<u32>,
    pub(super) cells: ScratchRing,
    pub(super) clock: TokenClock,
    pub(super) counts: LookupCounts,
    /// Slots that a device may be reading, where one computes.
    pub(super) lent: Option<Lent>,
    /// Who touches the pages of slots in advance.
    pub(super) population: Option<Arc<Population>>,
    /// Whether a device reads the pages of slots by itself, so that they must stay.
    pub(super) pages_must_stay: bool,
}

impl ExpertSlots {
    pub fn new(layout: ExpertLayout, pools: Vec<SlotPool>, cells: ScratchRing) -> Self {
        let memory = pools.iter().find_map(SlotPool::arena);
        let regions = pools.iter().map(SlotPool::region).collect();
        Self {
            population: memory.map(|memory| Population::new(memory, regions)),
            layout,
            planned: pools.iter().map(SlotPool::slots).collect(),
            pools,
            cells,
            clock: TokenClock::default(),
            counts: LookupCounts::default(),
            lent: None,
            pages_must_stay: false,
        }
    }

    pub fn layout(&self) -> &ExpertLayout {
        &self.layout
    }

    /// The memory of all slots; `None` without slots.
    pub fn memory(&self) -> Option<&Arc<Arena>> {
        self.pools.iter().find_map(SlotPool::arena)
    }

    /// Who touches the pages of slots in advance; `None` without slots.
    pub fn population(&self) -> Option<&Arc<Population>> {
        self.population.as_ref()
    }

    /// A pass over the layers begins: where first touches cost more than reads at `disk_bytes_per_s`, slots
    /// are used as they are touched.
    pub(super) fn begin_pass(&mut self, disk_bytes_per_s: f64) {
        let Some(population) = &self.population else { return };
        let touch = population.bytes_per_s().filter(|_| population.is_working());
        let is_slow = touch.is_some_and(|rate| rate < disk_bytes_per_s);
        for (region, pool) in self.pools.iter_mut().enumerate() {
            let touched = population.touched_bytes(region);
            pool.set_touched(if is_slow { touched } else { usize::MAX });
        }
    }

    pub fn pools(&self) -> &[SlotPool] {
        &self.pools
    }

    pub fn counts(&self) -> &LookupCounts {
        &self.counts
    }

    /// The pool of a layer's size class.
    pub(super) fn pool(&self, layer: usize) -> &SlotPool {
        &self.pools[self.layout.layers[layer].class]
    }

    /// As [`Self::pool`].
    pub(super) fn pool_mut(&mut self, layer: usize) -> &mut SlotPool {
        &mut self.pools[self.layout.layers[layer].class]
    }

    /// Whether every expert of the model is in a slot: nothing is left to read ahead.
    pub fn holds_all(&self) -> bool {
        let classes = self.pools.iter().zip(&self.layout.classes);
        classes.into_iter().all(|(pool, class)| pool.cache.table().resident() as u64 == class.experts)
    }

    /// Asks the cache for every expert of a layer, and counts. Returns what must be read into slots.
    pub(super) fn place(
        &mut self,
        io: &mut Io<Target>,
        index: usize,
        tokens: usize,
        grouped: &mut GroupedIds,
    ) -> Vec<(u32, SlotId)> {
        let layer = &self.layout.layers[index];
        let demands = grouped.demands(layer.layer);
        let pool = &mut self.pools[layer.class];
        let before = pool.cache.counters();
        let grants = pool.cache.acquire_step(&demands, self.clock, u32::try_from(tokens).unwrap_or(u32::MAX));
        let LookupCounts { decode, prefill, shared_bytes } = &mut self.counts;
        let lookups = if tokens <= DECODE_TOKENS { decode } else { prefill };
        lookups.count(&pool.cache.counters().since(&before));
        let mut loads = Vec::new();
        let expert_bytes: u64 = layer.parts.iter().map(|part| part.slice_bytes as u64).sum();
        let wanted = grouped.wanted.iter_mut();
        // What a device has in its own memory is a hit.
        lookups.hits += (wanted.len() - grants.len()) as u64;
        for (want, grant) in wanted.filter(|want| want.is_wanted_on_host()).zip(&grants) {
            if tokens <= DECODE_TOKENS && matches!(grant, Grant::Load(_) | Grant::NoRoom) {
                *shared_bytes += expert_bytes * (want.pairs.len() as u64 - 1);
            }
            match grant {
                Grant::Hit(_) | Grant::NoRoom => {}
                Grant::Joined(late) => io.promote(|target| {
                    matches!(target, Target::Slot { layer: other, slot, .. }
                        if slot == late && self.layout.layers[*other].class == layer.class)
                }),
                Grant::Load(slot) => {
                    if let Some(lent) = &mut self.lent {
                        lent.reclaim(layer.class, *slot);
                    }
                    pool.start(*slot, layer.parts.len());
                    loads.push((want.expert, *slot));
                }
            }
            if let Some(slot) = grant.slot() {
                want.place = Place::Slot(slot);
            }
        }
        loads
    }

    /// What a device has of a step's experts counts as used here too: who comes back keeps its standing.
    pub(super) fn note_uses(&mut self, index: usize, tokens: usize, grouped: &GroupedIds) {
        let layer = &self.layout.layers[index];
        let demands = grouped.demands_on_device(layer.layer);
        let span = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.pools[layer.class].cache.note_uses(&demands, self.clock, span);
    }

    /// Whether there is a slot for every expert of the model.
    pub fn has_room_for_all(&self) -> bool {
        let classes = self.pools.iter().zip(&self.layout.classes);
        classes.into_iter().all(|(pool, class)| u64::from(pool.slots()) >= class.experts)
    }

    /// Starts reads of what goes through cells, as far as there are free ones.
    pub(super) fn fill_ring(&mut self, io: &mut Io<Target>, step: &mut Step) {
        fill_scratch_ring(io, &self.layout, &mut self.cells, step);
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
                Err(failure) => self.cells.fail(cell, failure),
            },
        }
    }

    /// Fails when an expert that the step waits for cannot come any more. A failed prefetch of an expert that
    /// nobody wants is no failure: a later demand reads it again.
    pub(super) fn check(&self, step: &Step, todo: &[usize]) -> Result<(), ExecError> {
        let pool = self.pool(step.layer);
        let failed = todo.iter().find_map(|want| match step.wanted[*want].place {
            Place::Slot(slot) => pool.failure(slot),
            Place::Cells(_) | Place::OnDevice => None,
        });
        match failed.or_else(|| Some(StreamError::Read(self.cells.any_failure()?.clone()).into())) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// A step needs its experts no longer.
    pub(super) fn unpin(&mut self, step: &Step) {
        let pool = self.pool_mut(step.layer);
        for want in &step.wanted {
            if let Place::Slot(slot) = want.place {
                pool.cache.unpin(slot);
            }
        }
    }

    /// A step was given up, and with it these reads, which were taken back; its cells are free.
    pub(super) fn abandon(&mut self, taken_back: Vec<Target>) {
        for target in taken_back {
            match target {
                Target::Slot { layer, slot, part, .. } => {
                    let layer = &self.layout.layers[layer];
                    self.pools[layer.class].give_up(slot, part);
                }
                Target::Cell { cell, .. } => self.cells.give_up(cell),
            }
        }
        self.cells.free_all();
    }

    /// What is held right now.
    pub fn held(&self) -> Held {
        Held {
            pins: self.pools.iter().map(|pool| pool.cache.table().pinned()).sum(),
            loading_slots: self.pools.iter().map(|pool| pool.cache.table().loading()).sum(),
            cells: self.cells.in_use(),
            reads: 0,
        }
    }
}
