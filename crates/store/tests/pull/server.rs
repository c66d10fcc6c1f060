//! A server that behaves as Hugging Face, an Ollama registry and a plain web server do, and fails as they do.
//!
//! Two listeners: the second one is the host that files of the first are redirected to. Which request fails,
//! and how, follows from the seed of a model's plan.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hypura_core::random;
use hypura_store::Digest;
use serde_json::{Value as Json, json};

/// What a server does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body ends after some bytes.
    Cut,
    /// This status. 429 asks to wait 0 seconds.
    Status(u16),
    /// A `Content-Length` that is too large.
    WrongLength,
    /// Another range than was asked for.
    WrongRange,
    /// One byte is another one.
    WrongBytes,
    /// The whole file instead of a range.
    NoRange,
    /// From now on the file is another one.
    Change,
    /// A redirect to itself.
    Loop,
    /// Some bytes, then silence.
    Drip,
}

pub const ALL_FAULTS: [Fault; 13] = [
    Fault::Cut,
    Fault::Status(416),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(403),
    Fault::WrongLength,
    Fault::WrongRange,
    Fault::WrongBytes,
    Fault::NoRange,
    Fault::Change,
    Fault::Loop,
    Fault::Drip,
];

/// Which requests for files fail.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    /// Drawn from.
    pub faults: Vec<Fault>,
    /// Requests that fail, of 100.
    pub percent: u64,
    /// After so many failures all is well.
    pub most: u64,
    /// Requests that go well before the first failure.
    spared: u64,
    /// Requests so far.
    asked: u64,
}

impl Plan {
    pub fn new(seed: u64, faults: &[Fault], percent: u64, most: u64) -> Self {
        Self { seed, faults: faults.to_vec(), percent, most, spared: 0, asked: 0 }
    }

    /// The same, once this many requests went well.
    pub fn after(self, spared: u64) -> Self {
        Self { spared, ..self }
    }

    fn next(&mut self) -> Option<(Fault, u64)> {
        self.asked += 1;
        let draw = random::at(self.seed, self.asked);
        if self.asked <= self.spared || self.most == 0 || self.faults.is_empty() || draw % 100 >= self.percent
        {
            return None;
        }
        self.most -= 1;
        let fault = self.faults[(draw / 100) as usize % self.faults.len()];
        Some((fault, draw >> 20))
    }
}

/// A model on the server.
#[derive(Default)]
pub struct Model {
    pub files: Mutex<Vec<(String, Arc<Vec<u8>>)>>,
    pub plan: Mutex<Plan>,
    /// Wanted as a bearer token by the first server.
    pub token: Option<String>,
    /// Whether lists tell digests.
    pub lfs: bool,
    /// Bytes of files that were sent.
    pub sent_bytes: AtomicU64,
    /// Requests for files.
    pub requests: AtomicU64,
    /// First and last bytes of what was asked for.
    pub ranges: Mutex<Vec<(usize, usize)>>,
    /// Wait before each 64 KiB.
    pub delay: Mutex<Duration>,
    version: AtomicU64,
}

impl Model {
    pub fn new(files: Vec<(String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect();
        Self { files: Mutex::new(files), lfs: true, ..Self::default() }
    }

    pub fn file(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        self.files.lock().unwrap().iter().find(|(known, _)| known == name).map(|(_, bytes)| Arc::clone(bytes))
    }

    /// Other bytes of the same length, in all files: behind the headers, so that they stay models.
    pub fn change(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
        for (_, bytes) in self.files.lock().unwrap().iter_mut() {
            let mut other = bytes.as_ref().clone();
            if let Some(last) = other.last_mut() {
                *last = last.wrapping_add(1);
            }
            *bytes = Arc::new(other);
        }
    }

    fn commit(&self) -> String {
        format!("{:040x}", 0xc0ffee + self.version.load(Ordering::Relaxed))
    }
}

/// The servers.
pub struct Hub {
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    first: String,
    second: String,
    models: Mutex<HashMap<String, Arc<Model>>>,
    /// Credentials that came to the second server.
    leaks: AtomicU64,
    /// Connections that are open.
    open: AtomicU64,
}

impl Hub {
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (first, second) = (listen(), listen());
        // Another name of the same machine: another host to whoever compares.
        let shared = Arc::new(Shared {
            first: format!("http://{}", first.local_addr().unwrap()),
            second: format!("http://localhost:{}", second.local_addr().unwrap().port()),
            ..Shared::default()
        });
        let address = shared.first.clone();
        for (listener, is_second) in [(first, false), (second, true)] {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    std::thread::spawn(move || {
                        // A client that disconnects is its own business.
                        drop(serve(&stream, &shared, is_second));
                        shared.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
        Self { address, shared }
    }

    /// Adds a model: `o/ID` as a repository and in the registry, `/plain/ID/FILE` on the web server.
    pub fn add(&self, id: &str, model: Model) -> Arc<Model> {
        let model = Arc::new(model);
        self.shared.models.lock().unwrap().insert(id.to_owned(), Arc::clone(&model));
        model
    }

    /// Host and port of the registry.
    pub fn host(&self) -> &str {
        self.address.strip_prefix("http://").unwrap()
    }

    /// Waits until every connection is closed: what clients asked for before they went has been seen.
    pub fn wait_until_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "connections stay open");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn leaks(&self) -> u64 {
        self.shared.leaks.load(Ordering::Relaxed)
    }
}

/// A request, as far as anybody looks at it.
struct Request {
    path: String,
    range: Option<(usize, usize)>,
    token: Option<String>,
}

fn read_request(reader: &mut impl std::io::BufRead) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut range, mut token) = (None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some(Request { path, range, token });
        }
        let (key, value) = line.split_once(": ")?;
        match key.to_ascii_lowercase().as_str() {
            "range" => {
                let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((first.parse().ok()?, last.parse().ok()?));
            }
            "authorization" => token = value.strip_prefix("Bearer ").map(ToOwned::to_owned),
            _ => {}
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared, is_second: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader) {
        if is_second && request.token.is_some() {
            shared.leaks.fetch_add(1, Ordering::Relaxed);
        }
        if !answer(stream, shared, &request)? {
            break;
        }
    }
    Ok(())
}

