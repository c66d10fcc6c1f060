//! Experts that a device evicts come back to the host's memory, where that has not room for all of them.
//!
//! An expert is then in one memory or the other, and both together hold as many as they have slots. What the
//! device has too is spare in the host's memory and goes first, so that it is usually where an evicted expert
//! comes to. Bytes come back by the way that uploads take, before anything is uploaded to where they were.
//!
//! A slot of the host that an expert comes back to is Loading until the copy is known to be done: when what
//! was launched behind a later fence is.

use hypura_core::cache::{ExpertKey, SlotId};
use hypura_ggml::ExecError;

use super::link::Link;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::slots::device::DevicePool;
use crate::stream::target::no_slots;

/// Experts on their way back: the index of their layer, and their slot in the host's memory.
#[derive(Default)]
pub(super) struct Demotions {
    /// No fence is behind their copies yet.
    recent: Vec<(usize, SlotId)>,
    fenced: Vec<(usize, SlotId)>,
}

impl Demotions {
    /// Whether experts of a layer are on their way.
    pub fn are_out(&self, layer: usize) -> bool {
        self.recent.iter().chain(&self.fenced).any(|(of, _)| *of == layer)
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
            let Some((layer, to)) = make_room(slots, key) else { continue };
            let copied = copy_back(pool, link, slots, layer, from, to);
            match &copied {
                Ok(_) => self.recent.push((layer, to)),
                Err(_) => {
                    link.wait();
                    let parts = slots.layout.layers[layer].parts.len();
                    let pool = &mut slots.pools[slots.layout.layers[layer].class];
                    (0..parts).for_each(|part| pool.give_up(to, part));
                }
            }
            bytes += copied?;
        }
        if bytes > 0 {
            link.barrier();
        }
        Ok(bytes)
    }

    /// A fence is behind everything that was handed over.
    pub fn fence(&mut self) {
        self.fenced.append(&mut self.recent);
    }

    /// What was launched behind the last fence is done, and so are the copies before it.
    pub fn settle(&mut self, slots: &mut ExpertSlots) {
        for (layer, slot) in self.fenced.drain(..) {
            slots.pools[slots.layout.layers[layer].class].fill(slot);
        }
    }
}

/// A slot of the host for an expert that comes back, and the index of its layer.
fn make_room(slots: &mut ExpertSlots, key: ExpertKey) -> Option<(usize, SlotId)> {
    let layer = slots.layout.layers.iter().position(|layer| layer.layer == key.layer)?;
    let of = &slots.layout.layers[layer];
    let slot = slots.pools[of.class].cache.adopt(key, slots.clock)?;
    if let Some(lent) = &mut slots.lent {
        lent.reclaim(of.class, slot);
    }
    slots.pools[of.class].start(slot, of.parts.len());
    Some((layer, slot))
}

fn copy_back(
    pool: &DevicePool,
    link: &Link,
    slots: &ExpertSlots,
    layer: usize,
    from: SlotId,
    to: SlotId,
) -> Result<usize, ExecError> {
    let mut bytes = 0;
    for part in 0..slots.layout.layers[layer].parts.len() {
        let (buffer, at) = pool.room(from, part).ok_or_else(no_slots)?;
        bytes += link.download(slots, (layer, part), (&buffer, at), to)?;
    }
    Ok(bytes)
}
