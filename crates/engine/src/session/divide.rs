//! Who gets how much of a step: pure arithmetic over what the sequences want.

use crate::load::Planned;

/// Rows that may decode in one step: as many as can have all their experts of one layer in slots at the same
/// time. More would push experts through cells, where they do not stay. Whether the experts of all layers fit
/// is another matter: fewer bytes a token are read the more rows share, also when the cache is small. `slots`
/// are those of each class now.
pub(super) fn row_limit(planned: &Planned, slots: &[u32]) -> usize {
    if planned.plan.experts.is_none() {
        return usize::MAX;
    }
    let rows = planned.layout.layers.iter().map(|layer| {
        let slots = slots.get(layer.class).copied().unwrap_or(0);
        if slots >= layer.experts { usize::MAX } else { (slots / layer.used.max(1)) as usize }
    });
    rows.min().unwrap_or(usize::MAX).max(1)
}

/// What a sequence wants of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Tokens that it misses.
    pub tokens: usize,
    /// Whether its last token is among them: that one gets a row of logits.
    pub reaches_end: bool,
    /// Drafts that it would try after its last token, each with a row of logits.
    pub drafts: usize,
}

/// What a sequence gets of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Tokens that it misses.
    pub tokens: usize,
    /// Drafts after the last of them.
    pub drafts: usize,
}

/// What a step has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Tokens.
    pub tokens: usize,
    /// Rows of logits.
    pub outputs: usize,
    /// Rows that decode, see [`row_limit`].
    pub rows: usize,
}

