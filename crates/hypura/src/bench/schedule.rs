//! In which order the arms run: forwards and backwards in turn (ABBA), so that a machine that drifts slower
//! or faster favours none of them.

/// One run: which round, which arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Round (pair), from 0.
    pub round: usize,
    /// Index of the arm.
    pub arm: usize,
}

/// Every arm once in each of `rounds` rounds; odd rounds go backwards.
#[must_use]
pub fn abba(arms: usize, rounds: usize) -> Vec<Turn> {
    (0..rounds)
        .flat_map(|round| {
            (0..arms).map(move |at| Turn { round, arm: if round % 2 == 0 { at } else { arms - 1 - at } })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_arms_alternate_abba() {
        let arms: Vec<usize> = abba(2, 4).iter().map(|turn| turn.arm).collect();
        assert_eq!(arms, [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(abba(0, 3), []);
        assert_eq!(abba(3, 0), []);
    }

    proptest! {
        #[test]
        fn each_arm_runs_once_a_round_and_mean_places_are_equal(arms in 1usize..5, pairs in 1usize..6) {
            let turns = abba(arms, 2 * pairs);
            let places = |arm: usize| -> Vec<usize> {
                (0..turns.len()).filter(|at| turns[*at].arm == arm).collect()
            };
            let total: usize = places(0).iter().sum();
            for arm in 0..arms {
                prop_assert_eq!(places(arm).len(), 2 * pairs);
                prop_assert_eq!(places(arm).iter().sum::<usize>(), total, "no arm is favoured by a drift");
                for (round, place) in places(arm).iter().enumerate() {
                    prop_assert_eq!(turns[*place].round, round);
                }
            }
        }
    }
}
