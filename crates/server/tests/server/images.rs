//! Pictures through every front end: with the scripted engine what reaches it, with the real one an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use hypura_core::synth::{self, ProjectorKind, Quant, Shape, SynthOptions, SynthPlan};
use hypura_engine::load::LoadSettings;
use hypura_engine::serve::RunnerSettings;
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::{EngineBackend, ManagerSettings, ModelManager, StoreCatalog};
use hypura_server::{HttpSettings, Server, router};
use hypura_store::{Capability, Places, Store};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::fake::Step;
use crate::fake_catalog::{able, entry};
use crate::kit::{Answer, Kit, Setup, post, read};
use tower::ServiceExt as _;

/// A BMP of 24 bits that no other `seed` makes.
fn picture(seed: u8) -> Vec<u8> {
    synth::picture(seed, 64, 48)
}

fn seeing() -> Kit {
    let models = vec![able("m", &[Capability::Completion, Capability::Vision]), entry("blind")];
    Setup { models, steps: vec![Step::Text("a cat")], ..Setup::default() }.start()
}

fn url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// The same request to every front end, with these pictures, after and before words where the protocol has an
/// order.
fn requests(model: &str, pictures: &[Vec<u8>]) -> Vec<(&'static str, Value)> {
    let plain: Vec<String> = pictures.iter().map(|bytes| STANDARD.encode(bytes)).collect();
    let parts = |text: &str, picture: &dyn Fn(&Vec<u8>) -> Value| {
        let mut parts = vec![json!({"type": text, "text": "what"})];
        parts.extend(pictures.iter().map(picture));
        parts.push(json!({"type": text, "text": "is it?"}));
        parts
    };
    let chat = parts("text", &|bytes| json!({"type": "image_url", "image_url": {"url": url(bytes)}}));
    let responses = parts("input_text", &|bytes| json!({"type": "input_image", "image_url": url(bytes)}));
    let blocks = parts("text", &|bytes| {
        let source = json!({"type": "base64", "media_type": "image/bmp", "data": STANDARD.encode(bytes)});
        json!({"type": "image", "source": source})
    });
    vec![
        ("/api/generate", json!({"model": model, "prompt": "what is it?", "images": plain, "stream": false})),
        (
            "/api/chat",
            json!({"model": model, "stream": false,
                "messages": [{"role": "user", "content": "what is it?", "images": plain}]}),
        ),
        ("/v1/chat/completions", json!({"model": model, "messages": [{"role": "user", "content": chat}]})),
        ("/v1/responses", json!({"model": model, "input": [{"role": "user", "content": responses}]})),
        (
            "/v1/messages",
            json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": blocks}]}),
        ),
    ]
}

