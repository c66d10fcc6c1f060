//! Conversations that are longer than the context: which of the oldest messages to leave out.
//!
//! How many tokens a message takes is known only when a template has rendered it, so the search begins where
//! the lengths of the messages say, and renders two or three conversations as a rule. Media are decoded once
//! for all of them.

use serde_json::Value;

use crate::Failure;
use crate::models::backend::{ChatInput, Prompt, RenderError, Renderer};

/// The prompt of a conversation without as few of its oldest messages as make it fit into `room` tokens.
/// System messages and the last message always stay, so the prompt may still be too long. `whole` is the
/// prompt of all messages.
///
/// # Errors
/// What the template says of the conversation without all that may go; what is wrong with the request or its
/// media.
pub(super) fn without_oldest(
    renderer: &dyn Renderer,
    input: &ChatInput,
    whole: &Prompt,
    room: usize,
) -> Result<Prompt, Failure> {
    let last = input.messages.len().saturating_sub(1);
    let droppable: Vec<usize> =
        (0..last).filter(|at| input.messages[*at]["role"].as_str() != Some("system")).collect();
    let without = |count: usize| -> Vec<usize> {
        let dropped = &droppable[..count];
        (0..input.messages.len()).filter(|at| !dropped.contains(at)).collect()
    };
    // The fewest that must go: 0 do not suffice, all may.
    let (mut insufficient, mut enough) = (0, droppable.len());
    let mut best = None;
    let (mut next, mut step) = (guess(input, &droppable, whole, room), 1);
    while insufficient + 1 < enough {
        let is_inside = insufficient < next && next < enough;
        let count = if is_inside { next } else { insufficient.midpoint(enough) };
        match renderer.render(&without(count)) {
            Ok(prompt) if prompt.input.tokens.len() <= room => {
                (enough, next) = (count, count.saturating_sub(step));
                best = Some(prompt);
            }
            // A template may refuse a conversation that begins with an answer; then one more has to go.
            Ok(_) | Err(RenderError::Template(_)) => (insufficient, next) = (count, count + step),
            Err(RenderError::Other(failure)) => return Err(failure),
        }
        step *= 2;
    }
    match best {
        Some(prompt) => Ok(prompt),
        None => Ok(renderer.render(&without(droppable.len()))?),
    }
}

/// How many must go, if every byte of text is as many tokens, and every medium as many rows.
fn guess(input: &ChatInput, droppable: &[usize], whole: &Prompt, room: usize) -> usize {
    let rows = whole.input.tokens.iter().filter(|token| **token < 0).count();
    let texts = whole.input.tokens.len() - rows;
    let bytes: usize = input.messages.iter().map(text_bytes).sum();
    let media: usize = input.media.iter().map(Vec::len).sum();
    let excess = whole.input.tokens.len().saturating_sub(room);
    let (mut bytes_gone, mut media_gone) = (0, 0);
    for (count, at) in droppable.iter().enumerate() {
        bytes_gone += text_bytes(&input.messages[*at]);
        media_gone += input.media.get(*at).map_or(0, Vec::len);
        if bytes_gone * texts / bytes.max(1) + media_gone * rows / media.max(1) >= excess {
            return count + 1;
        }
    }
    droppable.len()
}

/// Bytes of all texts in a message, with some for what the template writes around it.
fn text_bytes(message: &Value) -> usize {
    const AROUND: usize = 16;
    fn inside(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(inside).sum(),
            Value::Object(fields) => fields.values().map(inside).sum(),
            _ => 0,
        }
    }
    inside(message) + AROUND
}
