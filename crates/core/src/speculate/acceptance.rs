//! How often drafts come true: by class of confidence and by position, given that all before did.
//!
//! Counts are decayed, so that what was seen some fifty drafts ago hardly counts: acceptance changes with the
//! text.

use super::draft::{Confidence, Draft, Source};

/// Each observation leaves so much of those before it.
const DECAY: f64 = 0.98;
/// The prior counts as many observations as this.
const PRIOR_WEIGHT: f64 = 4.0;
/// Groups of positions: the first, the second, the next two, all others.
const POSITIONS: usize = 4;
/// Acceptance of the first token of a source before anything was seen.
const FIRST_PRIOR: f64 = 0.6;

/// What became of drafts in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Drafts that came true, from the first.
    pub accepted: usize,
    /// Whether the next one was found wrong: not where the answer ended, or no further one was tried.
    pub rejected: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    accepted: f64,
    seen: f64,
}

/// What was learned of drafts.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    classes: [[Counts; POSITIONS]; Confidence::CLASSES],
    /// By source and position, whatever the confidence: what is known of drafts that are not made yet.
    sources: [[Counts; POSITIONS]; 2],
}

impl Counts {
    fn observe(&mut self, accepted: bool) {
        self.accepted = self.accepted * DECAY + f64::from(u8::from(accepted));
        self.seen = self.seen * DECAY + 1.0;
    }

    fn rate(self, prior: f64) -> f64 {
        (self.accepted + prior * PRIOR_WEIGHT) / (self.seen + PRIOR_WEIGHT)
    }
}

const fn group(position: usize) -> usize {
    match position {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        _ => 3,
    }
}

const fn row(source: Source) -> usize {
    match source {
        Source::Lookup => 0,
        Source::Model => 1,
    }
}

impl Acceptance {
    /// The probability that a draft at this position comes true where all before it did.
    #[must_use]
    pub fn of(&self, confidence: Confidence, position: usize) -> f64 {
        self.classes[confidence.class()][group(position)].rate(confidence.prior())
    }

    /// The same of a draft of which only the source is known.
    #[must_use]
    pub fn of_source(&self, source: Source, position: usize) -> f64 {
        self.sources[row(source)][group(position)].rate(FIRST_PRIOR)
    }

    /// How many of these drafts are expected to come true, for each number of them that is tried: one more
    /// value than drafts, the first 0.
    #[must_use]
    pub fn expected(&self, drafts: &[Draft]) -> Vec<f64> {
        let mut expected = vec![0.0];
        let (mut sum, mut all) = (0.0, 1.0);
        for (position, draft) in drafts.iter().enumerate() {
            all *= self.of(draft.confidence, position);
            sum += all;
            expected.push(sum);
        }
        expected
    }

    /// Learns what became of drafts that were tried.
    pub fn observe(&mut self, drafts: &[Draft], verdict: Verdict) {
        let known = verdict.accepted + usize::from(verdict.rejected);
        for (position, draft) in drafts.iter().enumerate().take(known) {
            let accepted = position < verdict.accepted;
            let (class, source) = (draft.confidence.class(), row(draft.confidence.source()));
            self.classes[class][group(position)].observe(accepted);
            self.sources[source][group(position)].observe(accepted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(count: usize) -> Vec<Draft> {
        vec![Draft { token: 1, confidence: Confidence::Probability(0.99) }; count]
    }

    #[test]
    fn acceptance_is_learned_by_position_and_only_of_what_was_looked_at() {
        let mut acceptance = Acceptance::default();
        let before = acceptance.of(Confidence::Probability(0.99), 1);
        for _ in 0..200 {
            acceptance.observe(&sure(3), Verdict { accepted: 1, rejected: true });
        }
        assert!(acceptance.of(Confidence::Probability(0.99), 0) > 0.97);
        assert!(acceptance.of(Confidence::Probability(0.99), 1) < 0.1 && before > 0.9);
        assert!(acceptance.of(Confidence::Probability(0.99), 2) > 0.9, "nobody looked at the third");
        assert!(acceptance.of(Confidence::Probability(0.4), 0) < 0.5, "another class");
        assert!(
            acceptance.of_source(Source::Model, 0) > 0.95 && acceptance.of_source(Source::Lookup, 0) < 0.7
        );
    }

    #[test]
    fn an_answer_that_ended_says_nothing_of_the_next_draft() {
        let mut acceptance = Acceptance::default();
        let before = acceptance.of(Confidence::Probability(0.99), 1);
        acceptance.observe(&sure(3), Verdict { accepted: 1, rejected: false });
        assert!((acceptance.of(Confidence::Probability(0.99), 1) - before).abs() < 1e-12);
    }

    #[test]
    fn expectations_grow_and_never_by_more_than_one() {
        let acceptance = Acceptance::default();
        let expected = acceptance.expected(&sure(6));
        assert_eq!(expected.len(), 7);
        assert!(expected.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] <= 1.0));
    }
}
