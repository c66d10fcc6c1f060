//! OpenAI's, Anthropic's and llama-server's endpoints over a scripted engine. Names of tests begin with the
//! endpoint or the subject.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(dead_code, reason = "the kit is shared with the tests of the native endpoints")]

#[path = "../server/fake.rs"]
mod fake;
#[path = "../server/fake_catalog.rs"]
mod fake_catalog;
#[path = "../server/kit.rs"]
mod kit;

mod anthropic;
mod context;
mod golden;
mod llama;
mod openai;
mod responses;

use kit::Answer;
use serde_json::Value;

/// The JSON of each `data:` line of an event stream, and the names of its events.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let mut name = String::new();
    let mut out = Vec::new();
    for line in answer.text().lines() {
        if let Some(event) = line.strip_prefix("event: ") {
            event.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let value =
                if data == "[DONE]" { Value::from("[DONE]") } else { serde_json::from_str(data).unwrap() };
            out.push((std::mem::take(&mut name), value));
        }
    }
    out
}
