//! What became of drafts, in numbers.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Positions of drafts that are counted apart.
pub const POSITIONS: usize = 16;

/// Counters of drafts, of an answer or of a model since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeculationStats {
    /// Drafts that were computed.
    pub proposed: u64,
    /// Those that came true.
    pub accepted: u64,
    /// Steps of a sequence that had drafts.
    pub steps: u64,
    /// Drafts that came true, by position.
    pub accepted_at: [u64; POSITIONS],
    /// Time for making drafts.
    pub drafting: Duration,
}

impl SpeculationStats {
    /// Counts a step of a sequence.
    pub(crate) fn count(&mut self, proposed: usize, accepted: usize) {
        if proposed == 0 {
            return;
        }
        self.proposed += proposed as u64;
        self.accepted += accepted as u64;
        self.steps += 1;
        self.accepted_at.iter_mut().take(accepted).for_each(|count| *count += 1);
    }

    /// Adds what another answer had.
    pub fn add(&mut self, other: &Self) {
        self.proposed += other.proposed;
        self.accepted += other.accepted;
        self.steps += other.steps;
        self.drafting += other.drafting;
        self.accepted_at.iter_mut().zip(other.accepted_at).for_each(|(count, more)| *count += more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_counted_by_position_and_steps_without_any_are_not() {
        let mut stats = SpeculationStats::default();
        stats.count(0, 0);
        stats.count(3, 2);
        stats.count(40, 40);
        assert_eq!((stats.proposed, stats.accepted, stats.steps), (43, 42, 2));
        assert_eq!((stats.accepted_at[1], stats.accepted_at[2], stats.accepted_at[15]), (2, 1, 1));
        let mut both = stats;
        both.add(&stats);
        assert_eq!((both.proposed, both.accepted_at[0]), (86, 4));
    }
}
