//! How much to read ahead, decided by token times: nothing, what the next layers will probably use, or
//! further on.
//!
//! Short blocks of tokens of each kind take turns, so that neither a cache that is still filling nor a
//! machine that changes speaks for one of them; then the fastest is kept for a while, longer each time that
//! the answer is the same. Medians, because a disturbed token must not decide. Trials cost less than 2% of
//! the speed at stake: twelve tokens without prefetching in the first 320, and ever fewer.

/// How much is read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchDepth {
    /// Nothing.
    Off,
    /// The experts that the next layers will probably use.
    Likely,
    /// Also what is less likely, and a layer further on, for a disk that runs out of guesses.
    Deep,
}

impl PrefetchDepth {
    /// How many layers ahead experts are guessed.
    #[must_use]
    pub const fn layers(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Likely => 3,
            Self::Deep => 4,
        }
    }
}

/// Tokens of one block of a trial.
const BLOCK_TOKENS: usize = 4;
/// Tokens at the start of a block that still feel the other setting.
const SETTLE_TOKENS: usize = 1;
/// Blocks of a trial: each setting as often early as late.
const BLOCKS: [PrefetchDepth; 12] = [
    PrefetchDepth::Likely,
    PrefetchDepth::Off,
    PrefetchDepth::Deep,
    PrefetchDepth::Deep,
    PrefetchDepth::Off,
    PrefetchDepth::Likely,
    PrefetchDepth::Deep,
    PrefetchDepth::Likely,
    PrefetchDepth::Off,
    PrefetchDepth::Likely,
    PrefetchDepth::Deep,
    PrefetchDepth::Likely,
];
/// Tokens before the first trial: the cache fills, and memory is touched for the first time.
const WARM_TOKENS: usize = 16;
/// Tokens with the winner after the first trial; doubled each time that a trial ends likewise.
const KEEP_TOKENS: usize = 256;
/// Most tokens with the winner between trials.
const MOST_KEEP_TOKENS: usize = 1024;
/// Reading more must make tokens this much faster, since it also wears on the disk and the battery.
const MARGIN: f64 = 0.97;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many tokens to go with the present setting.
    Keep(usize),
    /// So many tokens of a trial are over.
    Trial(usize),
}

/// Decides from token times how much to read ahead.
#[derive(Clone, Debug)]
pub struct Controller {
    phase: Phase,
    depth: PrefetchDepth,
    /// What the last trial said, and how long that is trusted.
    verdict: PrefetchDepth,
    keep_tokens: usize,
    times_us: [Vec<u64>; 3],
    switches: u64,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            phase: Phase::Keep(WARM_TOKENS),
            depth: PrefetchDepth::Likely,
            verdict: PrefetchDepth::Likely,
            keep_tokens: KEEP_TOKENS,
            times_us: Default::default(),
            switches: 0,
        }
    }
}

impl Controller {
    /// How much to read ahead for the next token.
    #[must_use]
    pub fn depth(&self) -> PrefetchDepth {
        self.depth
    }

    /// How often a trial ended with prefetching off.
    #[must_use]
    pub fn times_switched_off(&self) -> u64 {
        self.switches
    }

    /// A step took this long. All steps that one controller is given have equally many tokens: others are not
    /// comparable.
    pub fn observe(&mut self, token_us: u64) {
        match self.phase {
            Phase::Keep(left) if left > 1 => self.phase = Phase::Keep(left - 1),
            Phase::Keep(_) => {
                self.times_us.iter_mut().for_each(Vec::clear);
                self.depth = BLOCKS[0];
                self.phase = Phase::Trial(0);
            }
            Phase::Trial(over) => self.observe_trial(over, token_us),
        }
    }

    fn observe_trial(&mut self, over: usize, token_us: u64) {
        if over % BLOCK_TOKENS >= SETTLE_TOKENS {
            self.times_us[self.depth as usize].push(token_us);
        }
        let over = over + 1;
        if let Some(depth) = BLOCKS.get(over / BLOCK_TOKENS) {
            self.depth = *depth;
            self.phase = Phase::Trial(over);
            return;
        }
        self.depth = self.fastest();
        self.switches += u64::from(self.depth == PrefetchDepth::Off);
        self.keep_tokens = if self.depth == self.verdict {
            (2 * self.keep_tokens).min(MOST_KEEP_TOKENS)
        } else {
            KEEP_TOKENS
        };
        self.verdict = self.depth;
        self.phase = Phase::Keep(self.keep_tokens);
    }

    /// The setting that reads least, unless one that reads more is clearly faster.
    fn fastest(&mut self) -> PrefetchDepth {
        let mut best = (PrefetchDepth::Off, median(&mut self.times_us[PrefetchDepth::Off as usize]) as f64);
        for depth in [PrefetchDepth::Likely, PrefetchDepth::Deep] {
            let time = median(&mut self.times_us[depth as usize]) as f64;
            if time < best.1 * MARGIN {
                best = (depth, time);
            }
        }
        best.0
    }
}

/// A controller for each number of tokens in a step: steps of two requests, or of a request with drafts, take
/// longer than others for reasons of their own, and can only be compared with their like.
///
/// A trial stands still while the number changes from step to step, as it does with drafts: a step after one
/// of another size finds the disk and the cache as that left them, and trials of all numbers at once would
/// have the wrong setting in a good part of the steps.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    of_tokens: Vec<Controller>,
    /// Tokens of the last step.
    last: usize,
}

