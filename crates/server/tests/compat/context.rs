//! Prompts of agents: the context grows for them, and what does not fit is refused in the vendors' words,
//! never cut.

use http::StatusCode;
use serde_json::{Value, json};

use crate::events;
use crate::fake::Step;
use crate::kit::{Answer, Kit};

/// A system prompt of about so many tokens, which the fake's are characters of.
fn agent(tokens: usize) -> Vec<(&'static str, Value)> {
    let text = "You are an agent. ".repeat(tokens / 18 + 1);
    let messages = json!([{"role": "system", "content": text}, {"role": "user", "content": "Hi"}]);
    vec![
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": messages, "max_completion_tokens": 32_000}),
        ),
        ("/v1/completions", json!({"model": "m", "prompt": text, "max_tokens": 32_000})),
        (
            "/v1/responses",
            json!({"model": "m", "instructions": text, "input": "Hi", "max_output_tokens": 32_000}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "system": text, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 32_000}),
        ),
    ]
}

fn roomy() -> Kit {
    let kit = Kit::answering(&[Step::Text("yes")]);
    *kit.script.context_most.lock().unwrap() = Some(131_072);
    kit
}

#[tokio::test]
async fn the_context_grows_for_a_long_prompt_and_the_answer_that_is_asked_for() {
    for (path, body) in agent(19_000) {
        let kit = roomy();
        assert_eq!(kit.post(path, body).await.status, StatusCode::OK, "{path}");
        let seen = kit.script.last();
        let prompt = seen.text.chars().count() as u32;
        assert!(prompt >= 19_000, "{path}: {prompt} tokens of the prompt are left");
        let (now, most) = (seen.context.now.unwrap(), seen.context.most.unwrap());
        assert!((prompt + 1000..prompt + 1100).contains(&now), "{path}: {now}");
        assert!((prompt + 32_000..prompt + 32_100).contains(&most), "{path}: {most}");
        assert_eq!(seen.max_tokens, Some(32_000), "{path}");
        let loaded = kit.script.loaded_for.lock().unwrap()[0].unwrap();
        assert!(loaded > 6000, "{path}: a model is loaded for {loaded} tokens");
    }
}

#[tokio::test]
async fn a_short_prompt_is_no_reason_to_load_a_model_with_more_context_than_usual() {
    for (path, body) in agent(18) {
        let kit = roomy();
        assert_eq!(kit.post(path, body).await.status, StatusCode::OK, "{path}");
        assert_eq!(*kit.script.loaded_for.lock().unwrap(), [None], "{path}");
    }
}

/// What clients look for in an answer to a prompt that does not fit.
fn refused(path: &str, answer: &Answer) {
    let error = &answer.json()["error"];
    let message = error["message"].as_str().unwrap();
    match path {
        "/v1/messages" => {
            assert_eq!(error["type"], "invalid_request_error");
            let numbers = message.strip_prefix("prompt is too long: ").unwrap();
            let (tokens, rest) = numbers.split_once(" tokens > ").unwrap();
            let most = rest.strip_suffix(" maximum").unwrap();
            assert!(tokens.parse::<u32>().unwrap() >= 19_000, "{message}");
            assert_eq!(most.parse(), Ok(8191));
        }
        _ => {
            assert_eq!(
                (error["type"].as_str(), error["code"].as_str()),
                (Some("invalid_request_error"), Some("context_length_exceeded"))
            );
            assert!(message.starts_with("This model's maximum context length is 8191 tokens."), "{message}");
        }
    }
}

#[tokio::test]
async fn a_prompt_that_cannot_have_its_context_is_refused_and_never_cut() {
    for (path, mut body) in agent(19_000) {
        let kit = roomy();
        *kit.script.context_most.lock().unwrap() = Some(8192);
        let answer = kit.post(path, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        refused(path, &answer);
        assert!(kit.script.requests.lock().unwrap().is_empty(), "{path}");
        body["stream"] = json!(true);
        let answer = kit.post(path, body).await;
        if path == "/v1/responses" {
            // OpenAI's streams begin before that is known, and so agents read it.
            assert_eq!(answer.status, StatusCode::OK);
            let all = events(&answer);
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["response.created", "response.in_progress", "response.failed"]);
            assert_eq!(all[2].1["response"]["error"]["code"], "context_length_exceeded");
        } else {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
            refused(path, &answer);
        }
    }
}

#[tokio::test]
async fn a_long_answer_is_cut_where_the_largest_context_ends_and_not_before() {
    for (path, body) in agent(7000) {
        let kit = roomy();
        *kit.script.context_most.lock().unwrap() = Some(8192);
        assert_eq!(kit.post(path, body).await.status, StatusCode::OK, "{path}");
        assert!(kit.script.last().text.chars().count() >= 7000, "{path}");
    }
}

#[tokio::test]
async fn ollamas_own_routes_still_cut_as_ollama_does() {
    let kit = roomy();
    let text = "You are an agent. ".repeat(1100);
    let messages = json!([{"role": "user", "content": text}, {"role": "user", "content": "Hi"}]);
    let body = json!({"model": "m", "messages": messages, "stream": false, "options": {"num_ctx": 4096}});
    assert_eq!(kit.post("/api/chat", body).await.status, StatusCode::OK);
    assert!(kit.script.last().text.chars().count() < 4096);
    assert_eq!(kit.script.last().context.most, None);
}
