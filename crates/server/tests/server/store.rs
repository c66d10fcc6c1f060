//! Changes of the store, against a real one in a folder of its own.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, StatusCode};
use hypura_core::gguf::{GgmlType, HeaderBuilder};
use hypura_engine::load::LoadSettings;
use hypura_engine::serve::RunnerSettings;
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::backend::{Backend as _, LoadRequest};
use hypura_server::models::{EngineBackend, ManagerSettings, ModelManager, StoreCatalog};
use hypura_server::{HttpSettings, Server, router};
use hypura_store::fetch::Network;
use hypura_store::{Digest, Places, Store};
use serde_json::{Value, json};

use crate::fake::{FakeBackend, Script};
use crate::kit::{Answer, post, read, request};
use tower::ServiceExt as _;

struct Shop {
    router: axum::Router,
    folder: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { own: Some(folder.path().join("models")), ..Places::default() };
        let catalog =
            Arc::new(StoreCatalog::new(Arc::new(Store::new(places).with_network(Network::offline()))));
        let manager = ManagerSettings {
            budget_bytes: 1 << 40,
            keep_alive: KeepAlive::DEFAULT,
            max_loaded: 0,
            max_queue: 4,
            load_timeout: std::time::Duration::from_secs(300),
        };
        let models =
            ModelManager::start(Arc::new(FakeBackend(Arc::new(Script::default()))), manager).unwrap();
        let router = router(Server::new(catalog, models, HttpSettings::default()));
        Self { router, folder }
    }

    async fn send(&self, request: http::Request<Body>) -> Answer {
        read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(post(path, body)).await
    }

    /// The demo model as a blob, and a model of that name.
    async fn stock(&self, name: &str) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/demo-draft-Q8_0.gguf");
        let bytes = std::fs::read(path).unwrap();
        let digest = Digest::of(&bytes).to_string();
        let sent = self.send(request(Method::POST, &format!("/api/blobs/{digest}"), bytes)).await;
        assert!(sent.status.is_success(), "{:?}", sent.body);
        let made = self
            .post("/api/create", json!({"model": name, "files": {"m.gguf": digest}, "system": "be kind"}))
            .await;
        assert_eq!(made.lines().last().unwrap()["status"], "success", "{}", made.text());
        digest
    }
}

#[tokio::test]
async fn models_create_from_a_blob_and_show_it() {
    let shop = Shop::open();
    shop.stock("mine").await;
    let tags = shop.send(request(Method::GET, "/api/tags", Body::empty())).await.json();
    assert_eq!(tags["models"][0]["name"], "mine:latest");
    let show = shop.post("/api/show", json!({"model": "mine"})).await.json();
    assert_eq!(show["system"], "be kind");
    assert!(show["model_info"]["general.parameter_count"].as_u64().unwrap() > 0);
    // Ollama lists tensors always; long arrays only when asked for.
    let tensors = show["tensors"].as_array().unwrap();
    assert!(tensors.len() > 3);
    for key in ["name", "type", "shape"] {
        assert!(!tensors[0][key].is_null(), "{key}");
    }
    assert_eq!(show["model_info"]["tokenizer.ggml.tokens"], json!([]));
    let verbose = shop.post("/api/show", json!({"model": "mine", "verbose": true})).await.json();
    assert_eq!(verbose["tensors"], show["tensors"]);
    assert!(!verbose["model_info"]["tokenizer.ggml.tokens"].as_array().unwrap().is_empty());
    let child = json!({"model": "child", "from": "mine", "parameters": {"num_ctx": 512, "stop": ["x"]}, "stream": false});
    let made = shop.post("/api/create", child).await;
    assert_eq!(made.json(), json!({"status": "success"}));
    let show = shop.post("/api/show", json!({"model": "child"})).await.json();
    let parameters = show["parameters"].as_str().unwrap();
    assert!(parameters.contains(&format!("{:<30} 512", "num_ctx")), "{parameters}");
    assert!(parameters.contains("\"x\""), "{parameters}");
}

