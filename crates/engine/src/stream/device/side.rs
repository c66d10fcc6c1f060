//! A device's slots, and the frames where there are too few of them.
//!
//! The device's slots are a cache over those of the host: an expert that is in one of them is not looked up
//! in the host's memory at all. Any other comes from a slot or a cell of the host, where it is or is read
//! into. Where the host has not room for all of them, the two hold different experts (`demotion`).
//!
//! Guesses of what the next layer uses are uploaded while the device computes this one.
//!
//! Whether a step computes with slots or with frames follows from its tokens and its experts, not from what
//! is in memory. A device computes after the call has returned: what it computes with stays pinned until it
//! is known to be done, when the ids of the next layer have been read, or at the end of the step.

use hypura_core::cache::{EvictionPolicy, ExpertCache, Grant, SlotTable, TokenClock};
use hypura_core::plan::{ExpertLayout, LayerLayout};
use hypura_ggml::{ExecError, GraphRun};
use std::time::Instant;

use super::counts::DeviceCounts;
use super::demotion::Demotions;
use super::guessed::GuessedSlots;
use super::link::Link;
use crate::error::LoadError;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::lookups::DECODE_TOKENS;
use crate::stream::slots::device::{
    DevicePool, Frames, Lent, Uploads, have_room_for_all, make_device_pools, pool_of,
};
use crate::stream::step::{DeviceSlot, GroupedIds, Place, Step};

/// What experts on a device need besides the host's memory.
pub(crate) struct DeviceSide {
    pub(super) link: Link,
    pub(super) frames: Frames,
    /// By class; the layers of a class share its pools evenly.
    pub(super) pools: Vec<Vec<DevicePool>>,
    /// Layers that the device may still be computing.
    launched: Vec<Step>,
    pub(super) guessed: GuessedSlots,
    /// Experts on their way back to the host; `None` where it does not take any.
    pub(super) demotions: Option<Demotions>,
    pub counts: DeviceCounts,
}

impl DeviceSide {
    /// `counts` slots of each class where `uploads` leads to, over those of the host.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when the device has no memory left.
    pub fn new(
        uploads: Uploads,
        host: &ExpertSlots,
        counts: &[u32],
        policy: &dyn Fn(u32) -> Box<dyn EvictionPolicy + Send>,
    ) -> Result<Self, LoadError> {
        let layout = host.layout();
        let frames = Frames::new(layout, &uploads);
        let pools = counts.iter().enumerate();
        let mut pools: Vec<Vec<DevicePool>> = pools
            .map(|(class, slots)| make_device_pools(layout, class, *slots as usize, policy, &uploads))
            .collect::<Result<_, _>>()?;
        let link = Link::new(uploads, host);
        let is_short = !have_room_for_all(&pools, layout) && !host.has_room_for_all();
        let are_tiers = is_short && link.takes_back();
        let demotions = are_tiers.then(Demotions::default);
        if demotions.is_some() {
            pools.iter_mut().flatten().for_each(|pool| pool.cache.note_evictions());
        }
        let (launched, guessed, counts) = Default::default();
        Ok(Self { link, frames, pools, launched, guessed, demotions, counts })
    }

    /// Whether the pages of the host's slots must stay.
    pub fn imports(&self) -> bool {
        self.link.imports
    }

