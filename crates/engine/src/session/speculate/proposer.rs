//! What proposes tokens.

use hypura_core::speculate::Draft;
use hypura_ggml::{DecodeError, Token};

/// A sequence that drafts are wanted for: its last token is about to be computed.
pub(super) struct Ask<'a> {
    /// The request.
    pub id: u64,
    /// Its row of the KV cache.
    pub row: usize,
    /// Prompt and generated tokens; media are negative.
    pub tokens: &'a [Token],
    /// Those that were generated.
    pub generated: usize,
    /// Most drafts.
    pub most: usize,
}

/// Proposes what a sequence goes on with.
pub(super) trait Proposer {
    /// Drafts, at most as many as are asked for. Where each of them costs time, `goes_on` is asked before the
    /// next one.
    ///
    /// # Errors
    /// Why this proposer is of no more use.
    fn propose(
        &mut self,
        ask: &Ask<'_>,
        goes_on: &mut dyn FnMut(&[Draft]) -> bool,
    ) -> Result<Vec<Draft>, DecodeError>;

    /// A request is over.
    fn forget(&mut self, id: u64);
}
