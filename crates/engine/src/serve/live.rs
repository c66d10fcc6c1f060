//! How fast it goes right now, for whoever watches: rates over the last one or two seconds of work.
//!
//! A step of the loop costs one addition, whoever watches. Prompts and answers are measured apart; a step
//! that works on both counts as one of prompts, but for the speed of the answers in it.

use hypura_core::roofline::{BoundBy, Times};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::stream::StreamStats;

/// Half of the time that rates are taken over.
const SPAN: Duration = Duration::from_secs(1);

/// Rates of one kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Tokens of all requests together.
    pub tokens_per_s: f64,
    /// Bytes from the disk for each token; `None` where every step worked on prompts and answers.
    pub bytes_per_token: Option<f64>,
    /// Share of expert lookups found in memory; `None` where there were none.
    pub hit_rate: Option<f64>,
    /// What took the time, likewise.
    pub bound: Option<BoundBy>,
}

/// The latest rates; they stay when work ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Of prompts; `None` before the first one.
    pub prefill: Option<Rates>,
    /// Of answers; `None` before the first one.
    pub decode: Option<Rates>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepWork {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers, first ones excluded: those end their prompts.
    pub answer_tokens: u64,
    /// How long it took.
    pub wall: Duration,
    /// What streaming did.
    pub stream: StreamStats,
    /// Whether streaming sees the graphs; where it does not, all of the time counts as computing.
    pub observed: bool,
}

/// Sums over steps.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    tokens: u64,
    wall: Duration,
    /// Of the steps that worked on nothing else.
    own: Own,
}

#[derive(Clone, Copy, Debug, Default)]
struct Own {
    tokens: u64,
    wall: Duration,
    bytes: u64,
    hits: u64,
    misses: u64,
    disk: Duration,
    stall: Duration,
    compute: Duration,
}

impl Own {
    fn of(tokens: u64, step: &StepWork) -> Self {
        let (stream, lookups) = (&step.stream, step.stream.lookups());
        Self {
            tokens,
            wall: step.wall,
            bytes: stream.bytes_read,
            hits: lookups.hits,
            misses: lookups.misses,
            disk: stream.disk_busy,
            stall: stream.read_stall,
            compute: if step.observed { stream.compute } else { step.wall },
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            wall: self.wall + other.wall,
            bytes: self.bytes + other.bytes,
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            disk: self.disk + other.disk,
            stall: self.stall + other.stall,
            compute: self.compute + other.compute,
        }
    }

    fn bound_by(&self) -> BoundBy {
        let [wall, disk, compute, stall] =
            [self.wall, self.disk, self.compute, self.stall].map(|time| time.as_secs_f64());
        Times::measured(wall, disk, compute, stall).bound_by()
    }
}

impl Sum {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            wall: self.wall + other.wall,
            own: self.own.plus(other.own),
        }
    }

    fn rates(&self) -> Option<Rates> {
        let own = &self.own;
        Some(Rates {
            tokens_per_s: ratio(self.tokens as f64, self.wall.as_secs_f64())?,
            bytes_per_token: ratio(own.bytes as f64, own.tokens as f64),
            hit_rate: ratio(own.hits as f64, (own.hits + own.misses) as f64),
            bound: (own.tokens > 0).then(|| own.bound_by()),
        })
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The span before and the one that is being filled.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    before: Sum,
    now: Sum,
}

impl Window {
    fn add(&mut self, sum: Sum) {
        self.now = self.now.plus(sum);
        if self.now.wall >= SPAN {
            self.before = std::mem::take(&mut self.now);
        }
    }

    fn rates(&self) -> Option<Rates> {
        self.before.plus(self.now).rates()
    }
}

/// Adds up steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    prefill: Window,
    decode: Window,
}

impl Meter {
    pub fn add(&mut self, step: &StepWork) {
        let is_prompt = step.prompt_tokens > 0;
        if is_prompt {
            let tokens = step.prompt_tokens;
            self.prefill.add(Sum { tokens, wall: step.wall, own: Own::of(tokens, step) });
        }
        let tokens = step.answer_tokens;
        if tokens > 0 {
            let own = if is_prompt { Own::default() } else { Own::of(tokens, step) };
            self.decode.add(Sum { tokens, wall: step.wall, own });
        }
    }

    pub fn live(&self) -> Live {
        Live { prefill: self.prefill.rates(), decode: self.decode.rates() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(prompt_tokens: u64, answer_tokens: u64, millis: u64, bytes_read: u64) -> StepWork {
        let wall = Duration::from_millis(millis);
        let stream = StreamStats { bytes_read, compute: wall, ..StreamStats::default() };
        StepWork { prompt_tokens, answer_tokens, wall, stream, observed: true }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.live(), Live::default());
        (0..100).for_each(|_| meter.add(&step(0, 1, 100, 1000)));
        let slow = meter.live().decode.unwrap();
        assert!((slow.tokens_per_s - 10.0).abs() < 1e-6 && slow.bytes_per_token == Some(1000.0), "{slow:?}");
        (0..400).for_each(|_| meter.add(&step(0, 1, 10, 0)));
        let fast = meter.live().decode.unwrap();
        assert!((fast.tokens_per_s - 100.0).abs() < 1e-6 && fast.bytes_per_token == Some(0.0), "{fast:?}");
        assert_eq!((fast.hit_rate, fast.bound), (None, Some(BoundBy::Compute)));
    }

    #[test]
    fn a_prompt_beside_answers_slows_them_and_has_its_own_bytes() {
        let mut meter = Meter::default();
        meter.add(&step(512, 2, 1000, 1 << 30));
        let Live { prefill, decode } = meter.live();
        let (prefill, decode) = (prefill.unwrap(), decode.unwrap());
        assert_eq!((prefill.tokens_per_s, decode.tokens_per_s), (512.0, 2.0));
        assert_eq!(prefill.bytes_per_token, Some((1 << 30) as f64 / 512.0));
        assert_eq!(
            (decode.bytes_per_token, decode.bound),
            (None, None),
            "it is not known whose bytes those are"
        );
    }

    #[test]
    fn what_streaming_does_not_see_is_computing() {
        let mut meter = Meter::default();
        meter.add(&StepWork { stream: StreamStats::default(), observed: false, ..step(0, 1, 50, 0) });
        assert_eq!(meter.live().decode.unwrap().bound, Some(BoundBy::Compute));
    }
}
