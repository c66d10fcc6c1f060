//! What a step of so many rows takes: a model of bytes and arithmetic, corrected by what was measured.
//!
//! The model: reading and computing overlap, so a step takes the longer of both. Dense weights are read once
//! for all rows; experts are read once for each that any row uses, and rows that choose independently use
//! `(1 - (1 - k/E)^rows) / (k/E)` times as many as one row does. That is the worst case: rows of one text
//! share more. Each number of rows that was tried has a correction of its own, and those between and beyond
//! go by their neighbours.
//!
//! Invariant: the correction of the reference, the fewest rows that are common, is 1.

use serde::{Deserialize, Serialize};

/// Rows that are told apart.
const MOST_ROWS: usize = 128;
/// Computing a further row takes this share of computing the first, until it was measured.
const ROW_COMPUTE: f64 = 0.5;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.15;
/// Most weight of the newest plain step after steps with drafts: the text may have changed meanwhile.
const NEWEST_AFTER_OTHERS: f64 = 0.4;
/// A measurement counts as at most so many times what was expected, and at least one part in as many: others
/// use the machine, too.
const OUTLIER: f64 = 3.0;
/// Steps without the reference after which another number of rows becomes it.
const FORGOTTEN: u32 = 512;

/// What of a model streams: how many more bytes a step reads that has more rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Widening {
    /// Bytes of dense weights that each step reads.
    pub dense_bytes: f64,
    /// Bytes of the experts of one row that stream, whether or not they are in memory.
    pub expert_bytes: f64,
    /// Experts used by a row, as a share of all of a layer.
    pub expert_share: f64,
}

/// A step as it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSample {
    /// Rows of all sequences, drafts included.
    pub rows: usize,
    /// Time of the whole step, drafting excluded.
    pub wall_s: f64,
    /// Time of computing in it; 0 where that was not observed.
    pub compute_s: f64,
    /// Time with a read at the disk.
    pub disk_s: f64,
}

/// Times of steps by rows.
#[derive(Clone, Debug)]
pub struct RowTimes {
    widening: Widening,
    /// Seconds of a step of the reference; `None` before one was measured.
    reference_s: Option<f64>,
    reference: usize,
    unseen: u32,
    /// Computing and reading, as shares of a step of the reference.
    compute: f64,
    disk: f64,
    corrections: Vec<Correction>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Correction {
    factor: f64,
    seen: u32,
}

impl Widening {
    /// Bytes of a step of so many rows, as a multiple of those of one row.
    #[must_use]
    pub fn bytes(&self, rows: usize) -> f64 {
        let share = self.expert_share.clamp(0.0, 1.0);
        let experts =
            if share > 0.0 { (1.0 - (1.0 - share).powi(rows.min(MOST_ROWS) as i32)) / share } else { 1.0 };
        let one = self.dense_bytes + self.expert_bytes;
        if one > 0.0 { (self.dense_bytes + self.expert_bytes * experts) / one } else { 1.0 }
    }
}

impl RowTimes {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(widening: Widening) -> Self {
        Self {
            widening,
            reference_s: None,
            reference: 1,
            unseen: 0,
            compute: 1.0,
            disk: 0.0,
            corrections: vec![Correction::default(); MOST_ROWS + 1],
        }
    }

    /// Seconds of a step of so many rows; `None` before any step was measured.
    #[must_use]
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        Some(self.reference_s? * self.model(rows) * self.correction(rows))
    }

    /// Rows of the steps that others are held against.
    #[must_use]
    pub fn reference_rows(&self) -> usize {
        self.reference
    }

    /// Most rows of a step that was measured.
    #[must_use]
    pub fn most_rows(&self) -> usize {
        let seen = (1..=MOST_ROWS).rev().find(|rows| self.corrections[*rows].seen > 0);
        seen.unwrap_or(0).max(self.reference)
    }

    /// Learns from a step.
    pub fn observe(&mut self, sample: StepSample) {
        let StepSample { rows, wall_s, .. } = sample;
        if rows == 0 || rows > MOST_ROWS || wall_s <= 0.0 || !wall_s.is_finite() {
            return;
        }
        let Some(reference_s) = self.reference_s else {
            (self.reference, self.reference_s) = (rows, Some(wall_s));
            self.note_shares(sample, 1.0);
            return;
        };
        let weight = (NEWEST * f64::from(self.unseen + 1)).min(NEWEST_AFTER_OTHERS);
        self.unseen = if rows == self.reference { 0 } else { self.unseen + 1 };
        if rows < self.reference || self.unseen > FORGOTTEN {
            self.rebase(rows);
        }
        if rows == self.reference {
            let expected = self.reference_s.unwrap_or(reference_s);
            let bounded = wall_s.clamp(expected / OUTLIER, expected * OUTLIER);
            self.reference_s = Some(expected + (bounded - expected) * weight);
            self.note_shares(sample, weight);
            return;
        }
        let expected = self.reference_s.unwrap_or(reference_s) * self.model(rows);
        let before = self.correction(rows);
        let ratio = (wall_s / expected).clamp(before / OUTLIER, before * OUTLIER);
        let known = &mut self.corrections[rows];
        known.seen = known.seen.saturating_add(1);
        let weight = NEWEST.max(1.0 / f64::from(known.seen));
        let from = if known.seen == 1 { ratio } else { known.factor };
        known.factor = from + (ratio - from) * weight;
    }

    fn note_shares(&mut self, sample: StepSample, weight: f64) {
        let StepSample { wall_s, compute_s, disk_s, .. } = sample;
        let compute = if compute_s > 0.0 { compute_s } else { (wall_s - disk_s).max(0.0) };
        self.compute += ((compute / wall_s).min(1.0) - self.compute) * weight;
        self.disk += ((disk_s / wall_s).min(1.0) - self.disk) * weight;
    }

