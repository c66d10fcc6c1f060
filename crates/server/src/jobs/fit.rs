//! What to leave out when a prompt is longer than the context.

use super::shorten;
use crate::Failure;
use crate::models::backend::{ChatInput, Engine, Prompt};
use hypura_engine::Token;

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
    let renderer = engine.renderer(&input)?;
    let whole = renderer.render(&(0..input.messages.len()).collect::<Vec<_>>())?;
    if whole.input.tokens.len() <= room {
        return Ok(whole);
    }
    if !truncate {
        return Err(too_long(whole.input.tokens.len(), context));
    }
    let mut prompt = shorten::without_oldest(renderer.as_ref(), &input, &whole, room)?;
    if prompt.has_media() && prompt.input.tokens.len() > room {
        // A picture or a sound cannot be cut.
        return Err(too_long(prompt.input.tokens.len(), context));
    }
    prompt.input.tokens = cut(prompt.input.tokens, room, keep_tokens);
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
