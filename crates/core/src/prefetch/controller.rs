//! The kill switch: prefetching stays on only while tokens come faster with it.
//!
//! Alternates short trials of both settings, then keeps the faster one for a while and tries again. Medians, because a
//! disturbed token must not decide.

/// Tokens of one trial.
const TRIAL_TOKENS: usize = 12;
/// Tokens at the start of a trial that still feel the other setting.
const SETTLE_TOKENS: usize = 2;
/// Tokens with the winner between trials.
const KEEP_TOKENS: usize = 160;
/// Prefetching must be this much faster, since it also wears on the disk and the battery.
const MARGIN: f64 = 0.99;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    TryOn,
    TryOff,
    Keep,
}

/// Decides from token times whether to prefetch.
#[derive(Clone, Debug)]
pub struct Controller {
    phase: Phase,
    times_us: Vec<u64>,
    median_on_us: u64,
    on: bool,
    switches: u64,
}

impl Default for Controller {
    fn default() -> Self {
        Self { phase: Phase::TryOn, times_us: Vec::new(), median_on_us: 0, on: true, switches: 0 }
    }
}

impl Controller {
    /// Whether to prefetch for the next token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// How often a trial ended with prefetching off.
    #[must_use]
    pub fn times_switched_off(&self) -> u64 {
        self.switches
    }

    /// A token took this long.
    pub fn observe(&mut self, token_us: u64) {
        self.times_us.push(token_us);
        let length = if self.phase == Phase::Keep { KEEP_TOKENS } else { TRIAL_TOKENS };
        if self.times_us.len() < length {
            return;
        }
        let median = median(&mut self.times_us[SETTLE_TOKENS..]);
        self.times_us.clear();
        match self.phase {
            Phase::TryOn => {
                self.median_on_us = median;
                self.phase = Phase::TryOff;
                self.on = false;
            }
            Phase::TryOff => {
                self.on = (self.median_on_us as f64) < median as f64 * MARGIN;
                self.switches += u64::from(!self.on);
                self.phase = Phase::Keep;
            }
            Phase::Keep => {
                self.phase = Phase::TryOn;
                self.on = true;
            }
        }
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs tokens whose time depends on the setting; returns how many of the last ones had prefetching on.
    fn run(on_us: u64, off_us: u64, tokens: usize) -> usize {
        let mut controller = Controller::default();
        let mut on = 0;
        for token in 0..tokens {
            on += usize::from(controller.is_on());
            let noise = (token as u64 * 7919) % 50;
            let spike = if token % 11 == 0 { 100_000 } else { 0 };
            controller.observe(if controller.is_on() { on_us } else { off_us } + noise + spike);
        }
        on
    }

    #[test]
    fn it_stays_on_where_it_pays_and_off_where_it_does_not() {
        let tokens = 10 * (KEEP_TOKENS + 2 * TRIAL_TOKENS);
        assert!(run(8_000, 10_000, tokens) > tokens * 9 / 10);
        assert!(run(12_000, 10_000, tokens) < tokens / 10);
        assert!(run(10_000, 10_000, tokens) < tokens / 10, "no gain is no reason");
    }

    #[test]
    fn it_notices_when_the_machine_changes() {
        let mut controller = Controller::default();
        let mut states = Vec::new();
        for phase_pays in [false, true] {
            for _ in 0..4 * (KEEP_TOKENS + 2 * TRIAL_TOKENS) {
                let fast = controller.is_on() == phase_pays;
                controller.observe(if fast { 8_000 } else { 10_000 });
            }
            states.push(controller.phase != Phase::Keep || controller.is_on() == phase_pays);
        }
        assert_eq!(states, [true, true]);
        assert!(controller.times_switched_off() >= 3);
    }
}