    /// Looks up the experts of a step: those that are there need nothing of the host. A step of many tokens
    /// computes with frames, which take over what slots have.
    pub(in crate::stream) fn place(
        &mut self,
        layer: &LayerLayout,
        tokens: usize,
        now: TokenClock,
        grouped: &mut GroupedIds,
    ) {
        let Some(pool) = pool_of(&mut self.pools, layer) else { return };
        if tokens > DECODE_TOKENS {
            let span = u32::try_from(tokens).unwrap_or(u32::MAX);
            let present = pool.cache.acquire_present(&grouped.demands(layer.layer), now, span);
            for (want, slot) in grouped.wanted.iter_mut().zip(present) {
                let Some(slot) = slot else { continue };
                (want.place, want.on_device) = (Place::OnDevice, Some(DeviceSlot { slot, loading: false }));
            }
            return;
        }
        if grouped.wanted.len() > pool.slots() {
            return;
        }
        let before = pool.cache.counters().prefetches_used;
        let grants = pool.cache.acquire(&grouped.demands(layer.layer), now);
        if grants.contains(&Grant::NoRoom) {
            for grant in grants {
                if let Grant::Load(slot) = grant {
                    pool.cache.complete(slot, false);
                }
                grant.slot().into_iter().for_each(|slot| pool.cache.unpin(slot));
            }
            return;
        }
        for (want, grant) in grouped.wanted.iter_mut().zip(grants) {
            let loading = matches!(grant, Grant::Load(_));
            want.on_device = grant.slot().map(|slot| DeviceSlot { slot, loading });
            match grant {
                Grant::Load(slot) => pool.start(slot),
                _ => {
                    want.place = Place::OnDevice;
                    self.counts.hits += 1;
                }
            }
        }
        self.counts.prefetched += pool.cache.counters().prefetches_used - before;
    }

    /// A layer is about to be looked up: none of its experts may still be on its way back.
    pub(in crate::stream) fn settle_demotions_of(&mut self, slots: &mut ExpertSlots, index: usize) {
        if self.demotions.as_ref().is_some_and(|demotions| demotions.are_out(index)) {
            self.wait_for_uploads();
            self.fence_copies(slots);
            self.settle_copies(slots);
        }
    }

    /// Who lost its slot in the pool of a layer comes back to the host.
    ///
    /// # Errors
    /// As [`Demotions::bring_back`].
    pub(in crate::stream) fn demote(
        &mut self,
        slots: &mut ExpertSlots,
        index: usize,
    ) -> Result<(), ExecError> {
        let pool = pool_of(&mut self.pools, &slots.layout.layers[index]);
        if let (Some(pool), Some(demotions)) = (pool, &mut self.demotions) {
            self.counts.demoted_bytes += demotions.bring_back(pool, &self.link, slots)? as u64;
        }
        Ok(())
    }

    fn fence_copies(&mut self, slots: &mut ExpertSlots) {
        slots.lent.iter_mut().for_each(Lent::fence);
        self.demotions.iter_mut().for_each(Demotions::fence);
    }

    /// What was launched behind the last fence is done, and so are the copies before it.
    pub(in crate::stream) fn settle_copies(&mut self, slots: &mut ExpertSlots) {
        slots.lent.iter_mut().for_each(Lent::settle);
        if let Some(demotions) = &mut self.demotions {
            demotions.settle(&mut self.pools, slots);
        }
    }

    /// What is launched from now on finds everything that was uploaded.
    pub(super) fn fence(&mut self, slots: &mut ExpertSlots, run: &mut GraphRun<'_>) {
        self.link.fence(run);
        self.guessed.complete(&mut self.pools, &slots.layout);
        self.fence_copies(slots);
    }

    /// No step is in progress: waits for guesses that nobody came for, and for experts on their way back.
    pub(in crate::stream) fn settle_guesses(&mut self, slots: &mut ExpertSlots) {
        self.settle_uploads();
        self.guessed.complete(&mut self.pools, &slots.layout);
        self.fence_copies(slots);
        self.settle_copies(slots);
        self.link.settle();
        self.frames.settle();
    }

    /// Whether every expert of the model is in a slot: nothing is left to guess.
    pub(in crate::stream) fn holds_all(&self, layout: &ExpertLayout) -> bool {
        let resident =
            |pools: &Vec<DevicePool>| pools.iter().map(|pool| pool.cache.table().resident() as u64).sum();
        self.pools
            .iter()
            .map(resident)
            .zip(&layout.classes)
            .all(|(held, class): (u64, _)| held == class.experts)
    }

