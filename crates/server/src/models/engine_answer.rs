//! What an engine says, in the server's words: events, ends, and the parts of an answer.

use std::path::Path;

use hypura_engine::request::{Event, Finish, Outcome, TokenInfo};
use hypura_engine::{ChatDelta, ChatParser};
use serde_json::Value;

use super::backend::{AnswerParser, AnswerPart, EngineDone, EngineEvent, EngineFinish, EngineToken};
use super::engine::generate_failure;
use crate::job::ToolCall;

pub(super) fn event_of(event: Event, folder: &Path) -> EngineEvent {
    match event {
        Event::Started { reused_tokens, .. } => EngineEvent::Started { reused: reused_tokens },
        Event::Progress { processed, total, reused, elapsed } => {
            EngineEvent::Progress { processed, total, reused, elapsed }
        }
        Event::Text { text, tokens } => {
            EngineEvent::Text { text, tokens: tokens.into_iter().filter_map(token_of).collect() }
        }
        Event::Done(outcome) => EngineEvent::Done(Box::new(done_of(*outcome))),
        Event::Failed(error) => EngineEvent::Failed(generate_failure(&error, folder)),
    }
}

/// Tokens without a probability were not asked for theirs.
fn token_of(token: TokenInfo) -> Option<EngineToken> {
    let top = token.top.into_iter().map(|(_, bytes, logprob)| (bytes, logprob)).collect();
    Some(EngineToken { bytes: token.bytes, logprob: token.logprob?, top })
}

fn done_of(outcome: Outcome) -> EngineDone {
    let (prefill, decode) = (&outcome.prefill_stats, &outcome.decode_stats);
    let lookups = [prefill.prefill, prefill.decode, decode.prefill, decode.decode];
    EngineDone {
        finish: match (outcome.finish, outcome.stop) {
            (Finish::StopString, Some(stop)) => EngineFinish::StopString(stop),
            (Finish::Length | Finish::ContextFull, _) => EngineFinish::Length,
            _ => EngineFinish::End,
        },
        prompt_tokens: u32::try_from(outcome.prompt_tokens).unwrap_or(u32::MAX),
        reused_tokens: u32::try_from(outcome.reused_tokens).unwrap_or(u32::MAX),
        tokens: outcome.tokens,
        prefill: outcome.prefill,
        decode: outcome.token_times.iter().sum(),
        bytes_read: prefill.bytes_read + decode.bytes_read,
        hits: lookups.iter().map(|lookups| lookups.hits).sum(),
        misses: lookups.iter().map(|lookups| lookups.misses).sum(),
    }
}

/// llama.cpp's parser as an [`AnswerParser`].
pub(super) struct Parser(pub ChatParser);

impl AnswerParser for Parser {
    fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        self.0.push(text).into_iter().map(part_of).collect()
    }

    fn finish(&mut self, complete: bool) -> Vec<AnswerPart> {
        self.0.finish(complete).into_iter().map(part_of).collect()
    }
}

fn part_of(delta: ChatDelta) -> AnswerPart {
    match delta {
        ChatDelta::Content(text) => AnswerPart::Content(text),
        ChatDelta::Reasoning(text) => AnswerPart::Thinking(text),
        ChatDelta::ToolCall { index, id, name, arguments_json } => AnswerPart::ToolCall(ToolCall {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            id,
            name,
            arguments: serde_json::from_str(&arguments_json).unwrap_or(Value::String(arguments_json)),
        }),
    }
}
