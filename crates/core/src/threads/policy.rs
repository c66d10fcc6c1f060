//! The decision for both kinds of step, and what each of them learns from a window.

use std::time::Duration;

use super::choice::Choice;
use super::window::{Window, Work};

/// Most tokens of a step that is compared with the steps of answers; longer ones are prompts, whose nodes
/// take so long that barriers count for little.
const SHORT_STEP: u32 = 16;

/// Decides how many threads compute.
#[derive(Clone, Debug)]
pub struct ThreadPolicy {
    /// Answers, and prompts.
    choices: [Choice; 2],
    last_end: Duration,
}

impl ThreadPolicy {
    /// At most so many threads. It begins with them, or with as many as there were cores to be had of late,
    /// if that is known: the first step beside a busy program would be the slowest.
    #[must_use]
    pub fn new(most: u32, cores_to_be_had: Option<f64>) -> Self {
        let most = most.max(1);
        // A busy program takes a whole core; a quarter of one is noise of so short a look.
        let cores = cores_to_be_had.map_or(most, |cores| (cores + 0.25).round() as u32);
        let choices = [Choice::new(most, cores.clamp(1, most)), Choice::new(most, most)];
        Self { choices, last_end: Duration::ZERO }
    }

    /// Threads for the next step, of so many tokens.
    #[must_use]
    pub fn threads(&self, tokens: u32) -> u32 {
        self.choices[kind(tokens)].threads()
    }

    /// Learns from steps.
    pub fn observe(&mut self, window: &Window<'_>) {
        /// What was learned longer ago says nothing of now.
        const PAUSE: Duration = Duration::from_secs(2);
        let began = window.end.saturating_sub(window.length);
        let paused = began.saturating_sub(self.last_end) > PAUSE;
        self.last_end = window.end;
        for (at, choice) in self.choices.iter_mut().enumerate() {
            if paused {
                choice.doubt();
            }
            let work: Vec<Work> = window
                .work
                .iter()
                .copied()
                .filter(|work| work.steps > 0 && kind(work.tokens) == at)
                .collect();
            if !work.is_empty() {
                choice.observe(window, &work);
            }
        }
    }
}

/// Which of the two kinds of step it is.
fn kind(tokens: u32) -> usize {
    usize::from(tokens > SHORT_STEP)
}
