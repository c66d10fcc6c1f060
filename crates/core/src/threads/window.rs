//! What is measured of steps.

use std::time::Duration;

/// Steps of equally many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Tokens of each step.
    pub tokens: u32,
    /// How many steps there were.
    pub steps: u32,
    /// Time in which they were computed, waits for the disk left out.
    pub compute: Duration,
}

/// What was measured during some steps, all of them with the numbers of threads that the policy had said.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// When it ended, since any fixed moment.
    pub end: Duration,
    /// From the start of its first step.
    pub length: Duration,
    /// Time that computing threads waited for a core while they had something to do, added up.
    pub waited: Duration,
    /// Cores that had nothing to do, on average; `None`: not known.
    pub idle_cores: Option<f64>,
    /// The steps.
    pub work: &'a [Work],
}

impl Window<'_> {
    /// How many threads waited for a core, on average.
    pub(super) fn waiting(&self) -> f64 {
        let compute: Duration = self.work.iter().map(|work| work.compute).sum();
        let compute_s = compute.as_secs_f64();
        if compute_s > 0.0 { self.waited.as_secs_f64() / compute_s } else { 0.0 }
    }
}