/// A model in two shards, each a blob.
async fn stock_shards(shop: &Shop) {
    let mut files = serde_json::Map::new();
    for index in 0..2_u16 {
        let mut builder = HeaderBuilder::new();
        if index == 0 {
            builder.set("general.architecture", "llama").set("llama.context_length", 64_u32);
        }
        builder.set_split(index, 2, 2);
        builder.tensor(format!("blk.{index}.x.weight"), &[32, 2], GgmlType::F32);
        let mut bytes = Vec::new();
        let layout = builder.write_header(&mut bytes).unwrap();
        bytes.resize(layout.file_bytes as usize, 0);
        let digest = Digest::of(&bytes).to_string();
        shop.send(request(Method::POST, &format!("/api/blobs/{digest}"), bytes)).await;
        files.insert(format!("m-{:05}-of-00002.gguf", index + 1), digest.into());
    }
    let made = shop.post("/api/create", json!({"model": "big", "files": files, "stream": false})).await;
    assert_eq!(made.json(), json!({"status": "success"}));
}

#[tokio::test]
async fn models_lists_write_nothing_and_name_models_whose_links_cannot_be_made() {
    let shop = Shop::open();
    stock_shards(&shop).await;
    let shards = shop.folder.path().join("models/shards");
    for blocked in [false, true] {
        if blocked {
            // A file where the folder of links would be.
            std::fs::write(&shards, "").unwrap();
        }
        for path in ["/api/tags", "/v1/models"] {
            let list = shop.send(request(Method::GET, path, Body::empty())).await;
            assert!(list.text().contains("big:latest"), "{path}: {}", list.text());
        }
        let show = shop.post("/api/show", json!({"model": "big"})).await;
        assert_eq!(show.status, StatusCode::OK);
        assert_eq!(shards.exists(), blocked, "only a load makes links");
    }
    // A load says what is in the way.
    let places = Places { own: Some(shop.folder.path().join("models")), ..Places::default() };
    let store = Arc::new(Store::new(places));
    let backend = EngineBackend {
        store: Arc::clone(&store),
        settings: LoadSettings::default().with_context(64),
        runner: RunnerSettings::default(),
    };
    let entry = store.resolve("big").unwrap();
    let failure = backend.plan(&entry, &LoadRequest::default(), 1 << 30).err().unwrap();
    assert_eq!(failure.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(failure.message.starts_with("cannot make the folder a file of the model store"), "{failure}");
}

#[tokio::test]
async fn models_bad_requests_to_create() {
    let shop = Shop::open();
    let digest = format!("sha256:{}", "0".repeat(64));
    for (body, error) in [
        (json!({"model": "a b", "from": "x"}), "invalid model name"),
        (json!({"from": "x"}), "invalid model name"),
        (json!({"model": "x"}), "neither 'from' or 'files' was specified"),
        (json!({"model": "x", "files": {}}), "no files provided to convert"),
        (json!({"model": "x", "files": {"/etc/x": digest}}), "file path must be relative"),
        (json!({"model": "x", "files": {"x": "sha256:1"}}), "invalid digest format"),
        (
            json!({"model": "x", "from": "y", "adapters": {"a": digest, "b": digest}}),
            "only one adapter is currently supported",
        ),
    ] {
        let answer = shop.post("/api/create", body).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, error));
    }
    let text = Digest::of(b"plain text").to_string();
    let sent = shop.send(request(Method::POST, &format!("/api/blobs/{text}"), "plain text")).await;
    assert_eq!(sent.status, StatusCode::CREATED);
    for (name, error) in [("x.bin", "unknown type"), ("x.gguf", "supplied file was not in GGUF format")] {
        let answer = shop.post("/api/create", json!({"model": "x", "files": {name: text}})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.error().starts_with(error), "{}", answer.error());
    }
    let missing = shop.post("/api/create", json!({"model": "x", "from": "nope"})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn models_blobs() {
    let shop = Shop::open();
    let digest = Digest::of(b"hello").to_string();
    let path = format!("/api/blobs/{digest}");
    let head = |path: String| request(Method::HEAD, &path, Body::empty());
    assert_eq!(shop.send(head(path.clone())).await.status, StatusCode::NOT_FOUND);
    let wrong = shop.send(request(Method::POST, &path, "other")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.error().starts_with("digest mismatch, expected"));
    assert_eq!(shop.send(request(Method::POST, &path, "hello")).await.status, StatusCode::CREATED);
    assert_eq!(shop.send(request(Method::POST, &path, "hello")).await.status, StatusCode::OK);
    assert_eq!(shop.send(head(path)).await.status, StatusCode::OK);
    assert_eq!(shop.send(head("/api/blobs/sha256:12".into())).await.status, StatusCode::BAD_REQUEST);
    let bad = shop.send(request(Method::POST, "/api/blobs/nonsense", "x")).await;
    assert_eq!((bad.status, bad.error().as_str()), (StatusCode::BAD_REQUEST, "invalid digest format"));
    assert!(!bad.text().contains(shop.folder.path().to_str().unwrap()));
}

#[tokio::test]
async fn models_copy_and_8_5_delete() {
    let shop = Shop::open();
    shop.stock("mine").await;
    let copied = shop.post("/api/copy", json!({"source": "mine", "destination": "yours:v1"})).await;
    assert_eq!((copied.status, copied.text()), (StatusCode::OK, ""));
    let same = shop.post("/api/copy", json!({"source": "mine", "destination": "MINE:latest"})).await;
    assert_eq!(same.status, StatusCode::OK);
    let delete = |body: Value| shop.send(request(Method::DELETE, "/api/delete", body.to_string()));
    let deleted = delete(json!({"model": "mine"})).await;
    assert_eq!((deleted.status, deleted.text()), (StatusCode::OK, ""));
    // The shared blob is still there.
    let show = shop.post("/api/show", json!({"model": "yours:v1"})).await;
    assert_eq!(show.status, StatusCode::OK);
    assert_eq!(delete(json!({"name": "yours:v1"})).await.status, StatusCode::OK);
    for (body, status, error) in [
        (json!({}), StatusCode::BAD_REQUEST, "model is required"),
        (json!({"model": "a b"}), StatusCode::BAD_REQUEST, "name \"a b\" is invalid"),
        (json!({"model": "x"}), StatusCode::NOT_FOUND, "model 'x' not found"),
    ] {
        let answer = delete(body).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
    }
    for (body, status, error) in [
        (json!({"source": "", "destination": "x"}), StatusCode::BAD_REQUEST, "source \"\" is invalid"),
        (
            json!({"source": "x", "destination": "a b"}),
            StatusCode::BAD_REQUEST,
            "destination \"a b\" is invalid",
        ),
        (json!({"source": "x", "destination": "y"}), StatusCode::NOT_FOUND, "model \"x\" not found"),
    ] {
        let answer = shop.post("/api/copy", body).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
    }
}

#[tokio::test]
async fn models_pull_of_what_is_there_succeeds() {
    let shop = Shop::open();
    shop.stock("mine").await;
    let lines = shop.post("/api/pull", json!({"name": "mine"})).await.lines();
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    let layer = &lines[1];
    assert!(
        layer["status"].as_str().unwrap().starts_with("pulling ")
            && layer["digest"].as_str().unwrap().starts_with("sha256:")
    );
    assert_eq!(layer["total"], layer["completed"]);
    assert_eq!(lines.last().unwrap(), &json!({"status": "success"}));
    let one = shop.post("/api/pull", json!({"model": "mine", "stream": false})).await;
    assert_eq!(one.json(), json!({"status": "success"}));
    let lines = shop.post("/api/pull", json!({"model": "nope"})).await;
    assert_eq!((lines.status, lines.lines().len()), (StatusCode::OK, 2));
    assert_eq!(lines.lines()[0], json!({"status": "pulling manifest"}));
    assert!(lines.lines()[1]["error"].as_str().unwrap().starts_with("pull model manifest: "));
    let missing = shop.post("/api/pull", json!({"model": "nope", "stream": false})).await;
    assert_eq!(missing.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(missing.error().starts_with("pull model manifest: ") && missing.error().contains("not found"));
    let invalid = shop.post("/api/pull", json!({"model": "a b"})).await;
    assert_eq!((invalid.status, invalid.error().as_str()), (StatusCode::BAD_REQUEST, "invalid model name"));
}

#[tokio::test]
async fn models_push_is_refused_clearly() {
    let answer = Shop::open().post("/api/push", json!({"model": "mine"})).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert!(answer.error().contains("not supported"));
}

#[tokio::test]
async fn names_both_suffixes_and_the_cloud_are_refused() {
    let shop = Shop::open();
    let ask = |name: &str| {
        shop.post("/api/chat", json!({"model": name, "messages": [{"role": "user", "content": "x"}]}))
    };
    let both = ask("x:cloud:local").await;
    assert_eq!(
        (both.status, both.error().as_str()),
        (StatusCode::BAD_REQUEST, "use either :local or :cloud, not both")
    );
    assert_eq!(ask("x:20b-cloud").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask("x:cloud").await.status, StatusCode::FORBIDDEN);
}
