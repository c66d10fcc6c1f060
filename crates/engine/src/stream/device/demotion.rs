//! Experts that a device evicts come back to the host's memory, where that has not room for all of them.
//!
//! An expert is then in one memory or the other, and both together hold as many as they have slots. What the
//! device has too is spare in the host's memory and goes first, so that it is usually where an evicted expert
//! comes to.
//!
//! Some slots of the device are kept free: while it computes a layer, who would be evicted next leaves them
//! ([`Demotions::bring_back_ahead`]), so that uploads need not wait for that, and both directions of the link
//! are used at once. Where more slots are wanted than are free, uploads wait ([`Demotions::bring_back`]).
//!
//! A slot of the host that an expert comes back to is Loading until the copy is known to be done: when what
//! was launched behind a later fence is.

use hypura_core::cache::{ExpertKey, SlotId};
use hypura_ggml::ExecError;

use super::link::Link;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::slots::device::{DevicePool, pool_of};
use crate::stream::target::no_slots;

/// Of a pool's slots one in so many is kept free, at most.
const FREE_SHARE: usize = 16;

/// An expert on its way back.
struct Demotion {
    /// The index of its layer.
    layer: usize,
    /// Its slot on the device, where nobody has that yet.
    from: Option<SlotId>,
    /// Its slot in the host's memory.
    to: SlotId,
}

/// Experts on their way back.
#[derive(Default)]
pub(super) struct Demotions {
    /// No fence is behind their copies yet.
    recent: Vec<Demotion>,
    fenced: Vec<Demotion>,
}

impl Demotions {
    /// Whether experts of a layer are on their way.
    pub fn are_out(&self, layer: usize) -> bool {
        self.recent.iter().chain(&self.fenced).any(|demotion| demotion.layer == layer)
    }

    /// Brings back who lost its slot in a pool of the device, unless it is in the host's memory anyway, or
    /// everybody there is worth more; returns the bytes. The step's lookups have pinned what it needs there,
    /// and nothing has been uploaded for it yet.
    ///
    /// # Errors
    /// [`ExecError::Misuse`], which no input causes.
    pub fn bring_back(
        &mut self,
        pool: &mut DevicePool,
        link: &Link,
        slots: &mut ExpertSlots,
    ) -> Result<usize, ExecError> {
        let mut bytes = 0;
        for (key, from) in pool.cache.take_evictions() {
            bytes += self.bring(pool, link, slots, (key, from), false)?.unwrap_or(0);
        }
        if bytes > 0 {
            link.upload_after_downloads();
        }
        Ok(bytes)
    }

    /// Has who would be evicted next leave a pool, until there are as many free slots as two layers that use
    /// `used` experts may want; returns the bytes.
    ///
    /// # Errors
    /// As [`Self::bring_back`].
    pub fn bring_back_ahead(
        &mut self,
        pool: &mut DevicePool,
        link: &Link,
        slots: &mut ExpertSlots,
        used: u32,
    ) -> Result<usize, ExecError> {
        let free = (2 * used as usize).min(pool.slots() / FREE_SHARE);
        let mut outcome = Ok(0);
        for (key, from) in pool.cache.evict_ahead(free, slots.clock) {
            let copied =
                if outcome.is_ok() { self.bring(pool, link, slots, (key, from), true) } else { Ok(None) };
            if !matches!(copied, Ok(Some(_))) {
                pool.cache.free_evicted(from);
            }
            outcome = outcome.and_then(|bytes| Ok(bytes + copied?.unwrap_or(0)));
        }
        outcome
    }

    /// Has an expert copied back from the slot that it lost; returns the bytes, `None` where it does not come
    /// back. `leaves`: nobody has the slot yet.
    fn bring(
        &mut self,
        pool: &DevicePool,
        link: &Link,
        slots: &mut ExpertSlots,
        (key, from): (ExpertKey, SlotId),
        leaves: bool,
    ) -> Result<Option<usize>, ExecError> {
        let Some((layer, to)) = make_room(slots, key) else { return Ok(None) };
        let bytes = copy_back(pool, link, slots, layer, from, to)?;
        self.recent.push(Demotion { layer, from: leaves.then_some(from), to });
        Ok(Some(bytes))
    }

    /// A fence is behind everything that was handed over.
    pub fn fence(&mut self) {
        self.fenced.append(&mut self.recent);
    }

    /// What was launched behind the last fence is done, and so are the copies before it.
    pub fn settle(&mut self, pools: &mut [Vec<DevicePool>], slots: &mut ExpertSlots) {
        for Demotion { layer, from, to } in self.fenced.drain(..) {
            let of = &slots.layout.layers[layer];
            if let (Some(from), Some(pool)) = (from, pool_of(pools, of)) {
                pool.cache.free_evicted(from);
            }
            slots.pools[of.class].fill(to);
        }
    }
}

/// A slot of the host for an expert that comes back, and the index of its layer.
fn make_room(slots: &mut ExpertSlots, key: ExpertKey) -> Option<(usize, SlotId)> {
    let layer = slots.layout.layers.binary_search_by_key(&key.layer, |layer| layer.layer).ok()?;
    let of = &slots.layout.layers[layer];
    let slot = slots.pools[of.class].cache.adopt(key, slots.clock)?;
    if let Some(lent) = &mut slots.lent {
        lent.reclaim(of.class, slot);
    }
    slots.pools[of.class].start(slot, of.parts.len());
    Some((layer, slot))
}

/// Has all parts of an expert copied; where that fails, nothing of it is under way and its slot of the host
/// is free again.
fn copy_back(
    pool: &DevicePool,
    link: &Link,
    slots: &mut ExpertSlots,
    layer: usize,
    from: SlotId,
    to: SlotId,
) -> Result<usize, ExecError> {
    let parts = slots.layout.layers[layer].parts.len();
    let copy = |part| {
        let (buffer, at) = pool.room(from, part).ok_or_else(no_slots)?;
        link.download(slots, (layer, part), (&buffer, at), to)
    };
    let copied: Result<usize, ExecError> = (0..parts).map(copy).sum();
    if copied.is_err() {
        link.wait();
        let pool = slots.pool_mut(layer);
        (0..parts).for_each(|part| pool.give_up(to, part));
    }
    copied
}
