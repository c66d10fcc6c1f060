//! How many drafts the next step tries. None is a choice, and the right one where weights that no other row
//! needs would have to be read for tokens that probably do not come true.
//!
//! The price of drafts is the time that they add to a step ([`RowTimes`]) and the time of making them; what
//! they bring is the number of them that is expected to come true ([`Acceptance`]). That number of drafts is
//! best which brings most tokens a second. Where none seems best, it is tried now and then whether that still
//! holds. All of it happens within a [`Credit`]: speculation that does not pay costs next to nothing,
//! whatever was assumed or wrongly learned.
//!
//! What a plain step takes changes with the text, and often just where drafts come true: a text that repeats
//! itself uses the same experts again, which are in memory. So while drafts join steps some go without, the
//! more of them the less drafts gain; and more drafts are tried only after some were.

use super::acceptance::{Acceptance, Verdict};
use super::credit::{Account, Credit};
use super::draft::{Draft, Source};
use super::row_times::{RowTimes, StepSample, Widening};

/// Drafts must promise at least so many times the tokens a second that there are without.
const LEAST_GAIN: f64 = 1.02;
/// Drafts of a trial.
const TRIAL: usize = 4;
/// Steps with drafts after which one goes without: at least and at most, and for each plain step that a step
/// with drafts saves.
const LEAST_PLAIN_EVERY: f64 = 4.0;
const MOST_PLAIN_EVERY: f64 = 96.0;
const PLAIN_EVERY_GAIN: f64 = 80.0;
/// Seconds of drafting a token, as a share of a step, until it was measured.
const DRAFTING: f64 = 0.1;
/// Tokens that the draft model catches up with cost this share of drafting as many: they go through in one
/// graph.
const CATCHING_UP: f64 = 0.2;
/// Tokens that are expected to come after a draft model has caught up: they share what that takes.
const CAUGHT_UP_FOR: f64 = 128.0;
/// What the quickest plain steps of late took is forgotten at this rate a step. Drafts evict experts, which
/// makes plain steps among them slower than they would be without.
const QUICKEST_FORGOTTEN: f64 = 1.01;
/// A step counts as at most so many times what was expected of it: others use the machine, too.
const OUTLIER: f64 = 3.0;

/// What never changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicySettings {
    /// Most drafts of a step and sequence.
    pub most: usize,
    /// Always so many, whatever they cost: for measurements and tests.
    pub fixed: Option<usize>,
    /// What of the model streams.
    pub widening: Widening,
}

/// The step that drafts would join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Sequences that get a token from it.
    pub sequences: usize,
    /// Its rows, drafts of others included.
    pub rows: usize,
}

/// What is known of a machine and a text, and decides by it.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: PolicySettings,
    times: RowTimes,
    acceptance: Acceptance,
    /// Seconds of drafting a token.
    drafting_s: Option<f64>,
    credit: Credit,
    /// Seconds of the quickest plain steps of late, and their rows.
    quickest: (f64, usize),
    since_plain: u32,
}