fn head(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(&str, String)],
    length: usize,
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    for (key, value) in headers {
        text.push_str(&format!("{key}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())
}

fn text(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(&str, String)],
    body: &str,
) -> std::io::Result<bool> {
    head(stream, status, headers, body.len())?;
    stream.write_all(body.as_bytes())?;
    Ok(true)
}

/// Answers; `false` ends the connection.
fn answer(stream: &TcpStream, shared: &Shared, request: &Request) -> std::io::Result<bool> {
    let path = request.path.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let find = |id: &str| shared.models.lock().unwrap().get(id).cloned();
    let missing = || text(stream, "404 Not Found", &[], "{}");
    let refused = |model: &Model, challenge: Option<String>| {
        let wants = model.token.is_some() && model.token != request.token;
        let headers: Vec<(&str, String)> =
            challenge.into_iter().map(|challenge| ("WWW-Authenticate", challenge)).collect();
        wants.then(|| text(stream, "401 Unauthorized", &headers, "{}"))
    };
    match parts.as_slice() {
        ["token"] => text(stream, "200 OK", &[], &json!({"token": "of-the-authority"}).to_string()),
        ["api", "models", "o", id, ..] => {
            let Some(model) = find(id) else { return missing() };
            refused(&model, None).unwrap_or_else(|| text(stream, "200 OK", &[], &listing(&model).to_string()))
        }
        ["o", id, "resolve", _, file @ ..] => {
            let Some(model) = find(id) else { return missing() };
            if let Some(done) = refused(&model, None) {
                return done;
            }
            let name = file.join("/");
            let Some(bytes) = model.file(&name) else { return missing() };
            let tag = if model.lfs { Digest::of(&bytes).hex().to_owned() } else { tag(&bytes) };
            let headers = [
                ("Location", format!("{}/files/{id}/{name}?signature=x", shared.second)),
                ("X-Linked-Etag", format!("\"{tag}\"")),
                ("X-Linked-Size", bytes.len().to_string()),
                ("X-Repo-Commit", model.commit()),
            ];
            text(stream, "302 Found", &headers, "")
        }
        ["v2", "o", id, kind, what] => {
            let Some(model) = find(id) else { return missing() };
            let challenge =
                format!("Bearer realm=\"{}/token\",service=\"s\",scope=\"r:o/{id}:pull\"", shared.first);
            if let Some(done) = refused(&model, Some(challenge)) {
                return done;
            }
            if *kind == "manifests" {
                return text(stream, "200 OK", &[], &manifest(&model).0);
            }
            let location = format!("{}/blobs/{id}/{what}", shared.second);
            text(stream, "307 Temporary Redirect", &[("Location", location)], "")
        }
        ["blobs", id, digest] => {
            let Some(model) = find(id) else { return missing() };
            let files = model.files.lock().unwrap().clone();
            let (_, config) = manifest(&model);
            let all = files.into_iter().map(|(_, bytes)| bytes).chain([Arc::new(config.into_bytes())]);
            let found = all.into_iter().find(|bytes| Digest::of(bytes).to_string() == **digest);
            found.map_or_else(missing, |bytes| file(stream, &model, request, &bytes))
        }
        ["files" | "plain", id, name @ ..] => {
            let Some(model) = find(id) else { return missing() };
            let found = model.file(&name.join("/"));
            found.map_or_else(missing, |bytes| file(stream, &model, request, &bytes))
        }
        _ => missing(),
    }
}

/// An entity tag.
fn tag(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()[..32].to_owned()
}

fn listing(model: &Model) -> Json {
    let files = model.files.lock().unwrap();
    let sibling = |(name, bytes): &(String, Arc<Vec<u8>>)| {
        let lfs = json!({"sha256": Digest::of(bytes).hex(), "size": bytes.len(), "pointerSize": 130});
        let mut sibling = json!({"rfilename": name, "size": bytes.len()});
        if model.lfs {
            sibling["lfs"] = lfs;
        }
        sibling
    };
    let mut siblings: Vec<Json> = files.iter().map(sibling).collect();
    siblings.push(json!({"rfilename": "README.md", "size": 5}));
    siblings.push(json!({"rfilename": "../evil.gguf", "size": 5}));
    json!({"id": "o/r", "sha": model.commit(), "siblings": siblings})
}

/// The manifest and the config.
fn manifest(model: &Model) -> (String, String) {
    let config = json!({"model_format": "gguf", "model_family": "llama"}).to_string();
    let files = model.files.lock().unwrap();
    let layer = |(name, bytes): &(String, Arc<Vec<u8>>)| {
        json!({
            "mediaType": "application/vnd.ollama.image.model",
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
            "name": name,
        })
    };
    let text = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": Digest::of(config.as_bytes()).to_string(),
            "size": config.len(),
        },
        "layers": files.iter().map(layer).collect::<Vec<Json>>(),
    });
    (text.to_string(), config)
}

