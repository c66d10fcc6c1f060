//! Which choices of later routers are worth reading, decided by how often they were right.
//!
//! A router applied to the hidden state of an earlier layer is right about its first choices and less so
//! about its last, and the less the further on it is. How much depends on the model: synthetic Qwen3 weights
//! name the sixth of eight experts three layers on 77 times in 100, a small trained model the second of four
//! 49 times (docs/experiments.md). So every choice is held against what the layer then uses, and of each
//! layer as many are prefetched as are mostly right.

use super::PrefetchDepth;

/// Most layers ahead.
pub const HORIZON: usize = PrefetchDepth::Deep.layers() as usize;
/// Ranks that are counted separately; those behind the last count as the last.
const RANKS: usize = 16;
/// Weight of one observation: two or three tokens of a model of fifty layers.
const WEIGHT: f32 = 1.0 / 64.0;
/// What is thought of a choice that nobody has seen yet: not enough.
const UNKNOWN: f32 = 0.4;
/// A read that is wrong more often than this costs more than it brings, unless the disk idles.
const LIKELY: f32 = 0.7;
/// What an idle disk may read.
const POSSIBLE: f32 = 0.5;

/// How often predictions were right, by distance and rank.
#[derive(Clone, Debug)]
pub struct PredictionStats {
    shares: [[f32; RANKS]; HORIZON],
}

impl Default for PredictionStats {
    fn default() -> Self {
        Self { shares: [[UNKNOWN; RANKS]; HORIZON] }
    }
}

impl PredictionStats {
    /// A layer used `truth`, and a router `distance` layers before it (1 is the nearest) had named `ranked`,
    /// likeliest first.
    pub fn learn(&mut self, distance: usize, ranked: &[u32], truth: impl Fn(u32) -> bool) {
        let Some(shares) = distance.checked_sub(1).and_then(|at| self.shares.get_mut(at)) else { return };
        for (rank, expert) in ranked.iter().enumerate() {
            let share = &mut shares[rank.min(RANKS - 1)];
            *share += WEIGHT * (f32::from(u8::from(truth(*expert))) - *share);
        }
    }

    /// How many of the `used` first choices for a layer `distance` ahead to read: all of the nearest, since
    /// nobody will know better before it needs them.
    #[must_use]
    pub fn worth(&self, distance: usize, used: usize, depth: PrefetchDepth) -> usize {
        let least = match depth {
            PrefetchDepth::Off => return 0,
            _ if distance <= 1 => return used,
            PrefetchDepth::Likely => LIKELY,
            PrefetchDepth::Deep => POSSIBLE,
        };
        let share =
            |rank: usize| self.shares.get(distance - 1).map_or(0.0, |shares| shares[rank.min(RANKS - 1)]);
        (0..used).take_while(|rank| share(*rank) >= least).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router that is right about its first `right` choices, always.
    fn seen(distance: usize, right: u32) -> PredictionStats {
        let mut predictions = PredictionStats::default();
        let ranked: Vec<u32> = (0..8).collect();
        for _ in 0..200 {
            predictions.learn(distance, &ranked, |expert| expert < right);
        }
        predictions
    }

    #[test]
    fn what_came_true_is_worth_reading() {
        assert_eq!(seen(2, 5).worth(2, 8, PrefetchDepth::Likely), 5);
        assert_eq!(seen(2, 5).worth(3, 8, PrefetchDepth::Likely), 0, "nothing is known of another distance");
        assert_eq!(seen(4, 3).worth(4, 8, PrefetchDepth::Deep), 3);
        assert_eq!(seen(2, 5).worth(2, 8, PrefetchDepth::Off), 0);
    }

    #[test]
    fn the_nearest_layer_is_guessed_whatever_came_of_it() {
        assert_eq!(seen(1, 0).worth(1, 8, PrefetchDepth::Likely), 8);
        assert_eq!(PredictionStats::default().worth(1, 2, PrefetchDepth::Deep), 2);
    }

    #[test]
    fn an_idle_disk_reads_what_is_right_less_often() {
        let mut most = PredictionStats::default();
        for turn in 0..400u32 {
            most.learn(2, &[7], |_| turn % 5 < 3);
        }
        assert_eq!((most.worth(2, 1, PrefetchDepth::Likely), most.worth(2, 1, PrefetchDepth::Deep)), (0, 1));
    }

    #[test]
    fn it_forgets_and_takes_any_number_of_ranks() {
        let mut predictions = seen(2, 8);
        let many: Vec<u32> = (0..100).collect();
        for _ in 0..200 {
            predictions.learn(2, &many, |_| false);
            predictions.learn(0, &many, |_| true);
            predictions.learn(HORIZON + 1, &many, |_| true);
        }
        assert_eq!(predictions.worth(2, 100, PrefetchDepth::Deep), 0);
        assert_eq!(predictions.worth(HORIZON + 1, 8, PrefetchDepth::Deep), 0);
    }
}
