//! `/v1/audio/transcriptions`: forms, what reaches the model, and the shapes of the answer.

use http::{HeaderValue, Method, StatusCode, header};
use hypura_core::synth;
use hypura_store::Capability;
use serde_json::{Value, json};

use crate::fake::Step;
use crate::fake_catalog::{able, entry};
use crate::images::refusal;
use crate::kit::{Answer, Kit, Setup, request};

fn hearing() -> Kit {
    let models = vec![able("m", &[Capability::Completion, Capability::Audio]), entry("deaf")];
    Setup { models, steps: vec![Step::Text(" a b"), Step::Text("ell ")], ..Setup::default() }.start()
}

/// A form with these fields, and a file unless it is empty.
async fn ask(kit: &Kit, fields: &[(&str, &str)], file: &[u8]) -> Answer {
    let mut body = Vec::new();
    let mut part = |head: &str, content: &[u8]| {
        body.extend_from_slice(format!("--B0\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    for (name, value) in fields {
        part(&format!("name=\"{name}\""), value.as_bytes());
    }
    if !file.is_empty() {
        part("name=\"file\"; filename=\"a.wav\"", file);
    }
    body.extend_from_slice(b"--B0--\r\n");
    let mut request = request(Method::POST, "/v1/audio/transcriptions", body);
    let kind = HeaderValue::from_static("multipart/form-data; boundary=B0");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    kit.send(request).await
}

#[tokio::test]
async fn words_of_a_sound_are_asked_for_and_nothing_else() {
    let (kit, sound) = (hearing(), synth::sound(1, 0.6));
    let answer = ask(&kit, &[("model", "m"), ("language", "de"), ("prompt", "Glocken")], &sound).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let answer = answer.json();
    assert_eq!((&answer["text"], &answer["usage"]["type"]), (&json!("a bell"), &json!("tokens")));
    let seen = kit.script.last();
    assert_eq!((seen.media.len(), seen.media[0].to_vec()), (1, sound.clone()));
    for part in ["exactly", "language of the audio: de", "Glocken", "<user>#Which words"] {
        assert!(seen.text.contains(part), "{part:?} is not in {}", seen.text);
    }
    assert_eq!(seen.sampling.temperature, 0.0);
    // What a model does not know is left out, as in Ollama.
    let plain =
        ask(&kit, &[("model", "m"), ("response_format", "text"), ("temperature", "0.5")], &sound).await;
    assert_eq!(
        (plain.text(), plain.headers[header::CONTENT_TYPE].to_str().unwrap()),
        ("a bell", "text/plain; charset=utf-8")
    );
    assert_eq!(kit.script.last().sampling.temperature, 0.5);
    let verbose = ask(&kit, &[("model", "m"), ("response_format", "verbose_json")], &sound).await.json();
    assert_eq!(verbose["text"], "a bell");
}

#[tokio::test]
async fn words_of_a_sound_come_as_they_are_heard() {
    let answer = ask(&hearing(), &[("model", "m"), ("stream", "true")], &synth::sound(1, 0.6)).await;
    let events: Vec<Value> = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]);
    assert_eq!((&events[0]["delta"], &events[2]["text"]), (&json!(" a b"), &json!("a bell")));
}

#[tokio::test]
async fn forms_that_cannot_be_answered_are_refused() {
    let (kit, sound) = (hearing(), synth::sound(1, 0.6));
    for (fields, file, why) in [
        (vec![], &sound[..], "model is required"),
        (vec![("model", "m")], b"", "file is required"),
        (vec![("model", "m")], b"no sound", "wav, mp3 or flac"),
        (vec![("model", "deaf")], &sound, "does not support audio"),
        (vec![("model", "m"), ("response_format", "srt")], &sound, "srt"),
        (vec![("model", "m"), ("temperature", "hot")], &sound, "temperature must be a number"),
        (vec![("model", "m")], &sound[..sound.len() / 2], "cut off"),
    ] {
        let told = refusal(&ask(&kit, &fields, file).await);
        assert!(told.contains(why), "{told}");
    }
    let json = kit.post("/v1/audio/transcriptions", json!({"model": "m"})).await;
    assert!(refusal(&json).contains("Content-Type"), "{:?}", json.body);
    assert!(kit.script.requests.lock().unwrap().is_empty(), "nothing was asked of the model");
}
