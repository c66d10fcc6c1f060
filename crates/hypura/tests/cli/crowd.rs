//! Honest clients beside hostile ones, who ask for all that takes long, or ask for nothing.

use serde_json::json;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::serving::Serving;

const HOSTILE: usize = 64;
const HONEST: usize = 4;
/// Questions of each honest client.
const QUESTIONS: usize = 60;
/// On a machine that does nothing else it is a tenth of that.
const MOST: Duration = Duration::from_secs(2);

/// Sends a body, and takes whatever comes back within a while.
fn send(address: &str, path: &str, body: &str) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)));
    let agent = config.build().new_agent();
    if let Ok(mut answer) = agent.post(format!("http://{address}{path}")).send(body) {
        let _ = answer.body_mut().read_to_string();
    }
}

/// Opens a connection, and says too little.
fn mumble(address: &str, words: &str, over: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = write!(stream, "POST /api/generate HTTP/1.1\r\nHost: {address}\r\n{words}");
    for _ in 0..20 {
        if over.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
        let _ = stream.write_all(b" ");
    }
}

/// One thing that a hostile client does.
fn harass(address: &str, kind: usize, over: &AtomicBool) {
    let generate = |more: serde_json::Value| {
        let mut body =
            json!({"model": "demo", "prompt": "x", "stream": false, "options": {"num_predict": 1}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        send(address, "/api/generate", &body.to_string());
    };
    match kind % 8 {
        0 => send(address, "/api/chat", &"[".repeat(1 << 20)),
        1 => send(
            address,
            "/api/embed",
            &format!("{{\"model\":\"demo\",\"input\":[{}0]}}", "[],".repeat(400_000)),
        ),
        2 => generate(
            json!({"template": "{% for a in range(100000) %}{% for b in range(100000) %}{{ messages }}{% endfor %}{% endfor %}"}),
        ),
        3 => generate(json!({"format": {"type": "string", "minLength": 5, "maxLength": 3}})),
        4 => mumble(address, "Content-Le", over),
        5 => mumble(address, "Content-Length: 100000\r\n\r\n{", over),
        6 => generate(json!({"prompt": "-".repeat(90_000)})),
        _ => send(address, "/v1/chat/completions", "{\"model\":\"demo\"}{\"messages\":[]}"),
    }
}

#[test]
fn honest_clients_are_answered_beside_sixty_four_hostile_ones() {
    let server = Serving::start(&["--runner-deadline", "15", "--parallel", "2"]);
    let ask = json!({"model": "demo", "prompt": "x", "stream": false, "options": {"num_predict": 2}});
    server.post("/api/generate", &ask);
    let over = AtomicBool::new(false);
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        for client in 0..HOSTILE {
            let (address, over) = (&server.address, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    harass(address, client, over);
                }
            });
        }
        let honest: Vec<_> = (0..HONEST)
            .map(|_| {
                let (server, ask) = (&server, &ask);
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for _ in 0..QUESTIONS {
                        let start = Instant::now();
                        assert!(server.get("/api/version")["version"].is_string());
                        times.push(start.elapsed());
                        std::thread::sleep(Duration::from_millis(30));
                    }
                    let (status, text) = server.send("/api/generate", ask);
                    assert_eq!(status, 200, "{text}");
                    times
                })
            })
            .collect();
        let answered: Vec<_> = honest.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        answered.into_iter().flat_map(Result::unwrap).collect()
    });
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!("/api/version beside {HOSTILE} hostile clients: median {:?}, p99 {:?}", at(50), at(99));
    assert!(at(99) <= MOST, "p99 {:?}", at(99));
}
