//! Acceptance that a benchmark forces: of the tokens that an answer is forced to have, so many are proposed,
//! and another token where the curve says that the draft is wrong. A draft model, if there is one, drafts as
//! many, for the time that this takes; what it says is not used.

use hypura_core::random::SplitMix64;
use hypura_core::speculate::{AcceptanceCurve, Confidence, Draft};
use hypura_ggml::{DecodeError, Token};

use super::model::DraftModel;
use super::proposer::{Ask, Proposer};

const SEED: u64 = 17;

/// Forces acceptance.
pub(super) struct Forced {
    curve: AcceptanceCurve,
    random: SplitMix64,
}

impl Forced {
    pub fn new(curve: AcceptanceCurve) -> Self {
        Self { curve, random: SplitMix64::new(SEED) }
    }

    /// Drafts of `next`, the tokens that the answer goes on with.
    pub fn propose(
        &mut self,
        ask: &Ask<'_>,
        next: &[Token],
        model: Option<&mut DraftModel>,
        goes_on: &mut dyn FnMut(&[Draft]) -> bool,
    ) -> Result<Vec<Draft>, DecodeError> {
        let mut drafts: Vec<Draft> =
            next.iter().take(ask.most).enumerate().map(|draft| self.draft(draft)).collect();
        let Some(model) = model else { return Ok(drafts) };
        let made =
            model.propose(ask, &mut |made| made.len() < drafts.len() && goes_on(&drafts[..made.len()]))?;
        drafts.truncate(made.len());
        Ok(drafts)
    }

    fn draft(&mut self, (position, token): (usize, &Token)) -> Draft {
        const PARTS: u64 = 1 << 20;
        let rate = self.curve.at(position);
        let is_right = (self.random.below(PARTS) as f64) < rate * PARTS as f64;
        let token = if is_right { *token } else { token ^ 1 };
        Draft { token, confidence: Confidence::Probability(rate as f32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_drafts_are_right_as_the_curve_says() {
        let mut forced = Forced::new("0.9,0.5".parse().unwrap());
        let next: Vec<Token> = (0..8).collect();
        let mut right = [0; 2];
        for _ in 0..4000 {
            let ask = Ask { id: 1, row: 0, tokens: &[1], generated: 0, most: 2 };
            let drafts = forced.propose(&ask, &next, None, &mut |_| true).unwrap();
            assert_eq!(drafts.len(), 2);
            for (at, draft) in drafts.iter().enumerate() {
                right[at] += usize::from(draft.token == next[at]);
            }
        }
        assert!(right[0].abs_diff(3600) < 100 && right[1].abs_diff(2000) < 150, "{right:?}");
    }
}
