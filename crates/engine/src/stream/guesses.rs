//! Experts to read ahead when the disk has time: guesses about the next layers, likeliest first.

use hypura_core::cache::ExpertKey;
use hypura_core::prefetch::QUEUE;
use hypura_storage::Priority;
use std::collections::VecDeque;

use super::expert_slots::ExpertSlots;
use super::io::Io;
use super::layer_reads::slot_reads;
use super::prefetcher::Guess;
use super::target::Target;

/// Bounds of the disk's queue ([`QUEUE`]) in bytes: for a disk that has not shown yet what it does, and for
/// one whose rate was never slow.
const QUEUE_BYTES: (usize, usize) = (3 << 20, 16 << 20);

/// Guesses that no read has been started for.
pub(super) struct GuessQueue {
    guesses: VecDeque<Guess>,
    /// Bytes at the disk beyond which it has enough to do.
    queue_bytes: usize,
}

impl Default for GuessQueue {
    fn default() -> Self {
        Self { guesses: VecDeque::new(), queue_bytes: QUEUE_BYTES.0 }
    }
}

impl GuessQueue {
    /// A pass over the layers begins: nothing is guessed yet, and the disk's rate is known anew.
    pub fn begin_pass(&mut self, io: &Io<Target>) {
        self.guesses.clear();
        self.queue_bytes = io.bytes_in(QUEUE).clamp(QUEUE_BYTES.0, QUEUE_BYTES.1);
    }

    /// What the next layers will probably want replaces what they were thought to want.
    pub fn replace(&mut self, guesses: Vec<Guess>) {
        self.guesses = guesses.into();
    }

    pub fn clear(&mut self) {
        self.guesses.clear();
    }

    /// Starts reads, likeliest first, while the disk has too little to do; as far as the experts are absent
    /// and there is room that nobody needs more.
    pub fn issue(&mut self, slots: &mut ExpertSlots, io: &mut Io<Target>) {
        let mut backlog = io.backlog_bytes();
        let mut reads = Vec::new();
        while backlog < self.queue_bytes {
            let Some(Guess { layer: index, expert }) = self.guesses.pop_front() else { break };
            let layer = &slots.layout.layers[index];
            let pool = &mut slots.pools[layer.class];
            if let Some(slot) = pool.cache.prefetch(ExpertKey::new(layer.layer, expert), slots.clock) {
                if let Some(lent) = &mut slots.lent {
                    lent.reclaim(layer.class, slot);
                }
                pool.start(slot, layer.parts.len());
                let parts: Vec<usize> = (0..layer.parts.len()).collect();
                reads.extend(slot_reads(layer, index, pool, &[(expert, slot)], &parts, Priority::Prefetch));
                backlog += layer.parts.iter().map(|part| part.slice_bytes).sum::<usize>();
            }
        }
        io.submit(reads);
    }
}
