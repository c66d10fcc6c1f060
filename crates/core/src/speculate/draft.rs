//! A proposed token, and how sure its proposer is of it.

/// Who proposed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Prompt lookup.
    Lookup,
    /// A draft model.
    Model,
}

/// How sure a proposer is of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Confidence {
    /// It follows a copy of the last so many tokens.
    Match(u32),
    /// The draft model gives it this probability.
    Probability(f32),
}

/// A token that may come next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draft {
    /// Its id.
    pub token: i32,
    /// How sure its proposer is of it.
    pub confidence: Confidence,
}

impl Confidence {
    /// Classes of confidence; acceptance is learned for each.
    pub(super) const CLASSES: usize = 11;

    /// Who is that sure.
    #[must_use]
    pub const fn source(self) -> Source {
        match self {
            Self::Match(_) => Source::Lookup,
            Self::Probability(_) => Source::Model,
        }
    }

    /// The class, below [`Self::CLASSES`].
    pub(super) fn class(self) -> usize {
        match self {
            Self::Match(0..=2) => 0,
            Self::Match(3..=4) => 1,
            Self::Match(5..=8) => 2,
            Self::Match(9..=16) => 3,
            Self::Match(_) => 4,
            Self::Probability(p) => {
                5 + [0.3, 0.5, 0.7, 0.85, 0.95].iter().filter(|limit| p >= **limit).count()
            }
        }
    }

    /// What is taken for the probability that a token of this class comes true, before anything was seen.
    pub(super) fn prior(self) -> f64 {
        const PRIORS: [f64; Confidence::CLASSES] =
            [0.3, 0.45, 0.6, 0.75, 0.85, 0.15, 0.35, 0.5, 0.65, 0.8, 0.93];
        PRIORS[self.class()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_range_and_surer_ones_have_higher_priors() {
        for confidences in [
            [1, 2, 3, 5, 9, 17, u32::MAX].map(Confidence::Match).as_slice(),
            [f32::NAN, -1.0, 0.0, 0.4, 0.6, 0.8, 0.9, 1.0].map(Confidence::Probability).as_slice(),
        ] {
            assert!(confidences.iter().all(|confidence| confidence.class() < Confidence::CLASSES));
            assert!(confidences.windows(2).all(|pair| pair[0].prior() <= pair[1].prior()));
        }
    }
}
