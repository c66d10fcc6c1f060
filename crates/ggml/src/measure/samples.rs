//! Samples of a measurement: which count, how long to go on, and what they come to. No clock.

use std::time::Duration;

/// So many undisturbed samples say what is usual.
pub(super) const ENOUGH_CLEAN: u32 = 3;
/// Where others disturb, a measurement goes on until it has them, for so many times its duration at most.
const PATIENCE: u32 = 3;

/// Samples that are being taken.
pub(super) struct Sampling {
    duration: Duration,
    /// Since it began.
    elapsed: Duration,
    /// How long threads had waited for cores after the last sample.
    waited: Duration,
    clean: Vec<f64>,
    disturbed: Vec<f64>,
}

/// What samples came to.
#[derive(Debug, PartialEq)]
pub(super) struct Samples {
    pub usual_s: f64,
    pub runs: u32,
    pub clean: u32,
}

impl Sampling {
    /// For about `duration`; threads have `waited` for cores so far.
    pub fn begin(duration: Duration, waited: Duration) -> Self {
        Self { duration, elapsed: Duration::ZERO, waited, clean: Vec::new(), disturbed: Vec::new() }
    }

    /// A sample took so long, after which threads have `waited` for cores. Whether that is enough.
    pub fn add(&mut self, took: Duration, waited: Duration) -> bool {
        let samples = if waited == self.waited { &mut self.clean } else { &mut self.disturbed };
        samples.push(took.as_secs_f64());
        self.waited = waited;
        self.elapsed += took;
        let limit = if self.are_enough() { self.duration } else { self.duration * PATIENCE };
        self.elapsed >= limit
    }

    fn are_enough(&self) -> bool {
        self.clean.len() >= ENOUGH_CLEAN as usize || self.disturbed.is_empty()
    }

    pub fn end(mut self) -> Samples {
        let count = |samples: &[f64]| u32::try_from(samples.len()).unwrap_or(u32::MAX);
        let (clean, disturbed) = (count(&self.clean), count(&self.disturbed));
        self.clean.sort_by(f64::total_cmp);
        let least = self.clean.iter().chain(&self.disturbed).copied().fold(f64::MAX, f64::min);
        let median = self.clean.get(self.clean.len() / 2).copied().filter(|_| self.are_enough());
        Samples { usual_s: median.unwrap_or(least), runs: clean.saturating_add(disturbed), clean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Samples of so many milliseconds, and whether others disturbed them, until there are enough.
    fn of(samples: &[(u32, bool)]) -> (Samples, usize) {
        let mut sampling = Sampling::begin(100 * MS, MS);
        let mut waited = MS;
        let enough = samples.iter().position(|(ms, disturbed)| {
            waited += if *disturbed { MS } else { Duration::ZERO };
            sampling.add(*ms * MS, waited)
        });
        (sampling.end(), enough.map_or(samples.len(), |at| at + 1))
    }

    #[test]
    fn the_median_of_those_that_nobody_disturbed_counts() {
        let beside = [(90, true), (20, false), (70, true), (10, false), (30, false), (5, false)];
        let (samples, taken) = of(&beside);
        assert_eq!((samples.usual_s, samples.runs, samples.clean, taken), (0.02, 5, 3, 5));
    }

    #[test]
    fn without_enough_of_them_it_goes_on_for_a_while_and_takes_the_quickest() {
        let (samples, taken) = of(&[(40, true); 20]);
        assert_eq!((samples.usual_s, samples.clean, taken), (0.04, 0, 8));
        assert_eq!(of(&[(40, true), (19, false), (60, true)]).0.usual_s, 0.019);
        assert_eq!(of(&[(200, false), (1, false)]), (of(&[(200, false)]).0, 1));
    }
}