impl Policy {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: PolicySettings) -> Self {
        Self {
            settings,
            times: RowTimes::new(settings.widening),
            acceptance: Acceptance::default(),
            drafting_s: None,
            credit: Credit::default(),
            quickest: (f64::INFINITY, 0),
            since_plain: 0,
        }
    }

    /// Most drafts of a step and sequence.
    #[must_use]
    pub fn most(&self) -> usize {
        self.settings.fixed.unwrap_or(self.settings.most)
    }

    /// How many of these drafts, which are there already, the step is to try.
    #[must_use]
    pub fn depth(&self, joined: Joined, drafts: &[Draft]) -> usize {
        let limit = drafts.len().min(self.most_now());
        if limit == 0 || self.settings.fixed.is_some() {
            return limit;
        }
        if self.credit.is_used_up() {
            return 0;
        }
        let expected = self.acceptance.expected(&drafts[..limit]);
        let rates: Option<Vec<f64>> = (0..=limit)
            .map(|depth| Some((joined.sequences as f64 + expected[depth]) / self.seconds(joined, depth)?))
            .collect();
        let Some(rates) = rates else { return 0 };
        let best = best_of(&rates, limit);
        if rates[best] > rates[0] * LEAST_GAIN {
            return if self.is_plain_due() { 0 } else { best };
        }
        let trial = best_of(&rates, limit.min(TRIAL));
        let costs_s =
            self.seconds(joined, trial).zip(self.seconds(joined, 0)).map(|(with, without)| with - without);
        if costs_s.is_some_and(|costs_s| self.credit.affords(costs_s)) { trial } else { 0 }
    }

    /// Whether the draft model is to be asked at all; it would first catch up with `behind` tokens.
    #[must_use]
    pub fn wants_drafting(&self, joined: Joined, behind: usize) -> bool {
        if let Some(fixed) = self.settings.fixed {
            return fixed > 0;
        }
        let Some(plain_s) = self.seconds(joined, 0).filter(|_| !self.credit.is_used_up()) else {
            return false;
        };
        let Some(drafting_s) = self.drafting_seconds() else { return false };
        let plain = joined.sequences as f64 / plain_s;
        let catching_up_s = behind.saturating_sub(2) as f64 * drafting_s * CATCHING_UP;
        let (mut tokens, mut all) = (joined.sequences as f64, 1.0);
        for depth in 1..=self.most_now() {
            all *= self.acceptance.of_source(Source::Model, depth - 1);
            tokens += all;
            let Some(seconds) = self.seconds(joined, depth) else { return false };
            let reading_s = catching_up_s * tokens / CAUGHT_UP_FOR;
            if tokens / (seconds + depth as f64 * drafting_s + reading_s) > plain * LEAST_GAIN {
                return !self.is_plain_due();
            }
        }
        let trial = TRIAL.min(self.most_now());
        let more_s = self.seconds(joined, trial).map_or(0.0, |seconds| seconds - plain_s);
        self.credit.affords(more_s + trial as f64 * drafting_s + catching_up_s)
    }

    /// Whether the draft model is to go on after these drafts.
    #[must_use]
    pub fn goes_on(&self, joined: Joined, drafts: &[Draft]) -> bool {
        let depth = drafts.len();
        if depth >= self.most_now() || self.settings.fixed.is_some() || depth == 0 {
            return depth < self.most_now();
        }
        let (Some(now_s), Some(next_s), Some(drafting_s)) =
            (self.seconds(joined, depth), self.seconds(joined, depth + 1), self.drafting_seconds())
        else {
            return false;
        };
        let expected = self.acceptance.expected(drafts);
        // The probability that all of them come true is what the last one added.
        let all = expected[depth] - expected[depth - 1];
        let gain = all * self.acceptance.of_source(Source::Model, depth);
        let rate = (joined.sequences as f64 + expected[depth]) / (now_s + depth as f64 * drafting_s);
        gain > rate * (next_s - now_s + drafting_s).max(0.0)
    }

    /// Learns what became of drafts that a sequence tried.
    pub fn observe_drafts(&mut self, drafts: &[Draft], verdict: Verdict) {
        self.acceptance.observe(drafts, verdict);
    }

    /// Learns what drafting so many tokens took, where the draft model had nothing to catch up with.
    pub fn observe_drafting(&mut self, tokens: usize, seconds: f64) {
        if tokens == 0 || !seconds.is_finite() {
            return;
        }
        let each = seconds / tokens as f64;
        let known = self.drafting_s.unwrap_or(each);
        self.drafting_s = Some(known + (each.min(known * 3.0) - known) * 0.2);
    }

    /// Learns from a step in which all sequences decoded: of so many of them, which had `drafts` drafts in
    /// all, of which `accepted` came true, and for which a draft model took `drafting_s`.
    pub fn observe_step(
        &mut self,
        sample: StepSample,
        sequences: usize,
        drafts: usize,
        accepted: usize,
        drafting_s: f64,
    ) {
        let plain = Joined { sequences, rows: sample.rows.saturating_sub(drafts) };
        self.since_plain = if drafts == 0 { 0 } else { self.since_plain.saturating_add(1) };
        let (without_s, expected_s) = (self.seconds(plain, 0), self.times.seconds(sample.rows));
        self.times.observe(sample);
        let Some(reference_s) = self.times.seconds(self.times.reference_rows()) else { return };
        let quickest_s = self.quickest_plain_s(plain.rows, without_s);
        let as_many = 1.0 + accepted as f64 / sequences.max(1) as f64;
        // What is beyond the usual time of drafting is the reading of a prompt, or of what others proposed.
        let usual_s = self.drafting_seconds().map_or(0.0, |drafting_s| 2.0 * drafting_s * drafts as f64);
        let drafted_s = drafting_s.min(usual_s);
        self.credit.enter(Account {
            took_s: sample.wall_s.min(expected_s.unwrap_or(reference_s) * OUTLIER),
            plainly_s: without_s.filter(|_| drafts > 0).map(|_| quickest_s * as_many),
            drafting_s: drafted_s,
            invested_s: drafting_s - drafted_s,
            reference_s,
        });
    }

    /// Seconds of the quickest plain steps of late that have so many rows, of which one takes `now_s`.
    fn quickest_plain_s(&mut self, rows: usize, now_s: Option<f64>) -> f64 {
        let (known_s, of_rows) = self.quickest;
        let known_s = if of_rows == rows { known_s * QUICKEST_FORGOTTEN } else { f64::INFINITY };
        let quickest_s = known_s.min(now_s.unwrap_or(f64::INFINITY));
        self.quickest = (quickest_s, rows);
        quickest_s
    }

    /// Most drafts of the next step: no more than twice the rows that were tried before.
    fn most_now(&self) -> usize {
        let known = self.settings.fixed.is_none().then(|| 2 * self.times.most_rows());
        self.most().min(known.unwrap_or(usize::MAX))
    }

    /// Whether so many steps had drafts that it should be seen again what one takes without.
    fn is_plain_due(&self) -> bool {
        let every = (self.credit.gain() * PLAIN_EVERY_GAIN).clamp(LEAST_PLAIN_EVERY, MOST_PLAIN_EVERY);
        f64::from(self.since_plain) >= every
    }

    /// Seconds of a step with so many drafts; `None` before any step was measured.
    fn seconds(&self, joined: Joined, drafts: usize) -> Option<f64> {
        self.times.seconds(joined.rows.max(1) + drafts)
    }

    fn drafting_seconds(&self) -> Option<f64> {
        self.drafting_s.or_else(|| Some(self.times.seconds(self.times.reference_rows())? * DRAFTING))
    }
}

