//! What drafts may cost: a small share of the time of all steps, and what they gained before.
//!
//! Each step pays in a share of its time. A step with drafts takes out what it took longer than its tokens
//! would have taken one by one, or pays in what it saved. Without credit nothing is drafted, so all that
//! drafts ever lose is what was paid in, the first credit, and the last step that overdrew it.
//!
//! Time in which a draft model reads a prompt is an investment: it is charged over the steps that follow.

/// Share of the time of steps that drafts may cost.
const SHARE: f64 = 0.004;
/// Credit at the beginning, in plain steps.
const FIRST_STEPS: f64 = 1.0;
/// Most credit and most debt, in plain steps, where drafts gain nothing.
const MOST_STEPS: f64 = 2.0;
/// Further plain steps of credit for each plain step that a step with drafts saves on average: one slow step
/// should not end what pays.
const MORE_STEPS: f64 = 8.0;
/// Weight of the newest step in the average of what is saved.
const NEWEST: f64 = 0.1;
/// Share of an investment that a step is charged.
const CHARGED: f64 = 1.0 / 64.0;

/// Seconds that drafts may cost now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// `None` before any step was measured.
    seconds: Option<f64>,
    /// Spent, and not charged yet.
    invested_s: f64,
    /// Most that a trial may cost, whatever was gained before.
    trial_s: f64,
    /// Time of the same tokens one by one over that of steps with drafts, less 1, on average.
    gain: f64,
}

/// A step, as far as it matters for what drafts cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// Time of the step.
    pub took_s: f64,
    /// Time of the tokens that it brought, one by one; `None` where nothing was drafted.
    pub plainly_s: Option<f64>,
    /// Time of drafting what the step tried.
    pub drafting_s: f64,
    /// Time that a draft model took beyond that.
    pub invested_s: f64,
    /// A plain step.
    pub reference_s: f64,
}

impl Credit {
    /// Enters a step.
    pub fn enter(&mut self, account: Account) {
        let Account { took_s, plainly_s, drafting_s, invested_s, reference_s } = account;
        self.invested_s += invested_s;
        let charged_s = self.invested_s * CHARGED;
        self.invested_s -= charged_s;
        let whole_s = took_s + drafting_s;
        let saved_s = plainly_s.map_or(0.0, |plainly_s| plainly_s - whole_s);
        if let Some(plainly_s) = plainly_s.filter(|_| whole_s > 0.0) {
            self.gain += ((plainly_s / whole_s - 1.0) - self.gain) * NEWEST;
        }
        let seconds = self.seconds.unwrap_or(reference_s * FIRST_STEPS);
        self.trial_s = reference_s * MOST_STEPS;
        let most_s = reference_s * (MOST_STEPS + MORE_STEPS * self.gain.max(0.0));
        let seconds = seconds + whole_s * SHARE + saved_s - charged_s;
        self.seconds = Some(seconds.clamp(-reference_s * MOST_STEPS, most_s));
    }

    /// Whether drafts have lost more than they gained and may cost: then there are none, however good they
    /// look.
    pub fn is_used_up(&self) -> bool {
        self.seconds.is_none_or(|seconds| seconds <= 0.0)
    }

    /// Whether a trial of this price is paid for.
    pub fn affords(&self, seconds: f64) -> bool {
        !self.is_used_up() && self.seconds.is_some_and(|credit_s| credit_s.min(self.trial_s) >= seconds)
    }

    /// How much faster steps with drafts were, on average: 0 is not at all, 1 is twice as fast.
    pub fn gain(&self) -> f64 {
        self.gain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Account {
        Account { took_s: 1.0, reference_s: 1.0, ..Account::default() }
    }

    #[test]
    fn what_was_gained_may_be_lost_again_and_no_more() {
        let mut credit = Credit::default();
        assert!(credit.is_used_up() && !credit.affords(0.0), "nothing was measured");
        credit.enter(plain());
        assert!(credit.affords(1.0) && !credit.affords(1.1));
        (0..50).for_each(|_| credit.enter(Account { plainly_s: Some(3.0), ..plain() }));
        assert!(credit.gain() > 1.9 && credit.seconds.unwrap() > 15.0, "{credit:?}");
        assert!(credit.affords(2.0) && !credit.affords(2.1), "a trial has its own bound");
        let lost = (0..).take_while(|_| {
            credit.enter(Account { plainly_s: Some(0.0), ..plain() });
            !credit.is_used_up()
        });
        assert!(lost.count() < 18);
        (0..5).for_each(|_| credit.enter(Account { plainly_s: Some(0.0), ..plain() }));
        (0..240).for_each(|_| credit.enter(plain()));
        assert!(credit.is_used_up());
        (0..300).for_each(|_| credit.enter(plain()));
        assert!(!credit.is_used_up());
    }

    #[test]
    fn a_long_prompt_for_the_draft_model_is_paid_by_what_it_brings() {
        let mut pays = Credit::default();
        pays.enter(plain());
        let mut never = pays;
        pays.enter(Account { invested_s: 20.0, ..plain() });
        (0..200).for_each(|_| pays.enter(Account { plainly_s: Some(1.5), ..plain() }));
        assert!(!pays.is_used_up());
        never.enter(Account { invested_s: 20.0, ..plain() });
        (0..20).for_each(|_| never.enter(plain()));
        assert!(never.is_used_up());
    }
}
