//! A decode in progress, as the executor counts and times it: it may arrive as many graphs and make several
//! passes over the layers.

use std::time::{Duration, Instant};

use super::lookups::DECODE_TOKENS;

/// A decode in progress.
#[derive(Debug, Default)]
pub(super) struct OpenStep {
    /// When its first graph began.
    pub start: Option<Instant>,
    /// When its last graph ended.
    pub end: Option<Instant>,
    /// Time in its graphs.
    pub busy: Duration,
    /// Passes over the expert layers, and the tokens of the last one.
    pub passes: u32,
    pub tokens: usize,
    /// For each expert layer, which parts this pass has used.
    used: Vec<u8>,
    /// A graph failed, and what it held was given back.
    pub failed: bool,
}

impl OpenStep {
    /// Whether a graph that begins with this part of a layer goes over the layers anew.
    pub fn is_new_pass(&self, layer: usize, part: usize) -> bool {
        self.passes == 0 || self.used.get(layer).is_some_and(|parts| parts & (1 << part) != 0)
    }

    pub fn begin_pass(&mut self, tokens: usize) {
        self.passes += 1;
        self.tokens = tokens;
        self.used.clear();
    }

    pub fn note_use(&mut self, layer: usize, part: usize) {
        self.used.resize(self.used.len().max(layer + 1), 0);
        self.used[layer] |= 1 << part;
    }

    /// The tokens of a decode step, and how long it took, which can be compared with steps of as many.
    pub fn decode_time(&self) -> Option<(usize, Duration)> {
        let decoded = !self.failed && self.passes == 1 && self.tokens <= DECODE_TOKENS;
        let time = self.end?.duration_since(self.start.filter(|_| decoded)?);
        Some((self.tokens, time))
    }
}