    /// Time of so many rows, as a multiple of that of the reference, as far as it follows from bytes and
    /// arithmetic.
    fn model(&self, rows: usize) -> f64 {
        let time = |rows: usize| {
            let computing = 1.0 + (rows.saturating_sub(1)) as f64 * ROW_COMPUTE;
            (self.compute * computing).max(self.disk * self.widening.bytes(rows))
        };
        let one = time(self.reference);
        if one > 0.0 { time(rows) / one } else { 1.0 }
    }

    /// Measured over modelled.
    fn correction(&self, rows: usize) -> f64 {
        if rows <= self.reference {
            return 1.0;
        }
        let measured = |at: &usize| self.corrections[*at].seen > 0;
        let rows = rows.min(MOST_ROWS);
        let above = (rows..=MOST_ROWS).find(measured);
        let below = (self.reference + 1..=rows).rev().find(measured);
        let (low, low_factor) = below.map_or((self.reference, 1.0), |at| (at, self.corrections[at].factor));
        match above.map(|at| (at, self.corrections[at].factor)) {
            Some((high, high_factor)) if high > low => {
                let part = (rows - low) as f64 / (high - low) as f64;
                low_factor + (high_factor - low_factor) * part
            }
            _ => low_factor,
        }
    }

    /// Makes another number of rows the reference.
    fn rebase(&mut self, rows: usize) {
        let seconds = self.seconds(rows);
        let known: Vec<(usize, f64)> = (1..=MOST_ROWS)
            .filter(|at| self.corrections[*at].seen > 0)
            .filter_map(|at| Some((at, self.seconds(at)?)))
            .collect();
        (self.reference, self.reference_s, self.unseen) = (rows, seconds, 0);
        for (at, measured_s) in known {
            let modelled = seconds.unwrap_or(measured_s) * self.model(at);
            self.corrections[at].factor = measured_s / modelled.max(f64::MIN_POSITIVE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rows: usize, wall_s: f64, compute_s: f64, disk_s: f64) -> StepSample {
        StepSample { rows, wall_s, compute_s, disk_s }
    }

    fn seconds(times: &RowTimes, rows: usize) -> f64 {
        times.seconds(rows).unwrap()
    }

    #[test]
    fn further_rows_of_dense_weights_that_stream_cost_nothing_until_computing_takes_longer() {
        let widening = Widening { dense_bytes: 1e9, ..Widening::default() };
        let mut times = RowTimes::new(widening);
        assert_eq!(times.seconds(1), None);
        (0..20).for_each(|_| times.observe(step(1, 1.0, 0.1, 0.99)));
        assert!((seconds(&times, 8) - 1.0).abs() < 0.01, "{}", seconds(&times, 8));
        assert!(seconds(&times, 40) > 1.9);
    }

    #[test]
    fn further_rows_of_experts_cost_the_experts_that_they_add() {
        let widening = Widening { expert_bytes: 1e9, expert_share: 8.0 / 128.0, ..Widening::default() };
        assert!((widening.bytes(1) - 1.0).abs() < 1e-9);
        assert!((widening.bytes(2) - 1.9375).abs() < 1e-9);
        let mut times = RowTimes::new(widening);
        times.observe(step(1, 1.0, 0.2, 1.0));
        assert!((seconds(&times, 2) - 1.9375).abs() < 1e-9);
    }

    #[test]
    fn what_was_measured_corrects_what_is_modelled_there_and_beyond() {
        let mut times = RowTimes::new(Widening::default());
        (0..5).for_each(|_| times.observe(step(1, 1.0, 1.0, 0.0)));
        (0..5).for_each(|_| times.observe(step(3, 1.2, 1.2, 0.0)));
        assert!((seconds(&times, 3) - 1.2).abs() < 1e-9);
        assert!(seconds(&times, 2) > 1.0 && seconds(&times, 2) < 1.5, "{}", seconds(&times, 2));
        assert!((seconds(&times, 5) - 3.0 * 0.6).abs() < 1e-9, "as much less than modelled as 3 rows");
        // All becomes twice as fast.
        (0..60).for_each(|_| times.observe(step(1, 0.5, 0.5, 0.0)));
        assert!((seconds(&times, 3) - 0.6).abs() < 0.01);
    }

    #[test]
    fn one_slow_step_is_no_rule() {
        let mut times = RowTimes::new(Widening::default());
        (0..5).for_each(|_| times.observe(step(1, 1.0, 1.0, 0.0)));
        times.observe(step(1, 500.0, 1.0, 0.0));
        assert!(seconds(&times, 1) < 1.4);
        times.observe(step(1, f64::NAN, 1.0, 0.0));
        times.observe(step(0, 1.0, 1.0, 0.0));
        times.observe(step(100_000, 1.0, 1.0, 0.0));
        assert!(seconds(&times, 1) < 1.4);
    }

    #[test]
    fn with_more_users_more_rows_are_what_others_are_held_against() {
        let mut times = RowTimes::new(Widening::default());
        (0..5).for_each(|_| times.observe(step(1, 1.0, 1.0, 0.0)));
        (0..=FORGOTTEN).for_each(|_| times.observe(step(3, 1.5, 1.5, 0.0)));
        assert_eq!(times.reference_rows(), 3);
        assert!((seconds(&times, 3) - 1.5).abs() < 1e-6);
        times.observe(step(2, 1.2, 1.2, 0.0));
        assert_eq!(times.reference_rows(), 2);
        assert!((seconds(&times, 3) - 1.5).abs() < 0.05, "{}", seconds(&times, 3));
    }
}
