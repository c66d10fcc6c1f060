//! Which tokens are drafted, as it is asked for.

use hypura_core::speculate::AcceptanceCurve;
use serde::{Deserialize, Serialize};

/// Most drafts of a step where nobody says otherwise.
const MOST_DRAFTS: u32 = 16;

/// Who proposes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drafting {
    /// Nobody, whatever a request brings.
    Off,
    /// Nobody, but for requests that bring a text that their answer is probably like.
    #[default]
    Requested,
    /// Prompt lookup, and the draft model if there is one.
    Auto,
    /// Prompt lookup.
    Lookup,
    /// The draft model.
    Model,
}

/// Which tokens are drafted, and how many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speculation {
    /// Who proposes them.
    pub drafting: Drafting,
    /// Most of them in a step, for each sequence.
    pub most: u32,
    /// Always so many, whatever they cost: for measurements and tests.
    pub fixed: Option<u32>,
    /// Acceptance that is forced on answers whose tokens are forced: for benchmarks of models that agree with
    /// no draft.
    pub forced: Option<AcceptanceCurve>,
}

impl Default for Speculation {
    fn default() -> Self {
        Self { drafting: Drafting::default(), most: MOST_DRAFTS, fixed: None, forced: None }
    }
}

impl Speculation {
    /// Whether prompt lookup proposes for every request.
    #[must_use]
    pub fn looks_up(&self) -> bool {
        matches!(self.drafting, Drafting::Auto | Drafting::Lookup)
    }

    /// Whether a draft model proposes, if there is one.
    #[must_use]
    pub fn uses_model(&self) -> bool {
        matches!(self.drafting, Drafting::Auto | Drafting::Model)
    }
}
