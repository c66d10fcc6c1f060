//! Slots for something else: a context that grows takes memory from the cache of experts, whose size decides
//! nothing but how often they are read.

use super::experts::{ExpertStreamer, Target};
use super::io::Io;
use super::slots::Slab;

/// Of the slots that were planned one in so many stays, whatever a context wants: with none every expert
/// would be read each time.
const STAYS: u32 = 2;

/// Slots of a slab of `planned` that may go.
fn spare(slab: &Slab, planned: u32) -> u32 {
    slab.slots().saturating_sub(planned.div_ceil(STAYS))
}

impl ExpertStreamer {
    /// Bytes of slots that may go.
    pub fn spare_bytes(&self) -> u64 {
        let slabs = self.slabs.iter().zip(&self.planned);
        slabs.map(|(slab, planned)| u64::from(spare(slab, *planned)) * slab.slot_bytes()).sum()
    }

    /// Gives up slots of at least so many bytes, as far as they may go, each class its share; returns how
    /// many bytes. No step is in progress.
    pub fn give_back(&mut self, io: &mut Io<Target>, bytes: u64) -> u64 {
        // Guesses may still be landing in them.
        self.abandon(io);
        let all = self.spare_bytes();
        if all == 0 {
            return 0;
        }
        let share = (bytes as f64 / all as f64).min(1.0);
        let mut freed = 0;
        for (slab, planned) in self.slabs.iter_mut().zip(&self.planned) {
            let before = slab.slots();
            let gone = (f64::from(spare(slab, *planned)) * share).ceil() as u32;
            slab.shrink(before - gone.min(before));
            freed += u64::from(before - slab.slots()) * slab.slot_bytes();
        }
        freed
    }

    /// Slots of each class.
    pub fn slot_counts(&self) -> Vec<u32> {
        self.slabs.iter().map(Slab::slots).collect()
    }
}
