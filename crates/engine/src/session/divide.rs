//! Who gets how much of a step: pure arithmetic over what the sequences want.

use hypura_core::plan::Mode;

use crate::load::Planned;

/// Rows that may decode in one step: as many as can have all their experts of one layer in slots at the same time. More would
/// push experts through cells, where they do not stay. Whether the experts of all layers fit is another matter: fewer bytes a
/// token are read the more rows share, also when the cache is small.
pub(super) fn most_rows(planned: &Planned) -> usize {
    if !matches!(planned.plan.mode, Mode::ExpertStreaming | Mode::MixedStreaming) {
        return usize::MAX;
    }
    let rows = planned.layout.layers.iter().map(|layer| {
        let slots = planned.plan.slots.get(layer.class).copied().unwrap_or(0);
        if slots >= layer.experts { usize::MAX } else { (slots / layer.used.max(1)) as usize }
    });
    rows.min().unwrap_or(usize::MAX).max(1)
}

/// Divides the room of a batch: sequences that miss one token first, at most `rows` of them, then the prompts in equal parts,
/// and what a short one leaves goes to the others. `turn` says who comes first. A prompt touches all experts anyway, so beside
/// one there is no limit of rows.
pub(super) fn share(wanted: &[usize], room: usize, rows: usize, turn: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let mut left = room;
    let order: Vec<usize> = (0..wanted.len()).map(|at| (at + turn) % wanted.len().max(1)).collect();
    let rows = if wanted.iter().any(|wanted| *wanted > 1) { usize::MAX } else { rows };
    for at in order.iter().filter(|at| wanted[**at] == 1).take(rows) {
        let one = left.min(1);
        shares[*at] = one;
        left -= one;
    }
    let mut hungry: Vec<usize> = order.into_iter().filter(|at| wanted[*at] > 1).collect();
    // The shortest first: what they leave is divided again.
    hungry.sort_by_key(|at| wanted[*at]);
    for (done, at) in hungry.iter().enumerate() {
        let part = left.div_ceil(hungry.len() - done).min(wanted[*at]).min(left);
        shares[*at] = part;
        left -= part;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::share;
    use proptest::prelude::*;

    #[test]
    fn one_prompt_gets_the_whole_batch_and_decodes_come_first() {
        assert_eq!(share(&[40], 24, 9, 3), [24]);
        assert_eq!(share(&[1, 100, 1], 10, 1, 0), [1, 8, 1]);
        assert_eq!(share(&[3, 100, 100], 23, 9, 0), [3, 10, 10]);
        assert_eq!(share(&[0, 5], 8, 9, 1), [0, 5]);
        assert!(share(&[], 8, 9, 5).is_empty());
    }

    #[test]
    fn with_more_sequences_than_room_each_gets_its_turn() {
        let mut served = [0; 5];
        for (room, rows) in [(2, 9), (9, 2)] {
            for turn in 0..5 {
                for (total, part) in served.iter_mut().zip(share(&[1; 5], room, rows, turn)) {
                    *total += part;
                }
            }
        }
        assert_eq!(served, [4; 5]);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_wanted_and_no_room_is_wasted(
            wanted in prop::collection::vec(0usize..50, 0..9), room in 1usize..64, turn in 0usize..20,
        ) {
            let shares = share(&wanted, room, usize::MAX, turn);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
            let total: usize = wanted.iter().sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(room));
        }
    }
}