/// The best of the rates of at least one draft and at most `limit`.
fn best_of(rates: &[f64], limit: usize) -> usize {
    (1..=limit.max(1)).max_by(|one, other| rates[*one].total_cmp(&rates[*other])).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::draft::Confidence;
    use super::*;

    const ALONE: Joined = Joined { sequences: 1, rows: 1 };

    fn policy(widening: Widening) -> Policy {
        Policy::new(PolicySettings { most: 8, fixed: None, widening })
    }

    fn dense() -> Widening {
        Widening { dense_bytes: 1e9, ..Widening::default() }
    }

    fn experts() -> Widening {
        Widening { expert_bytes: 1e9, expert_share: 0.06, ..Widening::default() }
    }

    fn drafts(count: usize) -> Vec<Draft> {
        vec![Draft { token: 1, confidence: Confidence::Probability(0.9) }; count]
    }

    fn wall(widening: Widening, rows: usize) -> StepSample {
        let disk_s = widening.bytes(rows);
        let compute_s = 0.05 * rows as f64;
        StepSample { rows, wall_s: disk_s.max(compute_s), compute_s, disk_s }
    }

    /// Runs so many tokens where each draft comes true with `rate`; returns the seconds, and the steps that
    /// had drafts.
    fn run(policy: &mut Policy, widening: Widening, tokens: usize, rate: f64) -> (f64, usize) {
        let mut random = crate::random::SplitMix64::new(7);
        let (mut seconds, mut with, mut told) = (0.0, 0, 0);
        while told < tokens {
            let offered = drafts(8);
            let depth = policy.depth(ALONE, &offered);
            let true_ones = (0..depth).take_while(|_| (random.below(1000) as f64) < rate * 1000.0).count();
            let sample = wall(widening, 1 + depth);
            policy.observe_drafts(
                &offered[..depth],
                Verdict { accepted: true_ones, rejected: true_ones < depth },
            );
            policy.observe_step(sample, 1, depth, true_ones, 0.0);
            (seconds, told) = (seconds + sample.wall_s, told + 1 + true_ones);
            with += usize::from(depth > 0);
        }
        (seconds, with)
    }

    #[test]
    fn the_first_step_is_plain_so_that_it_is_known_what_that_takes() {
        assert_eq!(policy(dense()).depth(ALONE, &drafts(8)), 0);
    }

    #[test]
    fn dense_weights_that_stream_are_worth_many_drafts() {
        let mut policy = policy(dense());
        let (seconds, _) = run(&mut policy, dense(), 400, 0.88);
        assert!(400.0 / seconds > 3.0, "{seconds}");
        assert_eq!(policy.depth(ALONE, &drafts(8)), 8);
    }

    #[test]
    fn drafts_that_never_come_true_cost_next_to_nothing() {
        for widening in [dense(), experts(), Widening::default()] {
            let mut policy = policy(widening);
            let (seconds, with) = run(&mut policy, widening, 2000, 0.0);
            let plain = wall(widening, 1).wall_s * 2000.0;
            assert!(seconds < plain * 1.008, "{} times as long", seconds / plain);
            assert!(with >= 2, "it is tried again now and then");
        }
    }

    #[test]
    fn experts_that_must_be_read_for_drafts_are_not_worth_likely_tokens() {
        let mut policy = policy(experts());
        let (seconds, with) = run(&mut policy, experts(), 2000, 0.5);
        assert!(seconds < wall(experts(), 1).wall_s * 2000.0 * 1.01, "{seconds}");
        assert!(with < 100, "{with}");
    }

    #[test]
    fn drafts_pay_again_once_they_come_true_again() {
        let mut policy = policy(dense());
        run(&mut policy, dense(), 1500, 0.0);
        let (seconds, _) = run(&mut policy, dense(), 3000, 0.95);
        assert!(3000.0 / seconds > 2.0, "{}", 3000.0 / seconds);
    }

    #[test]
    fn drafts_that_look_good_and_hold_up_all_other_steps_end_with_the_credit() {
        let mut policy = policy(dense());
        let (mut took_s, mut plain_s) = (0.0, 0.0);
        for step in 0..400 {
            let depth = policy.depth(ALONE, &drafts(8));
            // Each draft comes true half of the time, and steps with drafts take what nobody modelled.
            let accepted = depth / 2 * (step % 2);
            let wall_s = if depth > 0 { 4.0 + (step % 3) as f64 } else { 1.0 };
            let verdict = Verdict { accepted, rejected: accepted < depth };
            policy.observe_drafts(&drafts(8)[..depth], verdict);
            let sample = StepSample { rows: 1 + depth, wall_s, compute_s: 0.1, disk_s: 0.9 };
            policy.observe_step(sample, 1, depth, accepted, 0.0);
            (took_s, plain_s) = (took_s + wall_s, plain_s + 1.0 + accepted as f64);
        }
        assert!(took_s < plain_s * 1.03, "{}", took_s / plain_s);
    }

    /// Where a text repeats itself drafts come true, and its experts are in memory: nothing is to be gained.
    #[test]
    fn drafts_that_come_true_only_where_plain_steps_are_quick_anyway_do_not_pay() {
        let mut policy = policy(Widening { expert_bytes: 1e9, expert_share: 0.1, ..Widening::default() });
        let mut random = crate::random::SplitMix64::new(3);
        let (mut took_s, mut plain_s, mut told) = (0.0, 0.0, 0);
        while told < 3000 {
            let repeats = told / 40 % 2 == 0;
            let (one_s, rate) = if repeats { (1.0, 950) } else { (2.0, 250) };
            let depth = policy.depth(ALONE, &drafts(8));
            let accepted = (0..depth).take_while(|_| random.below(1000) < rate).count();
            policy.observe_drafts(&drafts(8)[..depth], Verdict { accepted, rejected: accepted < depth });
            let noise = 0.8 + random.below(1000) as f64 * 4e-4;
            let wall_s = one_s * (1.0 + 0.95 * depth as f64) * noise;
            let sample =
                StepSample { rows: 1 + depth, wall_s, compute_s: wall_s * 0.7, disk_s: wall_s * 0.5 };
            policy.observe_step(sample, 1, depth, accepted, 0.0);
            (took_s, plain_s) = (took_s + wall_s, plain_s + one_s * (1.0 + accepted as f64));
            told += 1 + accepted;
        }
        assert!(took_s < plain_s * 1.02, "{}", took_s / plain_s);
    }

    #[test]
    fn a_draft_model_that_reads_a_long_prompt_first_still_pays() {
        let mut policy = policy(dense());
        (0..8).for_each(|_| policy.observe_step(wall(dense(), 1), 1, 0, 0, 0.0));
        assert!(policy.wants_drafting(ALONE, 1000));
        for _ in 0..4 {
            policy.observe_step(wall(dense(), 1), 1, 0, 0, 2.0);
        }
        let (seconds, _) = run(&mut policy, dense(), 400, 0.88);
        assert!(400.0 / seconds > 2.5, "{}", 400.0 / seconds);
    }

    #[test]
    fn many_drafts_are_tried_only_after_a_few() {
        let mut policy = policy(dense());
        run(&mut policy, dense(), 1, 0.0);
        assert_eq!(policy.depth(ALONE, &drafts(8)), 2);
        policy.observe_step(wall(dense(), 3), 1, 2, 2, 0.0);
        assert_eq!(policy.depth(ALONE, &drafts(8)), 6);
    }

    #[test]
    fn a_slow_draft_model_is_not_asked_and_a_quick_one_goes_on_while_it_is_sure() {
        let mut slow = policy(dense());
        run(&mut slow, dense(), 50, 0.9);
        slow.observe_step(wall(dense(), 1), 1, 0, 0, 0.0);
        let mut quick = slow.clone();
        (0..50).for_each(|_| slow.observe_drafting(1, 2.0));
        (0..50).for_each(|_| quick.observe_drafting(1, 0.01));
        assert!(!slow.wants_drafting(ALONE, 1) && quick.wants_drafting(ALONE, 1));
        assert!(quick.goes_on(ALONE, &drafts(3)));
        let unsure = vec![Draft { token: 1, confidence: Confidence::Probability(0.1) }; 3];
        assert!(!quick.goes_on(ALONE, &unsure));
        assert!(!quick.goes_on(ALONE, &drafts(8)), "there are enough");
    }

    #[test]
    fn beside_others_drafts_must_bring_more_than_they_hold_up() {
        let mut policy = policy(Widening::default());
        for _ in 0..20 {
            // Each further row costs as much as the first.
            for rows in [1, 2, 4, 5] {
                let sample = StepSample { rows, wall_s: rows as f64, compute_s: rows as f64, disk_s: 0.0 };
                policy.observe_step(sample, rows, 0, 0, 0.0);
            }
        }
        (0..9).for_each(|_| {
            policy.observe_step(StepSample { rows: 1, wall_s: 1.0, ..StepSample::default() }, 1, 0, 0, 9.0)
        });
        assert_eq!(policy.depth(Joined { sequences: 4, rows: 4 }, &drafts(2)), 0);
    }

    #[test]
    fn a_fixed_depth_asks_no_price() {
        let mut policy = Policy::new(PolicySettings { most: 8, fixed: Some(3), widening: experts() });
        assert_eq!(policy.depth(ALONE, &drafts(8)), 3);
        run(&mut policy, experts(), 50, 0.0);
        assert_eq!(policy.depth(ALONE, &drafts(8)), 3);
        assert_eq!(policy.depth(ALONE, &drafts(2)), 2);
        assert!(policy.wants_drafting(ALONE, 1) && policy.goes_on(ALONE, &drafts(2)));
        assert!(!policy.goes_on(ALONE, &drafts(3)));
    }
}
