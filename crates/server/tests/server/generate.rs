//! Prompts and their options.

use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value, json};

use crate::fake::Step;
use crate::fake_catalog::set;
use crate::kit::{Kit, Setup};
use hypura_engine::SamplerOptions;
use hypura_store::{Message, ModelSettings};

async fn ask(kit: &Kit, more: Value) -> crate::kit::Answer {
    let mut body = json!({"model": "m", "prompt": "hi", "stream": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    kit.post("/api/generate", body).await
}

#[tokio::test]
async fn generate_an_empty_prompt_loads() {
    let kit = Kit::new();
    let answer = kit.post("/api/generate", json!({"model": "m"})).await;
    let value = answer.json();
    assert_eq!(value["response"], "");
    assert_eq!((&value["done"], &value["done_reason"]), (&json!(true), &json!("load")));
    assert_eq!(kit.server.models.running().len(), 1);
    assert!(kit.script.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn generate_an_empty_prompt_with_keep_alive_0_unloads() {
    let kit = Kit::new();
    kit.post("/api/generate", json!({"model": "m"})).await;
    for _ in 0..2 {
        let answer = kit.post("/api/generate", json!({"model": "m", "keep_alive": 0, "prompt": ""})).await;
        assert_eq!((answer.status, &answer.json()["done_reason"]), (StatusCode::OK, &json!("unload")));
        assert!(kit.server.models.running().is_empty());
    }
}

#[tokio::test]
async fn generate_raw_has_no_template_and_no_context() {
    let kit = Kit::new();
    let answer = ask(&kit, json!({"raw": true})).await.json();
    assert_eq!(kit.script.last().text, "hi");
    assert!(answer.get("context").is_none());
    for more in [json!({"template": "x"}), json!({"system": "x"}), json!({"context": [1]})] {
        let mut more = more;
        more["raw"] = json!(true);
        let answer = ask(&kit, more).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.error(), "raw mode does not support template, system, or context");
    }
}

#[tokio::test]
async fn generate_the_requests_system_wins_and_the_models_messages_need_no_context() {
    let say = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let with = set(ModelSettings {
        system: Some("model".into()),
        messages: vec![say("user", "q"), say("assistant", "a")],
        ..ModelSettings::default()
    });
    let kit = Setup { models: vec![with], ..Setup::default() }.start();
    ask(&kit, json!({})).await;
    assert_eq!(kit.script.last().text, "<system>model<user>q<assistant>a<user>hi<assistant>");
    ask(&kit, json!({"system": "mine"})).await;
    assert_eq!(kit.script.last().text, "<system>mine<user>q<assistant>a<user>hi<assistant>");
    ask(&kit, json!({"context": [65, 66]})).await;
    assert_eq!(kit.script.last().text, "AB<system>model<user>hi<assistant>");
}

#[tokio::test]
async fn generate_a_template_of_the_request() {
    let kit = Kit::new();
    ask(&kit, json!({"template": "[{{ if .System }}{{ .System }}|{{ end }}{{ .Prompt }}]", "system": "s"}))
        .await;
    assert_eq!(kit.script.last().text, "[s|hi]");
    let refused = ask(&kit, json!({"template": "{{ range .Messages }}{{ end }}"})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.error().starts_with("template error"));
    ask(&kit, json!({"template": "{% for m in messages %}{{ m.content }}{% endfor %}"})).await;
    assert!(kit.script.chats.lock().unwrap().last().unwrap().template.as_ref().unwrap().starts_with("{%"));
}

#[tokio::test]
async fn generate_a_suffix_fills_a_gap_where_the_model_can() {
    let kit = Kit::new();
    ask(&kit, json!({"suffix": "end"})).await;
    assert_eq!(kit.script.last().text, "<pre>hi<suf>end<mid>");
    let answer = ask(&kit, json!({"model": "plain", "suffix": "end"})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.error(), "registry.ollama.ai/library/plain:latest does not support insert");
}

#[tokio::test]
async fn generate_context_comes_back_and_goes_before_the_next_prompt() {
    let kit = Kit::new();
    let first = ask(&kit, json!({})).await.json();
    let context = first["context"].as_array().unwrap();
    // The prompt's tokens, then the two of the answer.
    assert_eq!(context.len(), "<user>hi<assistant>".len() + 1 + 2);
    ask(&kit, json!({"prompt": "more", "context": [72, 105]})).await;
    assert_eq!(kit.script.last().text, "Hi<user>more<assistant>");
}

#[tokio::test]
async fn generate_pictures_need_a_model_that_sees() {
    let kit = Kit::new();
    let bad = ask(&kit, json!({"images": ["data:image/png;base64,AAAA"]})).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.error().contains("base64"));
    let picture = base64::engine::general_purpose::STANDARD.encode("not really");
    let blind = ask(&kit, json!({"images": [picture]})).await;
    assert_eq!(blind.status, StatusCode::BAD_REQUEST);
    assert!(blind.error().ends_with("does not support images"), "{}", blind.error());
}

#[tokio::test]
async fn generate_thinking() {
    let kit =
        Kit::answering(&[Step::Text("<think>"), Step::Text("hm"), Step::Text("</think>"), Step::Text("so")]);
    let answer = ask(&kit, json!({})).await.json();
    assert_eq!((&answer["thinking"], &answer["response"]), (&json!("hm"), &json!("so")));
    let think = |kit: &Kit| format!("{:?}", kit.script.chats.lock().unwrap().last().unwrap().think);
    assert_eq!(think(&kit), "Some(Switch(true))");
    ask(&kit, json!({"think": false})).await;
    assert_eq!(think(&kit), "Some(Switch(false))");
    ask(&kit, json!({"think": "high"})).await;
    assert_eq!(think(&kit), "Some(Level(\"high\"))");
    ask(&kit, json!({"think": "false"})).await;
    assert_eq!(think(&kit), "Some(Switch(false))", "a switch as a text, as forms send it");
    let odd = ask(&kit, json!({"think": "very"})).await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    assert!(odd.error().starts_with("invalid think value: \"very\""));
    for think in [json!(true), json!("low")] {
        let refused = ask(&kit, json!({"model": "plain", "think": think})).await;
        assert_eq!(refused.error(), "\"plain\" does not support thinking");
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(ask(&kit, json!({"model": "plain", "think": false})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn generate_formats() {
    let kit = Kit::new();
    for none in [json!(null), json!("")] {
        ask(&kit, json!({"format": none})).await;
        assert_eq!(kit.script.last().grammar, None);
    }
    ask(&kit, json!({"format": "json"})).await;
    assert_eq!(kit.script.last().grammar.as_deref(), Some("json"));
    ask(&kit, json!({"format": {"type": "object", "properties": {"z": {}, "a": {}}}})).await;
    let grammar = kit.script.last().grammar.unwrap();
    assert!(grammar.find("\"z\"") < grammar.find("\"a\""), "the order of keys is kept: {grammar}");
    ask(&kit, json!({"format": "json", "raw": true})).await;
    assert_eq!(kit.script.last().grammar.as_deref(), Some("json"));
    for bad in [json!("xml"), json!(3), json!([1]), json!(true)] {
        let answer = ask(&kit, json!({"format": bad})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.error().contains("expected \"json\" or a valid JSON Schema object"));
    }
    assert_eq!(ask(&kit, json!({"format": {"type": "nonsense"}})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn generate_log_probabilities() {
    let kit = Kit::new();
    let answer = ask(&kit, json!({"logprobs": true})).await.json();
    let first = &answer["logprobs"][0];
    assert_eq!(first["token"], "Hello");
    assert_eq!(first["logprob"], -0.5);
    assert_eq!(first["bytes"], json!("Hello".as_bytes()));
    assert!(first.get("top_logprobs").is_none());
    assert_eq!(answer["logprobs"].as_array().unwrap().len(), 2);
    let answer = ask(&kit, json!({"logprobs": true, "top_logprobs": 2})).await.json();
    assert_eq!(answer["logprobs"][1]["top_logprobs"].as_array().unwrap().len(), 2);
    for bad in [-1, 21] {
        let answer = ask(&kit, json!({"logprobs": true, "top_logprobs": bad})).await;
        assert_eq!(answer.error(), "top_logprobs must be between 0 and 20");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    assert!(ask(&kit, json!({})).await.json().get("logprobs").is_none());
    let lines =
        kit.post("/api/generate", json!({"model": "m", "prompt": "x", "logprobs": true})).await.lines();
    assert_eq!(lines[0]["logprobs"][0]["token"], "Hello");
}

#[tokio::test]
async fn generate_the_last_chunk_has_the_figures() {
    let kit = Kit::new();
    let lines = kit.post("/api/generate", json!({"model": "M", "prompt": "x"})).await.lines();
    assert_eq!(
        (&lines[0]["response"], &lines[0]["done"], &lines[0]["model"]),
        (&json!("Hello"), &json!(false), &json!("M"))
    );
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["response"]),
        (&json!(true), &json!("stop"), &json!(""))
    );
    for key in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "eval_count"] {
        assert!(last[key].as_u64().unwrap() > 0, "{key}");
    }
    // The whole prompt, also what was cached.
    assert_eq!(last["prompt_eval_count"], "<user>x<assistant>".len() + 1);
    assert!(last["context"].is_array());
    kit.script.set(&[Step::Text("a"), Step::Length]);
    assert_eq!(ask(&kit, json!({})).await.json()["done_reason"], "length");
    // This protocol has no word for progress, nor for which stop string came.
    kit.script.set(&[Step::Progress(1, 2), Step::Text("a"), Step::Stop("x")]);
    let lines = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await.lines();
    assert_eq!((lines.len(), &lines[1]["done_reason"]), (2, &json!("stop")));
}

#[tokio::test]
async fn generate_shift_is_read_and_changes_nothing() {
    let kit = Kit::answering(&[Step::Text("a"), Step::Length]);
    for shift in [json!(true), json!(false), json!(null)] {
        assert_eq!(ask(&kit, json!({"shift": shift})).await.json()["done_reason"], "length");
    }
    assert_eq!(ask(&kit, json!({"shift": "yes"})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn generate_the_rendered_prompt_alone() {
    let kit = Kit::new();
    let answer = ask(&kit, json!({"_debug_render_only": true})).await.json();
    assert_eq!(answer["_debug_info"]["rendered_template"], "<user>hi<assistant>");
    assert_eq!(answer["_debug_info"]["image_count"], 0);
    assert!(kit.script.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn generate_a_long_prompt_is_cut_or_refused() {
    let kit = Kit::new();
    let more =
        json!({"prompt": "abcdefghij".repeat(3), "raw": true, "options": {"num_ctx": 11, "num_keep": 2}});
    assert_eq!(ask(&kit, more.clone()).await.status, StatusCode::OK);
    assert_eq!(kit.script.last().text, "acdefghij");
    let mut refused = more;
    refused["truncate"] = json!(false);
    let answer = ask(&kit, refused).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.error().contains("exceeds the context length of 11"));
}

#[tokio::test]
async fn options_every_option_reaches_the_engine_request_over_model_over_default() {
    let sampling = |option: Value, model: Value| async move {
        let parameters = model.as_object().unwrap().clone();
        let with = set(ModelSettings { parameters, ..ModelSettings::default() });
        let kit = Setup { models: vec![with], ..Setup::default() }.start();
        assert_eq!(ask(&kit, json!({"options": option})).await.status, StatusCode::OK);
        kit.script.last().sampling
    };
    let defaults = SamplerOptions {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.0,
        typical_p: 1.0,
        repeat_last: 64,
        repeat_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
    };
    let drawn = sampling(json!({}), json!({})).await;
    assert_ne!(drawn.seed, sampling(json!({}), json!({})).await.seed, "another one for each request");
    assert_eq!(SamplerOptions { seed: 0, ..drawn }, defaults);
    let of_model = json!({
        "temperature": 0.25, "top_k": 3, "top_p": 0.5, "min_p": 0.125, "typical_p": 0.75, "repeat_last_n": 5,
        "repeat_penalty": 1.5, "presence_penalty": 0.25, "frequency_penalty": 0.5, "seed": 7,
    });
    let models = SamplerOptions {
        temperature: 0.25,
        top_k: 3,
        top_p: 0.5,
        min_p: 0.125,
        typical_p: 0.75,
        repeat_last: 5,
        repeat_penalty: 1.5,
        presence_penalty: 0.25,
        frequency_penalty: 0.5,
        seed: 7,
    };
    assert_eq!(sampling(json!({}), of_model.clone()).await, models);
    let of_request = json!({
        "temperature": 0, "top_k": 9.0, "top_p": 1, "min_p": 0.5, "typical_p": 0.5, "repeat_last_n": -1,
        "repeat_penalty": 1.25, "presence_penalty": 1.5, "frequency_penalty": -0.5, "seed": 0,
    });
    let requests = SamplerOptions {
        temperature: 0.0,
        top_k: 9,
        top_p: 1.0,
        min_p: 0.5,
        typical_p: 0.5,
        repeat_last: -1,
        repeat_penalty: 1.25,
        presence_penalty: 1.5,
        frequency_penalty: -0.5,
        seed: 0,
    };
    assert_eq!(sampling(of_request, of_model.clone()).await, requests);
    let mixed = SamplerOptions { top_p: 0.625, ..models };
    assert_eq!(sampling(json!({"top_p": 0.625, "min_p": null}), of_model).await, mixed);
}

#[tokio::test]
async fn options_limits_and_stops() {
    let of_model = json!({"temperature": 0.1, "top_k": 7, "stop": "M"});
    let parameters = of_model.as_object().unwrap().clone();
    let with = set(ModelSettings { parameters, ..ModelSettings::default() });
    let kit = Setup { models: vec![with], ..Setup::default() }.start();
    ask(&kit, json!({"options": {"temperature": 0.5, "seed": 42, "num_predict": 9, "num_ctx": 2048.0}}))
        .await;
    let seen = kit.script.last();
    assert_eq!((seen.sampling.temperature, seen.sampling.top_k, seen.sampling.seed), (0.5, 7, 42));
    assert_eq!((seen.max_tokens, seen.context.now), (Some(9), Some(2048)));
    assert_eq!(seen.stops, ["<end>", "M"]);
    ask(&kit, json!({"options": {"stop": ["R"], "seed": -1, "mirostat": 1, "unknown": {}}})).await;
    assert_eq!(kit.script.last().stops, ["<end>", "R"]);
    let drawn = kit.script.last().sampling.seed;
    ask(&kit, json!({"options": {"stop": ["R"], "seed": -1}})).await;
    assert_ne!(kit.script.last().sampling.seed, drawn, "\u{2212}1 draws a seed");
    assert_eq!(kit.script.last().max_tokens, Some(40_960));
    let answer = ask(&kit, json!({"options": {"num_ctx": "big"}})).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::BAD_REQUEST, "option \"num_ctx\" must be of type integer")
    );
}

#[tokio::test]
async fn options_another_context_is_no_reason_to_load_again() {
    let kit = Kit::new();
    for num_ctx in [2048, 8192, 512, 100_000] {
        assert_eq!(
            ask(&kit, json!({"options": {"num_ctx": num_ctx, "num_batch": 64}})).await.status,
            StatusCode::OK
        );
    }
    assert_eq!(kit.script.loads.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn names_generate() {
    let kit = Kit::new();
    for (name, status, error) in [
        ("", StatusCode::NOT_FOUND, "model '' not found"),
        ("a b", StatusCode::BAD_REQUEST, "invalid model name"),
        ("nope", StatusCode::NOT_FOUND, "model 'nope' not found"),
    ] {
        let answer = kit.post("/api/generate", json!({"model": name, "prompt": "x"})).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
        let load = kit.post("/api/generate", json!({"model": name})).await;
        assert_eq!((load.status, load.error().as_str()), (status, error));
    }
    let vec = kit.post("/api/generate", json!({"model": "vec", "prompt": "x"})).await;
    assert_eq!(
        (vec.status, vec.error().as_str()),
        (StatusCode::BAD_REQUEST, "\"vec\" does not support generate")
    );
}