/// The text of an answer, whatever protocol it is in.
pub(crate) fn text_of(answer: &Answer) -> String {
    fn find(value: &Value) -> Option<String> {
        match value {
            Value::Object(map) => ["response", "content", "text", "output", "message", "choices"]
                .iter()
                .find_map(|key| match map.get(*key) {
                    Some(Value::String(text)) => Some(text.clone()),
                    Some(other) => find(other),
                    None => None,
                }),
            Value::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    find(&answer.json()).unwrap_or_default()
}

/// Sends requests with these media before `what is it?`, or between its words, and expects them there.
pub(crate) async fn expect_media(
    kit: &Kit,
    requests: Vec<(&'static str, Value)>,
    media: &[Vec<u8>],
    says: &str,
) {
    for (path, body) in requests {
        let answer = kit.post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        assert_eq!(text_of(&answer), says, "{path}");
        let seen = kit.script.last();
        let files: Vec<Vec<u8>> = seen.media.iter().map(|file| file.to_vec()).collect();
        assert_eq!(files, media, "{path}");
        let expected = match path {
            "/api/generate" | "/api/chat" => "<user>##what is it?<assistant>",
            _ => "<user>what##is it?<assistant>",
        };
        assert_eq!(seen.text, expected, "{path}");
    }
}

#[tokio::test]
async fn images_reach_the_model_from_every_front_end_where_they_were() {
    let pictures = [picture(1), picture(2)];
    expect_media(&seeing(), requests("m", &pictures), &pictures, "a cat").await;
}

/// Why a request was refused.
pub(crate) fn refusal(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{:?}", answer.body);
    answer.text().to_owned()
}

#[tokio::test]
async fn images_are_refused_with_the_reason_where_they_cannot_be_used() {
    let kit = seeing();
    for (path, body) in requests("blind", &[picture(1)]) {
        assert!(refusal(&kit.post(path, body).await).contains("does not support images"), "{path}");
    }
    for (path, body) in requests("m", &[b"no picture".to_vec()]) {
        assert!(refusal(&kit.post(path, body).await).contains("jpeg, png, gif, bmp or webp"), "{path}");
    }
    let mut huge = picture(1);
    huge[18..22].copy_from_slice(&60_000u32.to_le_bytes());
    huge[22..26].copy_from_slice(&60_000u32.to_le_bytes());
    for (path, body) in requests("m", &[huge]) {
        assert!(refusal(&kit.post(path, body).await).contains("image 1"), "{path}");
    }
    for body in [
        json!({"model": "m", "prompt": "x", "images": ["%%"]}),
        json!({"model": "m", "prompt": "x", "images": [STANDARD.encode(picture(1))], "context": [1, 2]}),
        json!({"model": "m", "prompt": "x", "suffix": "y", "images": [STANDARD.encode(picture(1))]}),
    ] {
        refusal(&kit.post("/api/generate", body).await);
    }
    let far = json!([{"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": far}]});
    assert!(refusal(&kit.post("/v1/chat/completions", body).await).contains("data URL"));
    let far = json!([{"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}]);
    let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": far}]});
    assert!(refusal(&kit.post("/v1/messages", body).await).contains("base64"));
    assert!(kit.script.requests.lock().unwrap().is_empty(), "nothing was asked of the model");
    assert_eq!(kit.script.loads.load(std::sync::atomic::Ordering::SeqCst), 0, "nor was it loaded");
}

#[tokio::test]
async fn raw_prompts_say_themselves_where_their_images_are() {
    let kit = seeing();
    let images: Vec<String> = (0..2).map(|seed| STANDARD.encode(picture(seed))).collect();
    let body =
        json!({"model": "m", "prompt": "<u>[img-1]?[img-0]", "raw": true, "images": images, "stream": false});
    assert_eq!(kit.post("/api/generate", body).await.status, StatusCode::OK);
    let seen = kit.script.last();
    assert_eq!(seen.text, "<u>#?#");
    assert_eq!(seen.media.iter().map(|image| image.to_vec()).collect::<Vec<_>>(), [picture(1), picture(0)]);
    // The context of an answer has no numbers that mean nothing to anybody else.
    let template = json!({"model": "m", "prompt": "see", "template": "{{ .Prompt }}!", "images": images, "stream": false});
    let answer = kit.post("/api/generate", template).await.json();
    assert_eq!(kit.script.last().text, "##see!");
    assert!(answer["context"].as_array().unwrap().iter().all(|token| token.as_i64().unwrap() >= 0));
}

/// A tiny model, its projector, and a server that loads them.
pub(crate) fn real(folder: &Path, projector: Option<&[u8]>) -> (axum::Router, Arc<Server>) {
    let shape = Shape::TinyQwen2Vl;
    let plan = SynthPlan::new(&SynthOptions::new(shape, Quant::Q4_K)).unwrap();
    let mut bytes = vec![0; plan.shards()[0].file_bytes as usize];
    plan.fill_file(0, 0, &mut bytes);
    let path = folder.join("tiny-Q4_K.gguf");
    fs::write(&path, bytes).unwrap();
    if let Some(projector) = projector {
        fs::write(folder.join("mmproj-F16.gguf"), projector).unwrap();
    }
    let places = Places {
        own: None,
        ollama: Vec::new(),
        hugging_face: Vec::new(),
        lm_studio: Vec::new(),
        demo: None,
        cache: None,
    };
    let store = Arc::new(Store::new(places).with_files([PathBuf::from(&path)]));
    let backend = EngineBackend {
        store: Arc::clone(&store),
        settings: LoadSettings::default().with_threads(1).with_ubatch(32).with_context(512),
        runner: RunnerSettings::default(),
    };
    let settings = ManagerSettings {
        budget_bytes: 2 << 30,
        keep_alive: KeepAlive::DEFAULT,
        max_loaded: 0,
        max_queue: 4,
        load_timeout: Duration::from_secs(120),
    };
    let models = ModelManager::start(Arc::new(backend), settings).unwrap();
    let server = Server::new(Arc::new(StoreCatalog::new(store)), models, HttpSettings::default());
    (router(Arc::clone(&server)), server)
}

pub(crate) async fn send(router: &axum::Router, path: &str, body: Value) -> Answer {
    read(router.clone().oneshot(post(path, body)).await.unwrap()).await
}

/// Waits until the only model has reused so many tokens more than `before`: an answer may be complete before
/// it is counted.
pub(crate) async fn reuses(server: &Server, before: u64, least: u64) {
    let reused = || server.models.running()[0].status.totals.reused_tokens - before;
    for _ in 0..100 {
        if reused() >= least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} tokens were reused, not {least}", reused());
}

#[tokio::test]
async fn chat_pictures_of_a_long_conversation_are_decoded_once() {
    let kit = seeing();
    let shown = |seed: u8| json!({"role": "user", "content": "a question of some length", "images": [STANDARD.encode(picture(seed))]});
    let mut messages: Vec<Value> = (0..30).map(shown).collect();
    messages.push(json!({"role": "user", "content": "new"}));
    let ask = json!({"model": "m", "messages": messages, "stream": false, "options": {"num_ctx": 200}});
    let answer = kit.post("/api/chat", ask).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(kit.script.decoded.load(std::sync::atomic::Ordering::SeqCst), 30);
    let seen = kit.script.last();
    let kept = seen.text.matches('#').count();
    assert!((1..30).contains(&kept) && seen.media.len() == kept, "{}", seen.text);
    assert_eq!(seen.media.last().map(|file| file.to_vec()), Some(picture(29)), "the newest stay");
}

fn tiny_projector() -> Vec<u8> {
    ProjectorKind::file_for(Shape::TinyQwen2Vl, 3).unwrap()
}

#[tokio::test]
async fn a_real_model_sees_through_every_front_end() {
    let folder = tempfile::tempdir().unwrap();
    let (router, server) = real(folder.path(), Some(&tiny_projector()));
    let name = "tiny-Q4_K";
    let show = send(&router, "/api/show", json!({"model": name})).await.json();
    assert!(show["capabilities"].as_array().unwrap().contains(&json!("vision")), "{show}");
    assert_eq!(show["projector_info"]["clip.projector_type"], "qwen2vl_merger");
    assert_eq!(show["details"]["families"], json!(["qwen2vl", "clip"]));
    for (path, mut body) in requests(name, &[picture(1)]) {
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
    let image = STANDARD.encode(picture(7));
    let words = send(&router, "/api/chat", ask(json!([{"role": "user", "content": "what?"}]))).await.json();
    let first = json!([{"role": "user", "content": "what?", "images": [image]}]);
    let seen = send(&router, "/api/chat", ask(first.clone())).await.json();
    let count = |answer: &Value| answer["prompt_eval_count"].as_u64().unwrap();
    assert!(count(&seen) >= count(&words) + 4, "{seen} {words}");
    let before = server.models.running()[0].status.totals.reused_tokens;
    let mut second = first;
    second.as_array_mut().unwrap().push(json!({"role": "assistant", "content": seen["message"]["content"]}));
    second.as_array_mut().unwrap().push(json!({"role": "user", "content": "and?"}));
    send(&router, "/api/chat", ask(second)).await;
    reuses(&server, before, count(&seen) / 2 + 1).await;
    let ps = read(
        router
            .clone()
            .oneshot(crate::kit::request(http::Method::GET, "/api/ps", axum::body::Body::empty()))
            .await
            .unwrap(),
    );
    let size = ps.await.json()["models"][0]["size"].as_u64().unwrap();
    assert!(size > 192 << 20, "the projector and its pictures count: {size}");
}

#[tokio::test]
async fn a_damaged_picture_or_projector_is_told_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (router, _) = real(folder.path(), Some(&tiny_projector()));
    let mut cut = picture(1);
    cut.truncate(200);
    for (path, body) in requests("tiny-Q4_K", &[cut]) {
        let answer = send(&router, path, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {:?}", answer.body);
        assert!(answer.text().contains("cannot be decoded"), "{path}: {}", answer.text());
    }
    let good = tiny_projector();
    let (name, other) = (b"v.blk.1.attn_q.weight", b"v.blk.1.attn_x.weight");
    let at = good.windows(name.len()).position(|window| window == name).unwrap();
    let mut bad = good;
    bad[at..at + other.len()].copy_from_slice(other);
    let (router, _) = real(folder.path(), Some(&bad));
    for _ in 0..2 {
        let (path, body) = requests("tiny-Q4_K", &[picture(1)]).remove(0);
        let answer = send(&router, path, body).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.error().contains("mmproj-F16.gguf"), "{}", answer.error());
        assert!(!answer.error().contains(folder.path().to_str().unwrap()), "{}", answer.error());
    }
}

#[tokio::test]
async fn without_a_projector_the_model_is_blind() {
    let folder = tempfile::tempdir().unwrap();
    let (router, _) = real(folder.path(), None);
    let show = send(&router, "/api/show", json!({"model": "tiny-Q4_K"})).await.json();
    assert!(!show["capabilities"].as_array().unwrap().contains(&json!("vision")));
    assert!(show["projector_info"].is_null());
    let (path, body) = requests("tiny-Q4_K", &[picture(1)]).remove(0);
    assert!(send(&router, path, body).await.error().contains("does not support images"));
}
