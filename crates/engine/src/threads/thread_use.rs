//! How many threads computed, and why.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::profile::DISTURBED_SHARE;

/// How many threads computed, since the model was loaded; counters only ever increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUse {
    /// Threads that a step has on a quiet machine.
    pub most: u32,
    /// Threads of the last step.
    pub last: u32,
    /// Steps: decodes of one or more tokens.
    pub steps: u64,
    /// Of those, the ones that fewer threads computed, because other programs used the cores.
    pub steps_with_fewer: u64,
    /// Time in which steps were computed, waits for the disk left out.
    pub compute: Duration,
    /// The part of it with fewer threads.
    pub compute_with_fewer: Duration,
    /// Time that computing threads waited for a core while they had something to do, added up; `None`: not
    /// measured, because the number of threads is fixed or the system does not count it.
    pub waited: Option<Duration>,
}

impl ThreadUse {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            most: self.most,
            last: self.last,
            steps: self.steps - earlier.steps,
            steps_with_fewer: self.steps_with_fewer - earlier.steps_with_fewer,
            compute: self.compute.saturating_sub(earlier.compute),
            compute_with_fewer: self.compute_with_fewer.saturating_sub(earlier.compute_with_fewer),
            waited: self.waited.map(|waited| waited.saturating_sub(earlier.waited.unwrap_or_default())),
        }
    }

    /// Whether threads waited for cores for a tenth of the time, or fewer of them computed.
    #[must_use]
    pub fn was_disturbed(&self) -> bool {
        let most = self.compute.mul_f64(DISTURBED_SHARE);
        let waited = self.waited.unwrap_or_default() / self.most.max(1);
        self.compute_with_fewer > most || waited > most
    }
}
