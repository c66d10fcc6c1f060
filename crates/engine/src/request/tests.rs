//! Everything that goes between a front end and a runner comes through a format of bytes as it was.

use hypura_ggml::{Grammar, GrammarKind, GrammarTrigger, SamplerOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

use super::*;
use crate::stream::{Lookups, StreamStats};

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = serde_json::to_vec(value).unwrap();
    assert_eq!(&serde_json::from_slice::<T>(&bytes).unwrap(), value);
}

fn grammar() -> Grammar {
    Grammar {
        gbnf: "root ::= \"yes\"".to_owned(),
        schemas: vec!["{}".to_owned()],
        kind: GrammarKind::ToolCalls,
        lazy: true,
        forced: true,
        triggers: vec![
            GrammarTrigger::Token(7),
            GrammarTrigger::Word("<call>".to_owned()),
            GrammarTrigger::Pattern("a+".to_owned()),
            GrammarTrigger::PatternFull("^b$".to_owned()),
        ],
        generation_prompt: "assistant:".to_owned(),
        thinking_start: "<think>".to_owned(),
        thinking_ends: vec!["</think>".to_owned()],
    }
}

#[test]
fn requests_cross_a_process_border() {
    survives(&Request::default());
    let options = Options {
        max_tokens: Some(3),
        sampler: SamplerOptions { temperature: 0.1, seed: u32::MAX, ..SamplerOptions::default() },
        grammar: Some(grammar()),
        stops: vec!["\u{1f980}\0".to_owned()],
        logprobs: Some(5),
        num_ctx: Some(8192),
        num_ctx_most: Some(16_384),
        shift: Some(4),
        ignore_end: true,
        repeat_limit: Some(30),
        special_pieces: true,
        progress: true,
        draft_most: Some(3),
        prediction: Some("like this".to_owned()),
    };
    let parts = vec![
        PromptPart::Text { text: "<|user|>".to_owned(), control: true },
        PromptPart::Media(MediaFile::new(vec![0, 255, b'"'])),
        PromptPart::Text { text: "what is it?".to_owned(), control: false },
    ];
    survives(&Request { prompt: Prompt::Parts(parts), options });
    survives(&Request { prompt: vec![0, i32::MAX].into(), options: Options::default() });
}

#[test]
fn events_cross_a_process_border() {
    survives(&Event::Started { prompt_tokens: 1, reused_tokens: 2, queued: Duration::from_nanos(3) });
    let elapsed = Duration::new(5, 999_999_999);
    survives(&Event::Progress { processed: 1, total: 2, reused: 3, elapsed });
    let token = TokenInfo {
        token: 9,
        bytes: vec![0xf0, 0x9f],
        logprob: Some(-0.1),
        top: vec![(9, b"x".to_vec(), f32::MIN)],
    };
    survives(&Event::Text { text: "\u{fffd}".to_owned(), tokens: vec![token] });
    let error = RequestError { kind: RequestErrorKind::Engine, message: "cannot read".to_owned() };
    survives(&Event::Failed(error));
}

#[test]
fn outcomes_cross_a_process_border() {
    let mut hash = LogitsHash::default();
    hash.add(&[1.0, -2.0]);
    let lookups = Lookups { hits: 1, misses: 2, prefetched: 3, late: u64::MAX };
    let outcome = Outcome {
        finish: Finish::StopString,
        reused_tokens: 3,
        tokens: vec![1, 2],
        stop: Some("end".to_owned()),
        prefill: Duration::from_millis(7),
        first_token: Duration::from_micros(8),
        token_times: vec![Duration::from_nanos(1), Duration::ZERO],
        total: Duration::MAX,
        prefill_stats: StreamStats { graphs: 1, prefill: lookups, ..StreamStats::default() },
        decode_stats: StreamStats { read_stall: Duration::from_nanos(1), ..StreamStats::default() },
        speculation: SpeculationStats {
            proposed: 3,
            accepted_at: [1; POSITIONS],
            ..SpeculationStats::default()
        },
        logits_hash: Some(hash),
        ..Outcome::new(11)
    };
    for finish in [
        Finish::End,
        Finish::StopString,
        Finish::Length,
        Finish::ContextFull,
        Finish::Repeats,
        Finish::Stopped,
    ] {
        survives(&Event::Done(Box::new(Outcome { finish, ..outcome.clone() })));
    }
}

#[test]
fn refusals_cross_a_process_border() {
    for error in [
        SubmitError::QueueFull(3),
        SubmitError::Stopped,
        SubmitError::PromptTooLong { prompt: 3, context: 2 },
        SubmitError::BadGrammar("no root".to_owned()),
        SubmitError::EmptyPrompt,
        SubmitError::BadMedia,
        SubmitError::UnusableMedia("image 1: cut off".to_owned()),
        SubmitError::BadToken(-3),
    ] {
        survives(&error);
    }
}
