//! How much context a model can have on this machine, by its plan.

use hypura_core::plan::{Mode, human_bytes};

use crate::cli::plan::{self, ContextPlan};

/// With less an agent hardly gets beyond its own first prompt.
pub(super) const LEAST: u32 = 32768;
/// What agents are comfortable with.
pub(super) const ENOUGH: u32 = 65536;
/// More is not planned for: it would cost memory that conversations rarely need.
const MOST: u32 = 131_072;

/// The longest context that the plan allows.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub tokens: u32,
    mode: Mode,
    decode_tokens_per_s: Option<f64>,
    budget_bytes: u64,
}

/// Plans a model of this machine; `None` where its header is not found here or no plan works, which the
/// server will say better.
pub(super) fn planned(model: &str, trained: u32) -> Option<Planned> {
    let mut wanted = trained.min(MOST);
    loop {
        match plan::with_context(model, wanted) {
            Ok(ContextPlan { tokens, mode, decode_tokens_per_s, budget_bytes }) => {
                return Some(Planned { tokens, mode, decode_tokens_per_s, budget_bytes });
            }
            Err(_) if wanted > LEAST / 8 => wanted /= 2,
            Err(_) => return None,
        }
    }
}

impl Planned {
    /// For people.
    pub fn text(&self, model: &str) -> String {
        let Self { tokens, mode, budget_bytes, .. } = self;
        let speed = self.decode_tokens_per_s.map(|speed| format!(", about {speed:.1} tok/s"));
        format!(
            "{model}: {tokens} tokens of context fit in {} here ({}{})",
            human_bytes(*budget_bytes),
            mode.name(),
            speed.unwrap_or_default()
        )
    }
}
