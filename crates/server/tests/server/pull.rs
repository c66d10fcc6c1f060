//! Models arrive from servers that behave as Hugging Face and a registry do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use hypura_core::gguf::{GgmlType, HeaderBuilder};
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::{ManagerSettings, ModelManager, StoreCatalog};
use hypura_server::{HttpSettings, Server, router};
use hypura_store::fetch::Network;
use hypura_store::{Places, PullSettings, Store};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::fake::{FakeBackend, Script};
use crate::hub::{Fault, Hub, Model, Plan};
use crate::kit::{Answer, post, read, request, until};

struct Shop {
    router: axum::Router,
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Shop {
    fn open() -> Self {
        let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::start());
        let catalog = Arc::new(StoreCatalog::new(Arc::new(store(&folder, &hub))));
        let manager = ManagerSettings {
            budget_bytes: 1 << 40,
            keep_alive: KeepAlive::DEFAULT,
            max_loaded: 0,
            max_queue: 4,
            load_timeout: Duration::from_secs(300),
        };
        let models =
            ModelManager::start(Arc::new(FakeBackend(Arc::new(Script::default()))), manager).unwrap();
        let router = router(Server::new(catalog, models, HttpSettings::default()));
        Self { router, folder, hub }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        read(self.router.clone().oneshot(post(path, body)).await.unwrap()).await
    }
}

fn store(folder: &tempfile::TempDir, hub: &Hub) -> Store {
    let at = |name: &str| folder.path().join(name);
    let places = Places { own: Some(at("own")), hugging_face: vec![at("hub")], ..Places::default() };
    let network = Network { hub: hub.address.clone(), hub_token: None, hub_offline: false, offline: false };
    let settings = PullSettings {
        part_bytes: 64 << 10,
        request_bytes: 128 << 10,
        tries: 3,
        first_wait: Duration::from_millis(1),
        report_every: Duration::from_millis(5),
        ..PullSettings::default()
    };
    Store::new(places).with_network(network).with_pull_settings(settings)
}

fn model(bytes: u64) -> Model {
    let mut builder = HeaderBuilder::new();
    builder.set("general.architecture", "llama").set("llama.block_count", 1_u32);
    builder.tensor("blk.0.x.weight", &[32, bytes / 128], GgmlType::F32);
    let mut file = Vec::new();
    let layout = builder.write_header(&mut file).unwrap();
    file.resize(layout.file_bytes as usize, 7);
    Model::new(vec![("m-Q4_K_M.gguf".to_owned(), file)])
}

