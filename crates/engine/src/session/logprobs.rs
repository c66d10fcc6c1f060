//! Log-probabilities from a row of raw logits, before any sampler touched it.

use hypura_ggml::Token;

/// A token and how likely it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Likely {
    pub token: Token,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Log-probabilities of one position.
pub(crate) struct Logprobs<'a> {
    logits: &'a [f32],
    /// Logarithm of the sum of the exponentials.
    norm: f64,
}

impl<'a> Logprobs<'a> {
    /// Normalises a row of logits.
    pub fn new(logits: &'a [f32]) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        Self { logits, norm: f64::from(most) + sum.ln() }
    }

    /// The log-probability of a token; minus infinity for one that does not exist.
    pub fn of(&self, token: Token) -> f32 {
        let logit = usize::try_from(token).ok().and_then(|index| self.logits.get(index));
        logit.map_or(f32::NEG_INFINITY, |logit| (f64::from(*logit) - self.norm) as f32)
    }

    /// The likeliest tokens, likeliest first; of equals the lower id first.
    pub fn top(&self, count: usize) -> Vec<Likely> {
        let count = count.min(self.logits.len());
        if count == 0 {
            return Vec::new();
        }
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        let by_logit =
            |a: &usize, b: &usize| self.logits[*b].total_cmp(&self.logits[*a]).then_with(|| a.cmp(b));
        if count < order.len() {
            order.select_nth_unstable_by(count - 1, by_logit);
            order.truncate(count);
        }
        order.sort_unstable_by(by_logit);
        order
            .into_iter()
            .filter_map(|index| Token::try_from(index).ok())
            .map(|token| Likely { token, logprob: self.of(token) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_come_first() {
        let logits = [1.0f32, 3.0, 3.0, -2.0];
        let logprobs = Logprobs::new(&logits);
        let sum: f32 = (0..4).map(|token| logprobs.of(token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        let order: Vec<Token> = logprobs.top(3).iter().map(|likely| likely.token).collect();
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(logprobs.top(9).len(), 4);
        assert!(logprobs.top(0).is_empty());
        assert_eq!(logprobs.of(7), f32::NEG_INFINITY);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let logprobs = Logprobs::new(&[900.0, 900.0]);
        assert!((logprobs.of(0) - 0.5f32.ln()).abs() < 1e-5);
    }
}
