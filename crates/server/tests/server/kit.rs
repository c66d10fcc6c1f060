//! Requests against a router, and what tests ask of answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::{ManagerSettings, ModelManager};
use hypura_server::{HttpSettings, Server, router};
use hypura_store::{Capability, ModelEntry};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::fake::{FakeBackend, Script, Step};
use crate::fake_catalog::{FakeCatalog, able, entry};

/// A server over a scripted engine.
pub struct Kit {
    pub server: Arc<Server>,
    pub script: Arc<Script>,
    pub catalog: Arc<FakeCatalog>,
    pub router: Router,
}

/// What a test may change before the server starts.
pub struct Setup {
    pub steps: Vec<Step>,
    pub models: Vec<ModelEntry>,
    pub manager: ManagerSettings,
    pub http: HttpSettings,
    pub store: Option<Arc<hypura_store::Store>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            steps: vec![Step::Text("Hello"), Step::Text(" world")],
            models: vec![
                entry("m"),
                able("plain", &[Capability::Completion]),
                able("vec", &[Capability::Embedding]),
            ],
            manager: ManagerSettings {
                budget_bytes: 1000,
                keep_alive: KeepAlive::DEFAULT,
                max_loaded: 0,
                max_queue: 4,
                load_timeout: Duration::from_secs(300),
            },
            http: HttpSettings::default(),
            store: None,
        }
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Setup {
    pub fn start(self) -> Kit {
        let script = Script::answering(&self.steps);
        let catalog = Arc::new(FakeCatalog { store: self.store, ..FakeCatalog::default() });
        *catalog.models.lock().unwrap() = self.models.into_iter().map(Arc::new).collect();
        let backend = Arc::new(FakeBackend(Arc::clone(&script)));
        let models = ModelManager::start(backend, self.manager).unwrap();
        let server = Server::new(Arc::clone(&catalog) as _, models, self.http);
        let router = router(Arc::clone(&server));
        Kit { server, script, catalog, router }
    }
}

impl Kit {
    pub fn new() -> Self {
        Setup::default().start()
    }

    pub fn answering(steps: &[Step]) -> Self {
        Setup { steps: steps.to_vec(), ..Setup::default() }.start()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        read(self.start(request).await).await
    }

    /// The answer's head, before its body is read.
    pub async fn start(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(post(path, body)).await
    }
}

pub async fn read(response: http::Response<Body>) -> Answer {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: head.status, headers: head.headers, body }
}

pub fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1:11434").body(body.into()).unwrap()
}

pub fn post(path: &str, body: Value) -> Request<Body> {
    request(Method::POST, path, body.to_string())
}

/// Waits until something is so; fails after long.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
