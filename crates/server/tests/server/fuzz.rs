//! Requests with anything in any field: no answer is a panic, and what is wrong is the client's fault, never
//! ours. `make fuzz` sets HYPURA_FUZZ_SECONDS, and other requests are made until so long is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use hypura_store::{Places, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::kit::{Kit, Setup, request};

/// A path, a good request and the fields that are spoilt in it.
type Endpoint = (&'static str, Value, Vec<&'static str>);

fn messages() -> Value {
    json!([{"role": "user", "content": "x"}])
}

fn words(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().collect()
}

fn native() -> Vec<Endpoint> {
    let with = |more: &'static str| {
        let common = "model stream options keep_alive format think truncate logprobs top_logprobs shift";
        [words(common), words(more)].concat()
    };
    vec![
        (
            "/api/generate",
            json!({"model": "m", "prompt": "x"}),
            with("prompt suffix system template raw images context"),
        ),
        ("/api/chat", json!({"model": "m", "messages": messages()}), with("messages tools")),
        ("/api/embed", json!({"model": "vec", "input": "x"}), with("input dimensions")),
        ("/api/embeddings", json!({"model": "vec", "prompt": "x"}), with("prompt")),
        ("/api/show", json!({"model": "m"}), words("model name verbose system options")),
        (
            "/api/create",
            json!({"model": "new", "from": "gone"}),
            words(
                "model name from files adapters template license system parameters messages quantize info stream",
            ),
        ),
        ("/api/copy", json!({"source": "a", "destination": "b"}), words("source destination")),
    ]
}

fn others() -> Vec<Endpoint> {
    vec![
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "x"}),
            words("model prompt suffix max_tokens stop logprobs stream stream_options seed"),
        ),
        (
            "/v1/embeddings",
            json!({"model": "vec", "input": "x"}),
            words("model input dimensions encoding_format"),
        ),
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": messages()}),
            words("model messages tools tool_choice response_format reasoning stop logprobs"),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 5, "messages": messages()}),
            words("model messages system tools tool_choice thinking stop_sequences max_tokens"),
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": "x"}),
            words("model input instructions tools tool_choice reasoning text truncation"),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "m", "messages": messages()}),
            words("model messages system tools tool_choice thinking"),
        ),
        ("/tokenize", json!({"content": "x"}), words("content model add_special parse_special with_pieces")),
        ("/detokenize", json!({"tokens": [1]}), words("tokens model")),
        ("/apply-template", json!({"messages": messages()}), words("messages model tools")),
    ]
}

/// Values that look like what fields hold, in all the wrong places.
fn value() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 14] = [
        "m",
        "vec",
        "user",
        "assistant",
        "tool",
        "json",
        "high",
        "text",
        "function",
        "x:latest",
        "a/b/c:d",
        "aGk=",
        "5m",
        "{{ .Prompt }}",
    ];
    const KEYS: [&str; 18] = [
        "role",
        "content",
        "images",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "type",
        "text",
        "id",
        "num_ctx",
        "temperature",
        "stop",
        "seed",
        "effort",
        "properties",
        "input",
        "thinking",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&WORDS[..]).prop_map(Value::from),
        "[a-z{}<>|:/%. äß-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let field = (prop::sample::select(&KEYS[..]), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(field, 0..4).prop_map(|fields| {
                Value::Object(
                    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// Sends `cases` bodies that `strategy` makes for each endpoint.
fn every_answer_is_good<S: Strategy<Value = Vec<u8>>>(
    cases: u32,
    strategy: impl Fn(Value, Vec<&'static str>) -> S,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let places = Places { own: Some(folder.path().join("models")), ..Places::default() };
    let _inside = runtime.enter();
    let kit: Kit = Setup { store: Some(Arc::new(Store::new(places))), ..Setup::default() }.start();
    let (start, seconds) = (Instant::now(), std::env::var("HYPURA_FUZZ_SECONDS").ok());
    let long = Duration::from_secs(seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0));
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < long {
        every_endpoint_is_good(&kit, &runtime, folder.path().to_str().unwrap(), cases, &strategy);
        rounds += 1;
    }
    println!("{rounds} rounds of {cases} requests to each endpoint");
}

fn every_endpoint_is_good<S: Strategy<Value = Vec<u8>>>(
    kit: &Kit,
    runtime: &tokio::runtime::Runtime,
    private: &str,
    cases: u32,
    strategy: &impl Fn(Value, Vec<&'static str>) -> S,
) {
    for (path, good, fields) in native().into_iter().chain(others()) {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let judged = runner.run(&strategy(good, fields), |body| {
            let answer = runtime.block_on(kit.send(request(Method::POST, path, body)));
            prop_assert!(answer.status.as_u16() < 500, "{}: {}", answer.status, answer.text());
            let told = answer.text();
            prop_assert!(!told.contains("/secret") && !told.contains(private), "{}", told);
            if answer.status.is_client_error() {
                prop_assert!(!answer.json()["error"].is_null(), "{}", told);
            }
            Ok(())
        });
        judged.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn http_any_value_in_any_field_is_answered_or_refused() {
    every_answer_is_good(128, |good, fields| {
        prop::collection::vec((prop::sample::select(fields), value()), 1..4).prop_map(move |spoilt| {
            let mut body = good.clone();
            for (field, value) in spoilt {
                body[field] = value;
            }
            body.to_string().into_bytes()
        })
    });
}

/// What a question in an address may hold.
#[test]
fn http_any_question_in_an_address_is_answered_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let kit = Setup::default().start();
    let paths =
        ["/api/hypura/plan", "/api/hypura/experts", "/api/hypura/quantizations", "/slots", "/props", "/ui/x"];
    let names = ["model", "memory_bytes", "context_tokens", "prompt_tokens", "hit_rate", "quantization", "x"];
    let value = prop_oneof!["[0-9eE.+-]{0,24}", "[a-zA-Z0-9_:/.%-]{0,12}", Just("m".to_owned())];
    let field = (prop::sample::select(names.to_vec()), value);
    let question = (prop::sample::select(paths.to_vec()), prop::collection::vec(field, 0..5));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let judged = runner.run(&question, |(path, fields)| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let address = format!("{path}?{}", fields.join("&"));
        let Ok(uri) = address.parse::<http::Uri>() else { return Ok(()) };
        let answer = runtime.block_on(kit.send(request(Method::GET, &uri.to_string(), Vec::new())));
        prop_assert!(answer.status.as_u16() < 500, "{address}: {}: {}", answer.status, answer.text());
        Ok(())
    });
    judged.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn http_any_bytes_are_refused() {
    every_answer_is_good(64, |good, _| {
        let good = good.to_string().into_bytes();
        // A good body with a part of it replaced.
        (0..good.len(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(move |(at, bytes)| {
            let mut body = good.clone();
            body.splice(at..(at + 1).min(body.len()), bytes);
            body
        })
    });
}