impl Controllers {
    /// How much to read ahead in the next step of so many tokens.
    #[must_use]
    pub fn depth(&self, tokens: usize) -> PrefetchDepth {
        let Some(controller) = self.of_tokens.get(tokens) else { return Controller::default().depth() };
        if tokens == self.last { controller.depth() } else { controller.verdict }
    }

    /// A step of so many tokens took this long.
    pub fn observe(&mut self, tokens: usize, step_us: u64) {
        if self.of_tokens.len() <= tokens {
            self.of_tokens.resize_with(tokens + 1, Controller::default);
        }
        if std::mem::replace(&mut self.last, tokens) != tokens {
            return;
        }
        if let Some(controller) = self.of_tokens.get_mut(tokens) {
            controller.observe(step_us);
        }
    }

    /// How often a trial ended with prefetching off.
    #[must_use]
    pub fn times_switched_off(&self) -> u64 {
        self.of_tokens.iter().map(Controller::times_switched_off).sum()
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs tokens whose time depends on the setting (off, likely, deep); returns how many had each.
    fn run(us: [u64; 3], tokens: usize) -> [usize; 3] {
        let mut controller = Controller::default();
        let mut had = [0; 3];
        for token in 0..tokens {
            let depth = controller.depth() as usize;
            had[depth] += 1;
            let noise = (token as u64 * 7919) % 50;
            let spike = if token % 11 == 0 { 100_000 } else { 0 };
            controller.observe(us[depth] + noise + spike);
        }
        had
    }

    #[test]
    fn the_fastest_is_kept_and_trials_are_rare() {
        let tokens = 12 * KEEP_TOKENS;
        assert!(run([10_000, 8_000, 9_000], tokens)[1] > tokens * 95 / 100);
        assert!(run([10_000, 9_000, 8_000], tokens)[2] > tokens * 94 / 100);
        assert!(run([10_000, 12_000, 11_000], tokens)[0] > tokens * 93 / 100);
        assert!(run([10_000, 8_000, 9_000], tokens)[0] < tokens * 2 / 100);
    }

    #[test]
    fn no_gain_is_no_reason_to_read_more() {
        let tokens = 12 * KEEP_TOKENS;
        assert!(run([10_000, 10_000, 10_000], tokens)[0] > tokens * 93 / 100);
        assert!(run([10_000, 8_000, 8_000], tokens)[1] > tokens * 95 / 100);
    }

    #[test]
    fn steps_of_several_tokens_are_learned_from_by_their_number() {
        let mut controllers = Controllers::default();
        let time = |tokens: usize, depth: PrefetchDepth| match (tokens, depth) {
            (1, PrefetchDepth::Off) => 10_000,
            (1, _) => 8_000,
            // Two requests leave the disk no time for guesses.
            (_, PrefetchDepth::Off) => 15_000,
            (_, _) => 17_000,
        };
        // As two requests come and go: neither's steps speak for the other's.
        for step in 0..4 * KEEP_TOKENS {
            let tokens = 1 + step / 7 % 2;
            controllers.observe(tokens, time(tokens, controllers.depth(tokens)));
        }
        assert_eq!(controllers.depth(1), PrefetchDepth::Likely);
        assert_eq!(controllers.depth(2), PrefetchDepth::Off);
        assert_eq!(controllers.depth(3), PrefetchDepth::Likely, "the first guess");
        assert!(controllers.times_switched_off() >= 1);
    }

    #[test]
    fn trials_stand_still_while_the_number_of_tokens_changes() {
        let mut controllers = Controllers::default();
        // A sequence with drafts, now more of them, now fewer: nothing is tried at its cost.
        for step in 0..4 * KEEP_TOKENS {
            let tokens = 1 + step % 5;
            assert_eq!(controllers.depth(tokens), PrefetchDepth::Likely);
            controllers.observe(tokens, 10_000);
        }
        // Alone again it is tried as ever.
        for _ in 0..KEEP_TOKENS {
            controllers.observe(1, if controllers.depth(1) == PrefetchDepth::Off { 8_000 } else { 10_000 });
        }
        assert_eq!(controllers.depth(1), PrefetchDepth::Off);
        controllers.observe(6, 10_000);
        assert_eq!(controllers.depth(1), PrefetchDepth::Off, "what was found holds");
    }

    #[test]
    fn a_cold_start_speaks_for_none() {
        let mut controller = Controller::default();
        for token in 0..400u64 {
            // Everything gets faster while the cache fills; prefetching saves a fifth at any time.
            let cold = 40_000 / (token + 1);
            controller
                .observe((10_000 + cold) * if controller.depth() == PrefetchDepth::Off { 5 } else { 4 } / 5);
        }
        assert_eq!((controller.depth(), controller.times_switched_off()), (PrefetchDepth::Likely, 0));
    }

    #[test]
    fn it_notices_when_the_machine_changes() {
        let mut controller = Controller::default();
        for fast in [PrefetchDepth::Off, PrefetchDepth::Deep, PrefetchDepth::Off] {
            for _ in 0..MOST_KEEP_TOKENS + 2 * KEEP_TOKENS {
                controller.observe(if controller.depth() == fast { 8_000 } else { 10_000 });
            }
            assert_eq!(controller.verdict, fast);
        }
        assert!(controller.times_switched_off() >= 2);
    }
}
