//! Callers who hold on to what they should give back: bodies, connections, answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use hypura_server::{HttpSettings, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fake::Step;
use crate::kit::{Kit, Setup, post, read, request, until};

const SHORT: Duration = Duration::from_millis(50);

fn with(http: HttpSettings) -> Setup {
    Setup { http, ..Setup::default() }
}

/// A body that begins and then brings nothing more.
fn stuck() -> Body {
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"model\":"))]);
    Body::from_stream(begin.chain(stream::pending()))
}

#[tokio::test]
async fn hostile_bodies_share_a_limit_and_give_it_back() {
    let kit = with(HttpSettings { most_body_bytes: 2000, ..HttpSettings::default() }).start();
    let ask = |bytes: usize| {
        kit.post("/api/generate", json!({"model": "m", "prompt": "x".repeat(bytes), "stream": false}))
    };
    for _ in 0..3 {
        assert_eq!(ask(1000).await.status, StatusCode::OK);
        let refused = ask(3000).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.error().contains("busy"), "{}", refused.error());
    }
    assert_eq!(kit.server.body_bytes.load(Ordering::SeqCst), 0);
    let refused = kit.post("/v1/completions", json!({"model": "m", "prompt": "x".repeat(3000)})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.json()["error"]["message"].is_string(), "in the words of its protocol");
}

/// What waits for a model holds its memory: it counted until its head was sent, after ten seconds at the
/// latest.
#[tokio::test]
async fn hostile_a_request_counts_until_it_is_answered_to_the_end() {
    let http = HttpSettings { most_body_bytes: 5000, ..HttpSettings::default() };
    let kit = Setup { steps: vec![Step::Text("a"), Step::Wait], http, ..Setup::default() }.start();
    kit.script.gate.shut();
    let ask = |bytes: usize| post("/api/generate", json!({"model": "m", "prompt": "x".repeat(bytes)}));
    let first = kit.start(ask(3000)).await;
    assert_eq!(first.status(), StatusCode::OK, "its head is sent");
    let refused = kit.send(ask(3000)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    kit.script.gate.open();
    read(first).await;
    assert_eq!(kit.server.body_bytes.load(Ordering::SeqCst), 0);
    assert_eq!(kit.send(ask(3000)).await.status, StatusCode::OK);
    drop(kit.start(ask(3000)).await);
    assert_eq!(kit.server.body_bytes.load(Ordering::SeqCst), 0, "whoever goes away takes nothing along");
}

#[tokio::test]
async fn hostile_a_blob_that_comes_compressed_is_refused_in_clear_words() {
    let kit = Kit::new();
    let blob = format!("/api/blobs/sha256:{}", "a".repeat(64));
    for coding in ["gzip", "zstd", "br"] {
        let mut sent = request(Method::POST, &blob, Body::from("x"));
        sent.headers_mut().insert("content-encoding", coding.parse().unwrap());
        let refused = kit.send(sent).await;
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{coding}");
        assert!(refused.error().contains("send it as it is"), "{}", refused.error());
    }
}

#[tokio::test]
async fn hostile_a_body_that_stands_still_is_given_up() {
    let kit = with(HttpSettings { body_patience: SHORT, ..HttpSettings::default() }).start();
    let blob = format!("/api/blobs/sha256:{}", "a".repeat(64));
    for path in ["/api/generate", "/v1/messages", &blob] {
        let answer = kit.send(request(Method::POST, path, stuck())).await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT, "{path}");
    }
    assert_eq!(kit.server.body_bytes.load(Ordering::SeqCst), 0);
}