#[tokio::test(flavor = "multi_thread")]
async fn models_arrive_with_a_line_for_each_step_and_are_listed() {
    let shop = Shop::open();
    shop.hub.add("r", model(300_000));
    let lines = shop.post("/api/pull", json!({"model": "hf.co/o/r"})).await.lines();
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    let layers: Vec<&Value> = lines.iter().filter(|line| !line["digest"].is_null()).collect();
    let completed: Vec<u64> = layers.iter().map(|line| line["completed"].as_u64().unwrap()).collect();
    assert!(
        completed.is_sorted() && completed.last() == layers[0]["total"].as_u64().as_ref(),
        "{completed:?}"
    );
    assert_eq!(lines.last().unwrap(), &json!({"status": "success"}));
    let name = format!("{}/o/r", shop.hub.host());
    let whole = shop.post("/api/pull", json!({"name": name, "stream": false})).await;
    assert_eq!((whole.status, whole.json()), (StatusCode::OK, json!({"status": "success"})));
    for name in ["hf.co/o/r:Q4_K_M", &name] {
        assert_eq!(shop.post("/api/show", json!({"model": name})).await.status, StatusCode::OK, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_do_not_arrive_are_an_error_without_paths() {
    let shop = Shop::open();
    let here = shop.hub.add("r", model(300_000));
    *here.plan.lock().unwrap() = Plan::new(1, &[Fault::Status(500)], 100, u64::MAX);
    let answer = shop.post("/api/pull", json!({"model": "hf.co/o/r", "stream": false})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.error().contains("HTTP 500") && answer.error().contains("kept"), "{}", answer.error());
    let lines = shop.post("/api/pull", json!({"model": "hf.co/o/none"})).await.lines();
    let error = lines.last().unwrap()["error"].as_str().unwrap();
    assert!(error.starts_with("pull model manifest: "), "{error}");
    for text in [answer.error().as_str(), error] {
        assert!(!text.contains(shop.folder.path().to_str().unwrap()), "{text}");
    }
    let refused =
        shop.post("/api/pull", json!({"model": "http://example.invalid/a/b", "stream": false})).await;
    assert!(refused.error().contains("insecure protocol http"), "{}", refused.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_stop_arriving_when_nobody_listens_and_go_on_later() {
    let shop = Shop::open();
    let here = shop.hub.add("r", model(4 << 20));
    *here.delay.lock().unwrap() = Duration::from_millis(30);
    let response =
        shop.router.clone().oneshot(post("/api/pull", json!({"model": "hf.co/o/r"}))).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    let partials = || store(&shop.folder, &shop.hub).pulls().partials();
    while partials().first().is_none_or(|partial| partial.have_bytes < 256 << 10) {
        assert!(body.next().await.is_some(), "it ended early");
    }
    drop(body);
    until("nobody fetches it any more", || !partials()[0].busy).await;
    // Lists tell it beside the models: it is none yet.
    let tags =
        read(shop.router.clone().oneshot(request(Method::GET, "/api/tags", "")).await.unwrap()).await.json();
    let told = &tags["hypura"]["partial"][0];
    assert_eq!(
        (tags["models"].as_array().unwrap().len(), told["model"].as_str()),
        (0, Some("hf.co/o/r:Q4_K_M"))
    );
    assert!(told["completed"].as_u64().unwrap() >= 256 << 10 && told["busy"] == false, "{tags}");
    *here.delay.lock().unwrap() = Duration::ZERO;
    // What was on its way when the connections were dropped is counted by the server a little later.
    shop.hub.wait_until_left();
    let before = here.sent_bytes.load(Ordering::Relaxed);
    let have = partials()[0].have_bytes;
    let lines = shop.post("/api/pull", json!({"model": "hf.co/o/r"})).await.lines();
    assert_eq!(lines.last().unwrap(), &json!({"status": "success"}));
    let whole = here.file("m-Q4_K_M.gguf").unwrap().len() as u64;
    assert_eq!(here.sent_bytes.load(Ordering::Relaxed) - before, whole - have);
}

#[tokio::test(flavor = "multi_thread")]
async fn quantizations_of_a_repository_are_listed_for_a_model_that_came_from_there() {
    let shop = Shop::open();
    let (_, bytes) = model(300_000).files.lock().unwrap()[0].clone();
    let file = |quant: &str| (format!("m-{quant}.gguf"), bytes.to_vec());
    let repository = shop.hub.add("r", Model::new(["Q4_K_M", "Q8_0", "other"].map(file).to_vec()));
    let name = "hf.co/o/r:Q4_K_M";
    assert_eq!(shop.post("/api/pull", json!({"model": name, "stream": false})).await.status, StatusCode::OK);
    let path = "/api/hypura/quantizations?model=hf.co/o/r:Q4_K_M";
    let get =
        || async { read(shop.router.clone().oneshot(request(Method::GET, path, "")).await.unwrap()).await };
    let listed = get().await.json();
    let rows = listed["quantizations"].as_array().unwrap();
    let row = |quant: &str| json!({"quantization": quant, "bytes": bytes.len()});
    assert_eq!(rows.as_slice(), [row("Q4_K_M"), row("Q8_0")], "what a name does not tell cannot be planned");
    // Whoever asks again soon asks nobody else.
    repository.files.lock().unwrap().clear();
    assert_eq!(get().await.json(), listed);
}
