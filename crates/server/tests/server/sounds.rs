//! Sounds through every front end that has a word for them: with the scripted engine what reaches it, with
//! the real one an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use hypura_core::synth::{self, ProjectorKind, Shape};
use hypura_store::Capability;
use serde_json::{Value, json};

use crate::fake::Step;
use crate::fake_catalog::{able, entry};
use crate::images::{expect_media, real, refusal, reuses, send, text_of};
use crate::kit::{Kit, Setup, read, request};
use tower::ServiceExt as _;

fn sound(seed: u8) -> Vec<u8> {
    synth::sound(seed, 0.6)
}

/// One that hears, one that sees, one with both modalities and one with none.
fn hearing() -> Kit {
    use Capability::{Audio, Completion, Vision};
    let models = vec![
        able("m", &[Completion, Audio]),
        able("deaf", &[Completion, Vision]),
        able("both", &[Completion, Vision, Audio]),
        entry("none"),
    ];
    Setup { models, steps: vec![Step::Text("a bell")], ..Setup::default() }.start()
}

/// The same request to every front end, with these sounds, after and before words where the protocol has an
/// order.
fn requests(model: &str, sounds: &[Vec<u8>]) -> Vec<(&'static str, Value)> {
    let plain: Vec<String> = sounds.iter().map(|bytes| STANDARD.encode(bytes)).collect();
    let parts = |text: &str| {
        let mut parts = vec![json!({"type": text, "text": "what"})];
        parts.extend(
            plain
                .iter()
                .map(|data| json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})),
        );
        parts.push(json!({"type": text, "text": "is it?"}));
        parts
    };
    vec![
        ("/api/generate", json!({"model": model, "prompt": "what is it?", "images": plain, "stream": false})),
        (
            "/api/chat",
            json!({"model": model, "stream": false,
                "messages": [{"role": "user", "content": "what is it?", "images": plain}]}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": [{"role": "user", "content": parts("text")}]}),
        ),
        (
            "/v1/responses",
            json!({"model": model, "input": [{"role": "user", "content": parts("input_text")}]}),
        ),
    ]
}

#[tokio::test]
async fn gen_chat_10_1_sounds_reach_the_model_from_every_front_end_where_they_were() {
    let sounds = [sound(1), sound(2)];
    expect_media(&hearing(), requests("m", &sounds), &sounds, "a bell").await;
}

#[tokio::test]
async fn pictures_and_sounds_share_a_list_and_keep_their_order() {
    let kit = hearing();
    let files = [synth::picture(1, 64, 48), sound(1), synth::picture(2, 64, 48)];
    let encoded: Vec<String> = files.iter().map(|bytes| STANDARD.encode(bytes)).collect();
    let body = json!({"model": "both", "prompt": "compare", "images": encoded, "stream": false});
    assert_eq!(kit.post("/api/generate", body).await.status, StatusCode::OK);
    let seen: Vec<Vec<u8>> = kit.script.last().media.iter().map(|file| file.to_vec()).collect();
    assert_eq!(seen, files);
}

#[tokio::test]
async fn a_sense_that_a_model_lacks_is_named() {
    let kit = hearing();
    for name in ["deaf", "none"] {
        for (path, body) in requests(name, &[sound(1)]) {
            let told = refusal(&kit.post(path, body).await);
            assert!(told.contains("does not support audio"), "{path}: {told}");
        }
    }
    let picture = STANDARD.encode(synth::picture(1, 64, 48));
    let body = json!({"model": "m", "prompt": "x", "images": [picture]});
    assert!(refusal(&kit.post("/api/generate", body).await).contains("does not support images"));
    assert!(kit.script.requests.lock().unwrap().is_empty(), "nothing was asked of the model");
}