/// A body that brings a byte now and then, for ever: it never stood still, and held its place.
#[tokio::test]
async fn hostile_a_body_that_drips_is_given_up() {
    let http = HttpSettings { body_patience: 4 * SHORT, least_body_bytes: 100, ..HttpSettings::default() };
    let kit = with(http).start();
    let drips = || {
        let ticks = stream::unfold((), |()| async {
            tokio::time::sleep(SHORT / 10).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        Body::from_stream(ticks)
    };
    let blob = format!("/api/blobs/sha256:{}", "a".repeat(64));
    for path in ["/api/generate", "/v1/messages", &blob] {
        let sent = kit.send(request(Method::POST, path, drips()));
        let answer = tokio::time::timeout(Duration::from_secs(20), sent).await.expect(path);
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT, "{path}");
    }
    // One that is as fast as it must be may take longer than that.
    let steady = stream::iter(0..8).then(|_| async {
        tokio::time::sleep(SHORT).await;
        Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 200]))
    });
    let body = steady.chain(stream::iter([Ok(Bytes::from_static(b"{\"model\":\"m\",\"stream\":false}"))]));
    let answer = kit.send(request(Method::POST, "/api/generate", Body::from_stream(body))).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn hostile_uploads_hold_only_so_many_threads() {
    let kit = Kit::new();
    let blob = format!("/api/blobs/sha256:{}", "a".repeat(64));
    let held =
        kit.server.uploads.acquire_many(u32::try_from(kit.server.uploads.available_permits()).unwrap());
    let held = held.await.unwrap();
    let refused = kit.send(request(Method::POST, &blob, Body::from("x"))).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
    let other = kit.send(request(Method::POST, &blob, Body::from("x"))).await;
    assert_ne!(other.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// A server on a real port, and what stops it.
struct Listening {
    kit: Kit,
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn listen(setup: Setup) -> Listening {
    let kit = setup.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let ended = tokio::spawn(serve::run(listener, Arc::clone(&kit.server), stopped));
    Listening { kit, address, stop, ended }
}

async fn ask_version(stream: &mut TcpStream) {
    stream.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn hostile_half_a_head_is_not_waited_for_and_an_idle_connection_is() {
    // Long enough for a whole head on a busy machine.
    let limit = 10 * SHORT;
    let server = listen(with(HttpSettings { head_limit: limit, ..HttpSettings::default() })).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"GET /api/version HTTP/1.1\r\nHost: local").await.unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    // Closed, with or without a word.
    let _ = half.read_to_end(&mut rest).await;
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    tokio::time::sleep(2 * limit).await;
    ask_version(&mut idle).await;
    server.stop.send(true).unwrap();
    server.ended.await.unwrap().unwrap();
}

/// Closed, with or without a word.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await;
    !matches!(read, Err(_) | Ok(Ok(1..)))
}

#[tokio::test]
async fn hostile_a_connection_that_says_nothing_is_closed() {
    let server = listen(with(HttpSettings { first_byte_limit: SHORT, ..HttpSettings::default() })).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert!(is_closed(&mut silent).await);
    server.stop.send(true).unwrap();
    server.ended.await.unwrap().unwrap();
}

/// Connections without number took all files that the server may have open, and nobody else could connect.
#[tokio::test]
async fn hostile_the_oldest_idle_connection_makes_room_for_another() {
    let setup = with(HttpSettings { most_connections: 4, ..HttpSettings::default() });
    let server = listen(Setup { steps: vec![Step::Text("a"), Step::Wait], ..setup }).await;
    server.kit.script.gate.shut();
    let mut working = TcpStream::connect(server.address).await.unwrap();
    let body = r#"{"model":"m","prompt":"x"}"#;
    let head = format!("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", body.len());
    working.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    until("it runs", || !server.kit.script.requests.lock().unwrap().is_empty()).await;
    // Silent ones, ones that asked and then said no more, and halves of heads.
    let mut idle = Vec::new();
    for round in 0..30 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        match round % 3 {
            0 => {}
            1 => ask_version(&mut stream).await,
            _ => stream.write_all(b"GET /api/version HT").await.unwrap(),
        }
        idle.push(stream);
        let mut honest = TcpStream::connect(server.address).await.unwrap();
        ask_version(&mut honest).await;
    }
    for stream in &mut idle[..20] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "it stays");
    }
    server.kit.script.gate.open();
    let mut answer = String::new();
    while !answer.contains("\"done\":true") {
        let mut piece = vec![0; 4096];
        let read = working.read(&mut piece).await.unwrap();
        assert!(read > 0, "an answer is never cut for others: {answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    server.stop.send(true).unwrap();
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn hostile_draining_ends_although_an_answer_does_not() {
    let setup = with(HttpSettings { drain_limit: SHORT, ..HttpSettings::default() });
    let server = listen(Setup { steps: vec![Step::Text("a"), Step::Wait], ..setup }).await;
    server.kit.script.gate.shut();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = r#"{"model":"m","prompt":"x"}"#;
    let head = format!("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "it answers");
    until("it runs", || !server.kit.script.requests.lock().unwrap().is_empty()).await;
    server.stop.send(true).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), server.ended).await;
    ended.expect("it stops").unwrap().unwrap();
    assert_eq!(server.kit.script.stops.load(Ordering::SeqCst), 1, "its model is freed");
    server.kit.script.gate.open();
}

#[tokio::test]
async fn hostile_draining_waits_for_an_answer_and_closes_idle_connections() {
    let server =
        listen(Setup { steps: vec![Step::Text("a"), Step::Wait, Step::Text("z")], ..Setup::default() }).await;
    server.kit.script.gate.shut();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    ask_version(&mut idle).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = r#"{"model":"m","prompt":"x"}"#;
    let head = format!("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "it answers");
    server.stop.send(true).unwrap();
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap(), 0, "closed");
    assert!(!server.ended.is_finished());
    server.kit.script.gate.open();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("\"done\":true"), "{rest}");
    server.ended.await.unwrap().unwrap();
}
