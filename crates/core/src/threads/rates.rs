//! How long steps take, by their number of tokens: only steps of about as many tokens can be compared.

use std::time::Duration;

use super::window::Work;

/// After so long a rate says nothing of now.
const STALE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
struct Rate {
    class: u32,
    s_per_token: f64,
    at: Duration,
}

/// What steps of each size took when they came last.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(Vec<Rate>);

impl Rates {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Steps that were computed until `at`.
    pub fn note(&mut self, work: &[Work], at: Duration) {
        for work in work {
            let tokens = f64::from(work.tokens.max(1)) * f64::from(work.steps);
            let rate =
                Rate { class: class(work.tokens), s_per_token: work.compute.as_secs_f64() / tokens, at };
            match self.0.iter_mut().find(|known| known.class == rate.class) {
                Some(known) => *known = rate,
                None => self.0.push(rate),
            }
        }
    }

    /// Seconds that steps took, and seconds that they would have taken at these rates; those are left out
    /// of both that nothing is known of.
    pub fn compare(&self, work: &[Work], now: Duration) -> (f64, f64) {
        let (mut took, mut would) = (0.0, 0.0);
        for work in work {
            let known =
                |rate: &&Rate| rate.class == class(work.tokens) && now.saturating_sub(rate.at) < STALE;
            if let Some(rate) = self.0.iter().find(known) {
                took += work.compute.as_secs_f64();
                would += rate.s_per_token * f64::from(work.tokens.max(1)) * f64::from(work.steps);
            }
        }
        (took, would)
    }
}

/// Up to 8 tokens each number for itself, beyond that by powers of two.
fn class(tokens: u32) -> u32 {
    if tokens <= 8 { tokens } else { 8 + tokens.ilog2() }
}
