//! Slots of a device with guesses whose uploads no fence is behind yet. They count as loading until then, so
//! that no slot is given to another expert while an upload to it is out.

use hypura_core::cache::SlotId;
use hypura_core::plan::ExpertLayout;

use crate::stream::slots::device::{DevicePool, pool_of};

/// Each with the index of its layer.
#[derive(Default)]
pub(super) struct GuessedSlots(Vec<(usize, SlotId)>);

impl GuessedSlots {
    /// A guess is being uploaded to a slot.
    pub fn push(&mut self, layer: usize, slot: SlotId) {
        self.0.push((layer, slot));
    }

    /// A fence is behind the uploads, or they have been waited for.
    pub fn complete(&mut self, pools: &mut [Vec<DevicePool>], layout: &ExpertLayout) {
        for (layer, slot) in self.0.drain(..) {
            if let Some(pool) = pool_of(pools, &layout.layers[layer]) {
                pool.cache.complete(slot, true);
            }
        }
    }
}