/// Sends a file or a range of it, or fails.
fn file(stream: &TcpStream, model: &Model, request: &Request, bytes: &Arc<Vec<u8>>) -> std::io::Result<bool> {
    model.requests.fetch_add(1, Ordering::Relaxed);
    let fault = model.plan.lock().unwrap().next();
    let tag = [("ETag", format!("\"{}\"", tag(bytes)))];
    let (mut first, mut last) = request.range.unwrap_or((0, bytes.len().saturating_sub(1)));
    if first >= bytes.len() {
        return text(stream, "416 Range Not Satisfiable", &[], "");
    }
    last = last.min(bytes.len() - 1);
    model.ranges.lock().unwrap().push((first, last));
    let mut body =
        Part { bytes: bytes[first..=last].to_vec(), claimed: last + 1 - first, hang: Duration::ZERO };
    let mut ranged = request.range.is_some();
    if let Some((fault, draw)) = fault {
        let at = draw as usize % body.bytes.len();
        match fault {
            Fault::Cut => body.bytes.truncate(at),
            Fault::Status(429) => {
                return text(stream, "429 Too Many Requests", &[("Retry-After", "0".to_owned())], "");
            }
            Fault::Status(status) => return text(stream, &format!("{status} Sorry"), &[], ""),
            Fault::WrongLength => body.claimed += 1 + at,
            Fault::WrongRange => (first, last) = (first + 1, last + 1),
            Fault::WrongBytes => body.bytes[at] ^= 0x55,
            Fault::NoRange => {
                ranged = false;
                body.bytes = bytes.as_ref().clone();
                body.claimed = bytes.len();
            }
            Fault::Change => {
                // This answer is of the new file already.
                model.change();
                return text(stream, "503 Deploying", &[], "");
            }
            Fault::Loop => {
                return text(stream, "302 Found", &[("Location", request.path.clone())], "");
            }
            Fault::Drip => {
                body.bytes.truncate(at.min(100));
                body.hang = Duration::from_millis(400);
            }
        }
    }
    let mut headers = tag.to_vec();
    if ranged {
        headers.push(("Content-Range", format!("bytes {first}-{last}/{}", bytes.len())));
    }
    head(stream, if ranged { "206 Partial Content" } else { "200 OK" }, &headers, body.claimed)?;
    body.send(stream, model)
}

/// A body, and what is wrong with it.
struct Part {
    bytes: Vec<u8>,
    claimed: usize,
    hang: Duration,
}

impl Part {
    fn send(&self, mut stream: &TcpStream, model: &Model) -> std::io::Result<bool> {
        let delay = *model.delay.lock().unwrap();
        for chunk in self.bytes.chunks(64 << 10) {
            std::thread::sleep(delay);
            // Before it is: whoever got the last byte may look at once.
            model.sent_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            stream.write_all(chunk)?;
        }
        std::thread::sleep(self.hang);
        Ok(self.bytes.len() == self.claimed)
    }
}
