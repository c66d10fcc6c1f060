//! What to leave out when a prompt is longer than the context.

use crate::Failure;
use crate::models::backend::{ChatInput, Engine, Prompt, Token};
use serde_json::Value;

/// The prompt of a conversation, without its oldest messages where all do not fit. System messages and the last
/// message always stay; if they alone are too long, the beginning of what they make is cut.
///
/// # Errors
/// 400 when nothing may be left out and it does not fit; what the template says.
pub(super) fn chat(
    engine: &dyn Engine,
    input: ChatInput,
    context: u32,
    keep_tokens: usize,
    truncate: bool,
) -> Result<Prompt, Failure> {
    let room = room(context);
    let whole = engine.render(&input)?;
    if whole.tokens.len() <= room {
        return Ok(whole);
    }
    if !truncate {
        return Err(too_long(whole.tokens.len(), context));
    }
    let last = input.messages.len().saturating_sub(1);
    let droppable: Vec<usize> = input
        .messages
        .iter()
        .enumerate()
        .filter(|(at, message)| *at < last && role(message) != "system")
        .map(|(at, _)| at)
        .collect();
    let without = |count: usize| {
        let dropped = &droppable[..count];
        let kept = || (0..input.messages.len()).filter(|at| !dropped.contains(at));
        ChatInput {
            messages: kept().map(|at| input.messages[at].clone()).collect(),
            media: kept().filter_map(|at| input.media.get(at).cloned()).collect(),
            ..input.clone()
        }
    };
    // The fewest that must go: 0 do not suffice, all may.
    let (mut too_few, mut enough) = (0, droppable.len());
    let mut best = None;
    while too_few + 1 < enough {
        let middle = too_few.midpoint(enough);
        // A template may refuse a conversation that begins with an answer; then one more has to go.
        match engine.render(&without(middle)) {
            Ok(prompt) if prompt.tokens.len() <= room => {
                enough = middle;
                best = Some(prompt);
            }
            Ok(_) | Err(_) => too_few = middle,
        }
    }
    let mut prompt = match best {
        Some(prompt) => prompt,
        None => engine.render(&without(droppable.len()))?,
    };
    if prompt.media.is_some() && prompt.tokens.len() > room {
        // A picture or a sound cannot be cut.
        return Err(too_long(prompt.tokens.len(), context));
    }
    prompt.tokens = cut(prompt.tokens, room, keep_tokens);
    Ok(prompt)
}

/// The tokens of a prompt, without some after the first `keep_tokens` where all do not fit.
///
/// # Errors
/// 400 when nothing may be left out and it does not fit.
pub(super) fn tokens(
    tokens: Vec<Token>,
    context: u32,
    keep_tokens: usize,
    truncate: bool,
) -> Result<Vec<Token>, Failure> {
    let room = room(context);
    if tokens.len() > room && !truncate {
        return Err(too_long(tokens.len(), context));
    }
    Ok(cut(tokens, room, keep_tokens))
}

fn cut(mut tokens: Vec<Token>, room: usize, keep_tokens: usize) -> Vec<Token> {
    if tokens.len() > room {
        let keep = keep_tokens.min(room / 2);
        let gap = tokens.len() - room;
        tokens.drain(keep..keep + gap);
    }
    tokens
}

/// Tokens of a prompt that fit: one place is for the answer.
fn room(context: u32) -> usize {
    (context as usize).saturating_sub(1)
}

fn too_long(tokens: usize, context: u32) -> Failure {
    Failure::bad_request(format!(
        "the prompt has {tokens} tokens, which exceeds the context length of {context}: shorten it, raise num_ctx, or \
         allow truncation"
    ))
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_the_beginning_and_the_end() {
        assert_eq!(cut((0..10).collect(), 6, 2), [0, 1, 6, 7, 8, 9]);
        assert_eq!(cut((0..10).collect(), 6, 100), [0, 1, 2, 7, 8, 9]);
        assert_eq!(cut((0..5).collect(), 6, 2), [0, 1, 2, 3, 4]);
        assert_eq!(tokens((0..10).collect(), 5, 0, true).unwrap(), [6, 7, 8, 9]);
        assert_eq!(tokens((0..10).collect(), 5, 0, false).unwrap_err().status, 400);
    }
}
