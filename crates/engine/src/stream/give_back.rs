//! Slots for something else: a context that grows takes memory from the cache of experts, whose size decides
//! nothing but how often they are read.

use super::expert_slots::ExpertSlots;
use super::slots::SlotPool;

/// Of the slots that were planned one in so many stays, whatever a context wants: with none every expert
/// would be read each time.
const STAYS: u32 = 2;

/// Slots of a pool of `planned` that may go.
fn spare(pool: &SlotPool, planned: u32) -> u32 {
    pool.slots().saturating_sub(planned.div_ceil(STAYS))
}

impl ExpertSlots {
    /// Bytes of slots that may go.
    pub fn spare_bytes(&self) -> u64 {
        if self.pages_must_stay {
            return 0;
        }
        let pools = self.pools.iter().zip(&self.planned);
        pools.map(|(pool, planned)| u64::from(spare(pool, *planned)) * pool.slot_bytes()).sum()
    }

    /// Gives up slots of at least so many bytes, as far as they may go, each class its share; returns how
    /// many bytes. No step is in progress and nothing is being read.
    pub(super) fn give_back(&mut self, bytes: u64) -> u64 {
        let all = self.spare_bytes();
        if all == 0 {
            return 0;
        }
        if let Some(population) = &self.population {
            // It would take them again.
            population.stop();
        }
        let share = (bytes as f64 / all as f64).min(1.0);
        let mut freed = 0;
        for (pool, planned) in self.pools.iter_mut().zip(&self.planned) {
            let before = pool.slots();
            let gone = (f64::from(spare(pool, *planned)) * share).ceil() as u32;
            pool.shrink(before - gone.min(before));
            freed += u64::from(before - pool.slots()) * pool.slot_bytes();
        }
        freed
    }

    /// Slots of each class.
    pub fn slot_counts(&self) -> Vec<u32> {
        self.pools.iter().map(SlotPool::slots).collect()
    }
}
