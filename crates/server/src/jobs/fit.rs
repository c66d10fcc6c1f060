//! A prompt and its context: how much context to ask for, and what to leave out of a prompt that does not
//! fit.

use super::lookup::Found;
use super::shorten;
use crate::Failure;
use crate::job::JobBase;
use crate::models::backend::{ChatInput, ContextWish, Engine, LoadRequest, Prompt};
use hypura_engine::Token;

/// Tokens of an answer that an open request may take beside its prompt.
const OPEN_ANSWER_TOKENS: u32 = 16_384;

/// Tokens of an answer for which there is context from the beginning; for more it grows when they come.
const FIRST_ANSWER_TOKENS: u32 = 1024;

/// Fewest bytes of a prompt that are a token, about.
const BYTES_PER_TOKEN: usize = 3;

/// What a request says of context, and what becomes of a prompt that does not fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    /// Context that is asked for, at least.
    num_ctx: Option<u32>,
    overflow: Overflow,
}

#[derive(Clone, Copy, Debug)]
enum Overflow {
    /// Ollama's way: the oldest messages go, then what follows the first `keep_tokens`.
    Cut { keep_tokens: usize },
    /// 400.
    Refuse,
    /// The vendors' way: the context grows for the prompt and for an answer of so many tokens; where it
    /// cannot, 400. Nothing is ever cut.
    Grow { answer_tokens: u32 },
}

impl Fit {
    /// What a job asks for; `truncate`: it may lose its beginning, unless it has the context grow.
    pub fn of(found: &Found, base: &JobBase, truncate: bool) -> Self {
        let asked = found.options.num_predict.and_then(|count| u32::try_from(count).ok());
        let overflow = if base.grows {
            Overflow::Grow { answer_tokens: asked.unwrap_or(OPEN_ANSWER_TOKENS) }
        } else if truncate {
            Overflow::Cut { keep_tokens: found.keep_tokens() }
        } else {
            Overflow::Refuse
        };
        Self { num_ctx: found.options.context(), overflow }
    }

    /// A prompt with a medium: that cannot be cut.
    pub fn whole(self) -> Self {
        match self.overflow {
            Overflow::Cut { .. } => Self { overflow: Overflow::Refuse, ..self },
            _ => self,
        }
    }

    /// How to load a model for a prompt of so many bytes, whose tokens only a loaded model knows.
    pub fn first(self, prompt_bytes: usize) -> LoadRequest {
        let context = match self.overflow {
            // What is loaded when nobody asks for more may suffice.
            Overflow::Grow { .. } if prompt_bytes / BYTES_PER_TOKEN < FIRST_ANSWER_TOKENS as usize => {
                self.num_ctx
            }
            Overflow::Grow { .. } => self.context(prompt_bytes / BYTES_PER_TOKEN).now,
            _ => self.num_ctx,
        };
        LoadRequest { context, may_grow: self.num_ctx.is_none() }
    }

    /// Context for a prompt of so many tokens.
    fn context(self, tokens: usize) -> ContextWish {
        let Overflow::Grow { answer_tokens } = self.overflow else {
            return ContextWish { now: self.num_ctx, most: None };
        };
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let with =
            |answer: u32| tokens.saturating_add(answer).saturating_add(1).max(self.num_ctx.unwrap_or(0));
        ContextWish {
            now: Some(with(answer_tokens.min(FIRST_ANSWER_TOKENS))),
            most: Some(with(answer_tokens)),
        }
    }
}

/// The prompt of a conversation and its context, without its oldest messages where all do not fit and some
/// may go. System messages and the last message always stay; if they alone are too long, the beginning of
/// what they make is cut.
///
/// # Errors
/// 400 when nothing may be left out and it does not fit; what the template says.
pub(super) fn chat(
    engine: &dyn Engine,
    input: ChatInput,
    fit: Fit,
) -> Result<(Prompt, ContextWish), Failure> {
    let renderer = engine.renderer(&input)?;
    let whole = renderer.render(&(0..input.messages.len()).collect::<Vec<_>>())?;
    let tokens = whole.input.tokens.len();
    let load_request = fit.context(tokens);
    let context = engine.context_for(load_request.now);
    let room = room(context);
    if tokens <= room {
        return Ok((whole, load_request));
    }
    let Overflow::Cut { keep_tokens } = fit.overflow else {
        return Err(too_long(tokens, context, fit));
    };
    let mut prompt = shorten::without_oldest(renderer.as_ref(), &input, &whole, room)?;
    if prompt.has_media() && prompt.input.tokens.len() > room {
        // A picture or a sound cannot be cut.
        return Err(too_long(prompt.input.tokens.len(), context, fit));
    }
    prompt.input.tokens = cut(prompt.input.tokens, room, keep_tokens);
    Ok((prompt, load_request))
}

/// The tokens of a prompt and its context, without some of them where all do not fit and some may go.
///
/// # Errors
/// 400 when nothing may be left out and it does not fit.
pub(super) fn tokens(
    engine: &dyn Engine,
    tokens: Vec<Token>,
    fit: Fit,
) -> Result<(Vec<Token>, ContextWish), Failure> {
    let load_request = fit.context(tokens.len());
    let context = engine.context_for(load_request.now);
    let room = room(context);
    if tokens.len() <= room {
        return Ok((tokens, load_request));
    }
    let Overflow::Cut { keep_tokens } = fit.overflow else {
        return Err(too_long(tokens.len(), context, fit));
    };
    Ok((cut(tokens, room, keep_tokens), load_request))
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

fn too_long(tokens: usize, context: u32, fit: Fit) -> Failure {
    let advice = match fit.overflow {
        Overflow::Grow { .. } => "",
        _ => ": shorten it, raise num_ctx, or allow truncation",
    };
    Failure::prompt_too_long(tokens, context as usize, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_the_beginning_and_the_end() {
        assert_eq!(cut((0..10).collect(), 6, 2), [0, 1, 6, 7, 8, 9]);
        assert_eq!(cut((0..10).collect(), 6, 100), [0, 1, 2, 7, 8, 9]);
        assert_eq!(cut((0..5).collect(), 6, 2), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn context_is_asked_for_the_prompt_and_the_beginning_of_its_answer() {
        let fit = |answer_tokens| Fit { num_ctx: Some(2048), overflow: Overflow::Grow { answer_tokens } };
        assert_eq!(fit(100).context(19_000), ContextWish { now: Some(19_101), most: Some(19_101) });
        assert_eq!(fit(32_000).context(19_000), ContextWish { now: Some(20_025), most: Some(51_001) });
        assert_eq!(fit(100).context(10), ContextWish { now: Some(2048), most: Some(2048) });
        assert_eq!(fit(u32::MAX).context(usize::MAX).most, Some(u32::MAX));
        let first = |fit: Fit, prompt_bytes| {
            let LoadRequest { context, may_grow } = fit.first(prompt_bytes);
            (context, may_grow)
        };
        assert_eq!(first(fit(100), 60_000), (Some(20_101), false));
        assert_eq!(first(fit(100), 60), (Some(2048), false));
        let unasked = Fit { num_ctx: None, ..fit(100) };
        assert_eq!(first(unasked, 60_000), (Some(20_101), true), "no less than there is by default");
        assert_eq!(first(unasked, 60), (None, true));
        let cut = Fit { num_ctx: None, overflow: Overflow::Cut { keep_tokens: 4 } };
        assert_eq!(cut.context(19_000), ContextWish { now: None, most: None });
        assert_eq!(first(cut, 60_000), (None, true));
    }
}
