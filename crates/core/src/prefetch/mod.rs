//! Prefetching experts: choosing from a router's scores, and deciding by measurement whether it pays.
//!
//! A prediction only moves bytes in time; it saves none, and a wrong one costs disk time and perhaps a slot.
//! Others have measured anything from +17% to −21%, so a controller compares token times with and without,
//! again and again.

mod controller;
mod prediction_stats;

pub use controller::{Controllers, PrefetchDepth};
pub use prediction_stats::{HORIZON, PredictionStats};
use std::time::Duration;

/// Work that the disk is given beyond what is waited for: guessed experts are read while it has less to do
/// than it does in this time. Enough that it does not run dry while a layer's attention is computed and no
/// read is issued, little enough that a demand read does not wait long.
pub const QUEUE: Duration = Duration::from_millis(2);

/// The `used` best-scored experts of each row of `scores` (rows of `experts` scores), each expert once, best
/// rows first.
#[must_use]
pub fn top_experts(scores: &[f32], experts: usize, used: usize) -> Vec<u32> {
    let mut chosen = Vec::new();
    if experts == 0 {
        return chosen;
    }
    for row in scores.chunks_exact(experts) {
        let mut order: Vec<u32> = (0..u32::try_from(experts).unwrap_or(u32::MAX)).collect();
        let by_score = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        let used = used.min(experts);
        if used < experts {
            order.select_nth_unstable_by(used, by_score);
            order.truncate(used);
        }
        order.sort_unstable_by(by_score);
        for expert in order {
            if !chosen.contains(&expert) {
                chosen.push(expert);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::top_experts;

    #[test]
    fn the_best_come_first_and_once() {
        assert_eq!(top_experts(&[0.1, 0.9, 0.5, 0.7], 4, 2), [1, 3]);
        assert_eq!(top_experts(&[0.1, 0.9, 0.5, 0.7, 1.0, 0.9, 0.0, 0.0], 4, 2), [1, 3, 0]);
        assert_eq!(top_experts(&[f32::NAN, 1.0], 2, 5).len(), 2);
        assert!(top_experts(&[], 4, 2).is_empty());
        assert!(top_experts(&[1.0], 0, 2).is_empty());
    }
}
