//! What the runner's parser made of an answer, on its way to whoever reads the answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hypura_engine::ChatDelta;
use hypura_engine::request::Event;

/// What the runner's parser made of an answer, text by text.
#[derive(Default)]
pub(super) struct Deltas(Mutex<Parsed>);

#[derive(Default)]
struct Parsed {
    /// Bytes of each text, and what was in it.
    texts: VecDeque<(usize, Vec<ChatDelta>)>,
    /// What the end of the text gave.
    last: Vec<ChatDelta>,
}

impl Deltas {
    /// Takes what came with an event, before anybody sees the event.
    pub fn add(&self, event: &Event, deltas: Vec<ChatDelta>) {
        let mut parsed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Text { text, .. } => parsed.texts.push_back((text.len(), deltas)),
            Event::Done(_) => parsed.last = deltas,
            Event::Started { .. } | Event::Progress { .. } | Event::Failed(_) => {}
        }
    }
    /// What was in the next `bytes` bytes of text.
    pub fn take(&self, bytes: usize) -> Vec<ChatDelta> {
        let mut parsed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut left, mut deltas) = (bytes, Vec::new());
        while left > 0
            && let Some((bytes, more)) = parsed.texts.pop_front()
        {
            left = left.saturating_sub(bytes);
            deltas.extend(more);
        }
        deltas
    }

    /// What the end of the text gave.
    pub fn take_last(&self) -> Vec<ChatDelta> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).last)
    }
}