    /// Lookups of guesses, and those that were evicted before anybody used them.
    pub(in crate::stream) fn prefetches(&self) -> (u64, u64) {
        let counters = self.caches().map(ExpertCache::counters);
        counters.fold((0, 0), |(all, wasted), of| (all + of.prefetches, wasted + of.prefetches_wasted))
    }

    /// Whether the host's memory keeps what this evicts.
    pub(in crate::stream) fn brings_back(&self) -> bool {
        self.demotions.is_some()
    }

    /// Keeps account of the host's slots that uploads read.
    pub fn lent(&self) -> Lent {
        Lent::new(self.link.uploads())
    }

    /// A layer has been launched; it keeps what it holds.
    ///
    /// # Errors
    /// As [`Demotions::bring_back`].
    pub(in crate::stream) fn keep(
        &mut self,
        slots: &mut ExpertSlots,
        mut step: Step,
    ) -> Result<(), ExecError> {
        let layer = &slots.layout.layers[step.layer];
        if let Some(pool) = pool_of(&mut self.pools, layer) {
            for want in &mut step.wanted {
                let Some(DeviceSlot { slot, loading: loading @ true }) = &mut want.on_device else {
                    continue;
                };
                let whole = pool.is_whole(*slot, layer.parts.len());
                pool.cache.complete(*slot, whole);
                *loading = false;
                if let (Place::Slot(spare), true) = (&want.place, whole && self.demotions.is_some()) {
                    slots.pools[layer.class].cache.set_spare(*spare);
                }
            }
        }
        self.settle_uploads();
        let next = step.layer + 1;
        self.launched.push(step);
        self.demote_ahead(slots, next)
    }

    /// While the device computes, who would be evicted next makes room for a layer.
    fn demote_ahead(&mut self, slots: &mut ExpertSlots, index: usize) -> Result<(), ExecError> {
        let Some(layer) = slots.layout.layers.get(index) else { return Ok(()) };
        let (used, pool) = (layer.used, pool_of(&mut self.pools, layer));
        if let (Some(pool), Some(demotions)) = (pool, &mut self.demotions) {
            self.counts.demoted_bytes += demotions.bring_back_ahead(pool, &self.link, slots, used)? as u64;
        }
        Ok(())
    }

    /// Slots that are given to others must not be waiting for an upload: none comes between two layers,
    /// unless the layer's nodes came in several graphs or were given up.
    fn settle_uploads(&mut self) {
        if self.link.is_unfenced() {
            self.wait_for_uploads();
        }
    }

    /// Waits until all that was handed over is there: its sources may be written to.
    pub(super) fn wait_for_uploads(&mut self) {
        let begun = Instant::now();
        self.link.wait();
        self.counts.note_wait(begun.elapsed());
    }

    /// Gives back what a layer holds of the device.
    pub(in crate::stream) fn unpin(&mut self, layer: &LayerLayout, step: &Step) {
        if step.wanted.iter().any(|want| want.on_device.is_some_and(|place| place.loading)) {
            self.settle_uploads();
        }
        let Some(pool) = pool_of(&mut self.pools, layer) else { return };
        for DeviceSlot { slot, loading } in step.wanted.iter().filter_map(|want| want.on_device) {
            if loading {
                pool.cache.complete(slot, false);
            }
            pool.cache.unpin(slot);
        }
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub(in crate::stream) fn settle(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.launched)
    }

    /// Who is in which slot, pool by pool.
    pub fn caches(&self) -> impl Iterator<Item = &ExpertCache> {
        self.pools.iter().flatten().map(|pool| &pool.cache)
    }

    /// Slots that are pinned, and those whose experts are on their way.
    pub fn held(&self) -> (usize, usize) {
        let tables = || self.caches().map(ExpertCache::table);
        (tables().map(SlotTable::pinned).sum(), tables().map(SlotTable::loading).sum())
    }
}