#[tokio::test]
async fn sounds_that_cannot_be_used_are_refused_before_a_model_is_loaded() {
    let kit = hearing();
    let good = sound(1);
    let mut huge = good.clone();
    huge[40..44].copy_from_slice(&0xffff_ff00_u32.to_le_bytes());
    let mut absurd = good.clone();
    absurd[22..24].copy_from_slice(&u16::MAX.to_le_bytes());
    let empty = synth::sound(1, 0.0);
    for (bytes, why) in [
        (&good[..good.len() / 2], "cut off"),
        (&good[..20], "cut off"),
        (&huge, "cut off"),
        (&absurd, "65535 channels"),
        (&empty, "is empty"),
        (b"OggS and so on", "wav, mp3 or flac"),
    ] {
        for (path, body) in requests("m", &[bytes.to_vec()]) {
            let told = refusal(&kit.post(path, body).await);
            assert!(told.contains("audio 1") && told.contains(why), "{path}: {told}");
        }
    }
    // What is no sound at all: beside pictures it might have been one of those.
    for (path, body) in requests("both", &[b"no sound".to_vec()]) {
        let told = refusal(&kit.post(path, body).await);
        let expected = if path.starts_with("/api") { "jpeg, png" } else { "wav, mp3 or flac" };
        assert!(told.contains(expected), "{path}: {told}");
    }
    for (audio, why) in [
        (json!({"data": STANDARD.encode(&good), "format": "opus"}), "opus"),
        (json!({"data": "%%", "format": "wav"}), "base64"),
        (json!({"format": "wav"}), "base64"),
        (json!({"url": "https://example.com/a.wav"}), "base64"),
        (json!("text"), "base64"),
        (Value::Null, "base64"),
    ] {
        let parts = json!([{"type": "input_audio", "input_audio": audio}]);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": parts}]});
        let told = refusal(&kit.post("/v1/chat/completions", body).await);
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(kit.script.loads.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing was loaded");
}

#[tokio::test]
async fn chat_a_sound_may_be_a_data_url_and_need_not_say_its_format() {
    let kit = hearing();
    let data = STANDARD.encode(sound(1));
    for audio in [json!({"data": format!("data:audio/wav;base64,{data}")}), json!({"data": data})] {
        let parts = json!([{"type": "input_audio", "input_audio": audio}]);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": parts}]});
        assert_eq!(kit.post("/v1/chat/completions", body).await.status, StatusCode::OK);
        assert_eq!(kit.script.last().media[0].as_slice(), sound(1));
    }
}

#[tokio::test]
async fn show_a_real_model_hears_through_every_front_end() {
    let folder = tempfile::tempdir().unwrap();
    let ears = ProjectorKind::Ultravox.file_of(Shape::TinyQwen2Vl, 3).unwrap();
    let (router, server) = real(folder.path(), Some(&ears));
    let name = "tiny-Q4_K";
    let show = send(&router, "/api/show", json!({"model": name})).await.json();
    let capabilities = show["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&json!("audio")) && !capabilities.contains(&json!("vision")), "{show}");
    assert_eq!(show["projector_info"]["clip.audio.block_count"], 2);
    assert_eq!(show["projector_info"]["clip.projector_type"], "ultravox");
    let get = |path: &'static str| {
        let router = router.clone();
        async move {
            read(router.oneshot(request(Method::GET, path, axum::body::Body::empty())).await.unwrap())
                .await
                .json()
        }
    };
    assert_eq!(get("/props?model=tiny-Q4_K").await["modalities"], json!({"vision": false, "audio": true}));
    for (path, mut body) in requests(name, &[sound(1)]) {
        body["max_tokens"] = 6.into();
        body["options"] = json!({"num_predict": 6, "temperature": 0});
        let answer = send(&router, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        assert!(!text_of(&answer).is_empty(), "{path}");
    }
    // Its rows are tokens of the prompt, and are not read twice.
    let ask = |messages: Value| {
        json!({"model": name, "messages": messages, "stream": false,
            "options": {"num_predict": 4, "temperature": 0, "seed": 1}})
    };
    let words = send(&router, "/api/chat", ask(json!([{"role": "user", "content": "what?"}]))).await.json();
    let first = json!([{"role": "user", "content": "what?", "images": [STANDARD.encode(sound(7))]}]);
    let heard = send(&router, "/api/chat", ask(first.clone())).await.json();
    let count = |answer: &Value| answer["prompt_eval_count"].as_u64().unwrap();
    assert_eq!(count(&heard), count(&words) + 25, "{heard} {words}");
    // More than the beginning that all prompts share.
    assert!(count(&heard) / 2 > count(&words) / 2 + 10);
    let before = server.models.running()[0].status.totals.reused_tokens;
    let mut second = first;
    second.as_array_mut().unwrap().push(json!({"role": "assistant", "content": heard["message"]["content"]}));
    second.as_array_mut().unwrap().push(json!({"role": "user", "content": "and?"}));
    send(&router, "/api/chat", ask(second)).await;
    reuses(&server, before, count(&heard) / 2 + 1).await;
    // What only decoding finds out.
    let told = async |sound: &[u8]| {
        let messages = json!([{"role": "user", "content": "what?", "images": [STANDARD.encode(sound)]}]);
        refusal(&send(&router, "/api/chat", ask(messages)).await)
    };
    let mut long = synth::sound(1, 601.0);
    assert!(told(&long).await.contains("longer than the 600 seconds"));
    long.truncate(44);
    long[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(told(&long).await.contains("is empty"));
}

#[tokio::test]
async fn show_a_projector_with_both_encoders_gives_both_senses() {
    let folder = tempfile::tempdir().unwrap();
    let both = ProjectorKind::Omni.file_of(Shape::TinyQwen2Vl, 3).unwrap();
    let (router, _) = real(folder.path(), Some(&both));
    let show = send(&router, "/api/show", json!({"model": "tiny-Q4_K"})).await.json();
    let capabilities = show["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&json!("audio")) && capabilities.contains(&json!("vision")), "{show}");
    let files = [sound(1), synth::picture(1, 64, 48)].map(|bytes| STANDARD.encode(bytes));
    let body = json!({"model": "tiny-Q4_K", "prompt": "compare", "images": files, "stream": false,
        "options": {"num_predict": 3, "num_ctx": 1200}});
    let answer = send(&router, "/api/generate", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert!(answer.json()["prompt_eval_count"].as_u64().unwrap() > 750);
}
