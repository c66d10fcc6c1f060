//! The number of threads of one kind of step: what holds, what is being tried, and when to try again.
//!
//! Waiting threads and idle cores say only when a trial is worth it; whether fewer or more threads are faster
//! is measured, by a window with that many. A trial that fails costs time, so the next one in that direction
//! comes when that time is a hundredth of what has passed, or when there is more reason for it than before.

use std::time::Duration;

use super::rates::Rates;
use super::window::{Window, Work};

/// So many threads waiting on average are a reason to try fewer. Beside one busy program it is a half, on a
/// quiet machine a hundredth, and now and then a tenth.
const WAITING: f64 = 0.25;
/// So many idle cores are a reason to try more.
const IDLE: f64 = 0.5;
/// Another number of threads must be this much faster.
const MARGIN: f64 = 0.97;
/// A failed trial is paid for when it was this share of the time.
const TRIAL_SHARE: f64 = 0.01;
/// Least and most time until the next trial in a direction that failed.
const LEAST_S: f64 = 0.5;
const MOST_S: f64 = 20.0;
/// Where it began with fewer threads, more are not tried without a reason before this.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// How much more reason there must be to try again before that.
const RISE: f64 = 0.3;

/// When to try again in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    not_before: Duration,
    /// The reason that there was for the last trial: threads waiting, cores idle.
    reason: f64,
}

impl Retry {
    fn after(now: Duration, lost_s: f64, reason: f64) -> Self {
        let pause_s = (lost_s / TRIAL_SHARE).clamp(LEAST_S, MOST_S);
        Self { not_before: now + Duration::from_secs_f64(pause_s), reason }
    }

    fn is_due(&self, now: Duration, reason: f64) -> bool {
        now >= self.not_before || reason >= self.reason + RISE
    }
}

/// A window with another number of threads is being measured.
#[derive(Clone, Copy, Debug)]
struct Trial {
    threads: u32,
    reason: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Choice {
    most: u32,
    threads: u32,
    trial: Option<Trial>,
    /// Of steps with `threads`.
    rates: Rates,
    fewer: Retry,
    more: Retry,
}

impl Choice {
    /// Begins with so many of at most `most` threads, at the time 0.
    pub fn new(most: u32, threads: u32) -> Self {
        let idle_cores_only = Retry { not_before: FIRST_TRY, reason: 0.0 };
        Self {
            most,
            threads,
            trial: None,
            rates: Rates::default(),
            fewer: Retry::default(),
            more: idle_cores_only,
        }
    }

    pub fn threads(&self) -> u32 {
        self.trial.map_or(self.threads, |trial| trial.threads)
    }

    /// What was learned may be wrong by now: it is tried anew.
    pub fn doubt(&mut self) {
        (self.fewer, self.more) = (Retry::default(), Retry::default());
        self.rates.clear();
    }

    pub fn observe(&mut self, window: &Window<'_>, work: &[Work]) {
        match self.trial.take() {
            Some(trial) => self.judge(trial, window, work),
            None => self.rates.note(work, window.end),
        }
        self.trial = self.next_trial(window);
    }

    fn judge(&mut self, trial: Trial, window: &Window<'_>, work: &[Work]) {
        let (took_s, would_s) = self.rates.compare(work, window.end);
        let up = trial.threads > self.threads;
        if would_s > 0.0 && took_s < would_s * MARGIN {
            self.threads = trial.threads;
            self.rates.clear();
            self.rates.note(work, window.end);
            // The way back costs what this one won, and there is no reason for it yet.
            let back = Retry::after(window.end, would_s - took_s, 0.0);
            (self.fewer, self.more) = if up { (back, Retry::default()) } else { (Retry::default(), back) };
            return;
        }
        let retry = Retry::after(window.end, (took_s - would_s).max(0.0), trial.reason);
        if up {
            self.more = retry;
        } else {
            self.fewer = retry;
        }
    }

    fn next_trial(&self, window: &Window<'_>) -> Option<Trial> {
        let waiting = window.waiting();
        if self.threads > 1 && waiting >= WAITING && self.fewer.is_due(window.end, waiting) {
            let fewer = (waiting.round() as u32).clamp(1, self.threads - 1);
            return Some(Trial { threads: self.threads - fewer, reason: waiting });
        }
        if self.threads < self.most {
            let idle = window.idle_cores.unwrap_or(0.0);
            let reason = if idle >= IDLE { idle } else { 0.0 };
            if self.more.is_due(window.end, reason) {
                let more = (idle.round() as u32).clamp(1, self.most - self.threads);
                return Some(Trial { threads: self.threads + more, reason });
            }
        }
        None
    }
}