/// Divides a step: sequences that miss one token first, at most `room.rows` of them, then the prompts in
/// equal parts, and what a short one leaves goes to the others. `turn` says who comes first. A prompt touches
/// all experts anyway, so beside one there is no limit of rows. Drafts get what nobody else wants.
pub(super) fn share(wanted: &[Wanted], room: Room, turn: usize) -> Vec<Share> {
    let mut shares = vec![Share::default(); wanted.len()];
    let mut left = room.tokens;
    let order: Vec<usize> = (0..wanted.len()).map(|at| (at + turn) % wanted.len().max(1)).collect();
    let rows = if wanted.iter().any(|wanted| wanted.tokens > 1) { usize::MAX } else { room.rows };
    for at in order.iter().filter(|at| wanted[**at].tokens == 1).take(rows) {
        let one = left.min(1);
        shares[*at].tokens = one;
        left -= one;
    }
    let mut prompts: Vec<usize> = order.iter().copied().filter(|at| wanted[*at].tokens > 1).collect();
    // The shortest first: what they leave is divided again.
    prompts.sort_by_key(|at| wanted[*at].tokens);
    for (done, at) in prompts.iter().enumerate() {
        let part = left.div_ceil(prompts.len() - done).min(wanted[*at].tokens).min(left);
        shares[*at].tokens = part;
        left -= part;
    }
    let at_end = |at: usize, shares: &[Share]| {
        wanted[at].reaches_end && shares[at].tokens == wanted[at].tokens && shares[at].tokens > 0
    };
    let outputs = order.iter().filter(|at| at_end(**at, &shares)).count();
    let decoding = shares.iter().filter(|share| share.tokens > 0).count();
    left = left.min(room.outputs.saturating_sub(outputs)).min(rows.saturating_sub(decoding));
    for at in order {
        if at_end(at, &shares) {
            let drafts = wanted[at].drafts.min(left);
            shares[at].drafts = drafts;
            left -= drafts;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::{Room, Share, Wanted, share};
    use proptest::prelude::*;

    fn tokens_of(wanted: &[usize], room: usize, rows: usize, turn: usize) -> Vec<usize> {
        let wanted: Vec<Wanted> =
            wanted.iter().map(|tokens| Wanted { tokens: *tokens, ..Wanted::default() }).collect();
        let room = Room { tokens: room, outputs: usize::MAX, rows };
        share(&wanted, room, turn).iter().map(|share| share.tokens).collect()
    }

    #[test]
    fn one_prompt_gets_the_whole_batch_and_decodes_come_first() {
        assert_eq!(tokens_of(&[40], 24, 9, 3), [24]);
        assert_eq!(tokens_of(&[1, 100, 1], 10, 1, 0), [1, 8, 1]);
        assert_eq!(tokens_of(&[3, 100, 100], 23, 9, 0), [3, 10, 10]);
        assert_eq!(tokens_of(&[0, 5], 8, 9, 1), [0, 5]);
        assert!(tokens_of(&[], 8, 9, 5).is_empty());
    }

    #[test]
    fn with_more_sequences_than_room_each_gets_its_turn() {
        let mut served = [0; 5];
        for (room, rows) in [(2, 9), (9, 2)] {
            for turn in 0..5 {
                for (total, part) in served.iter_mut().zip(tokens_of(&[1; 5], room, rows, turn)) {
                    *total += part;
                }
            }
        }
        assert_eq!(served, [4; 5]);
    }

    #[test]
    fn drafts_get_what_nobody_else_wants() {
        let decode = Wanted { tokens: 1, reaches_end: true, drafts: 3 };
        let prompt = Wanted { tokens: 50, reaches_end: true, drafts: 0 };
        let all = Room { tokens: 100, outputs: 100, rows: 100 };
        let drafts = |wanted: &[Wanted], room: Room, turn: usize| -> Vec<usize> {
            share(wanted, room, turn).iter().map(|share| share.drafts).collect()
        };
        assert_eq!(drafts(&[decode, decode], all, 0), [3, 3]);
        assert_eq!(drafts(&[decode, decode], Room { tokens: 6, ..all }, 0), [3, 1]);
        assert_eq!(drafts(&[decode, decode], Room { tokens: 6, ..all }, 1), [1, 3]);
        assert_eq!(drafts(&[decode, decode], Room { outputs: 4, ..all }, 0), [2, 0]);
        assert_eq!(drafts(&[decode, decode], Room { rows: 3, ..all }, 0), [1, 0]);
        // Beside a prompt that takes all there is, and beside one that leaves something, where rows add no
        // experts.
        assert_eq!(drafts(&[decode, prompt], Room { tokens: 40, ..all }, 0), [0, 0]);
        assert_eq!(drafts(&[decode, prompt], Room { rows: 2, ..all }, 0), [3, 0]);
        // A sequence of which more is to come first has no use for them.
        assert_eq!(drafts(&[Wanted { reaches_end: false, ..decode }], all, 0), [0]);
        let cut = Wanted { tokens: 8, reaches_end: true, drafts: 3 };
        assert_eq!(share(&[cut], Room { tokens: 7, ..all }, 0), [Share { tokens: 7, drafts: 0 }]);
        assert_eq!(share(&[cut], Room { tokens: 10, ..all }, 0), [Share { tokens: 8, drafts: 2 }]);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_wanted_and_no_room_is_wasted(
            wanted in prop::collection::vec(0usize..50, 0..9), room in 1usize..64, turn in 0usize..20,
        ) {
            let shares = tokens_of(&wanted, room, usize::MAX, turn);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
            let total: usize = wanted.iter().sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(room));
        }

        #[test]
        fn a_step_never_gets_more_than_it_has_room_for(
            wanted in prop::collection::vec((0usize..9, any::<bool>(), 0usize..9), 0..9),
            tokens in 1usize..40, rows in 1usize..12, turn in 0usize..20,
        ) {
            let wanted: Vec<Wanted> = wanted
                .into_iter()
                .map(|(tokens, reaches_end, drafts)| Wanted { tokens, reaches_end, drafts })
                .collect();
            // A context has an output for each sequence.
            let outputs = wanted.len() + 3;
            let shares = share(&wanted, Room { tokens, outputs, rows }, turn);
            let all: usize = shares.iter().map(|share| share.tokens + share.drafts).sum();
            prop_assert!(all <= tokens);
            let logits = shares.iter().zip(&wanted).filter(|(share, wanted)| {
                wanted.reaches_end && share.tokens > 0 && share.tokens == wanted.tokens
            });
            prop_assert!(logits.map(|(share, _)| 1 + share.drafts).sum::<usize>() <= outputs);
            if wanted.iter().all(|wanted| wanted.tokens <= 1) {
                prop_assert!(all <= rows);
            }
            let is_fair = |(share, wanted): (&Share, &Wanted)| {
                share.drafts <= wanted.drafts && (share.drafts == 0 || wanted.reaches_end)
            };
            prop_assert!(shares.iter().zip(&wanted).all(is_fair));
        }
    }
}
