//! The operation: listen, say so, serve, drain on the first signal and stop on the second.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::address::Address;
use super::http;
use super::state::Server;

/// How long the program that owns the port may take to say who it is.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Exit code of a program that a second signal ended.
const STOPPED_AT_ONCE: i32 = 130;

/// Why the port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has it.
    #[error(
        "cannot listen on {address}: {who}; {way_out}, or choose another port with --port or OLLAMA_HOST"
    )]
    InUse {
        /// Host and port.
        address: String,
        /// Which program, as far as it says so.
        who: &'static str,
        /// What can be done about it.
        way_out: &'static str,
    },
    /// The system refuses.
    #[error("cannot listen on {address}")]
    Refused {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Opens the port.
///
/// # Errors
/// [`ListenError`], which names who has the port, where somebody has.
pub async fn listen(address: &Address) -> Result<TcpListener, ListenError> {
    match TcpListener::bind((address.host.as_str(), address.port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let client = address.for_clients();
            let owner = tokio::task::spawn_blocking(move || owner_of(&client)).await.ok().flatten();
            let (who, way_out) = match owner {
                Some(Owner::Hypura) => ("Hypura is running there already", "stop it"),
                Some(Owner::Ollama) => ("Ollama is running there", "stop Ollama"),
                None => ("another program uses it", "stop that program"),
            };
            Err(ListenError::InUse { address: address.authority(), who, way_out })
        }
        Err(source) => Err(ListenError::Refused { address: address.authority(), source }),
    }
}

/// Who answers on a port.
enum Owner {
    Hypura,
    Ollama,
}

fn owner_of(address: &Address) -> Option<Owner> {
    let at = (address.host.as_str(), address.port).to_socket_addrs().ok()?.next()?;
    let mut stream = std::net::TcpStream::connect_timeout(&at, PROBE_LIMIT).ok()?;
    stream.set_read_timeout(Some(PROBE_LIMIT)).ok()?;
    stream.set_write_timeout(Some(PROBE_LIMIT)).ok()?;
    let host = address.authority();
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = Vec::new();
    // A probe that times out half-way is judged by what came.
    let _ = stream.take(4096).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    if answer.contains("server: hypura") {
        return Some(Owner::Hypura);
    }
    answer.contains("ollama is running").then_some(Owner::Ollama)
}

/// Serves until `stop` becomes true, then lets what runs come to its end, for as long as the settings say,
/// and frees the models.
///
/// # Errors
/// When the models cannot be freed.
pub async fn run(listener: TcpListener, server: Arc<Server>, stop: watch::Receiver<bool>) -> io::Result<()> {
    let connections = accept(listener, &server, &stop).await;
    let drained = drain(connections, server.http.drain_limit).await;
    if !drained {
        tracing::warn!("stopping although requests still run");
    }
    let freed = tokio::task::spawn_blocking(move || server.models.close(drained)).await;
    freed.map_err(io::Error::other)
}

/// Accepts connections until it is asked to stop. Returns those that are open then; the port is closed.
async fn accept(listener: TcpListener, server: &Arc<Server>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let router = http::router(Arc::clone(server));
    let mut connections = JoinSet::new();
    let mut stopping = pin!(stopped(stop.clone()));
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => return connections,
            accepted = listener.accept() => accepted,
            // Those that ended are forgotten.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let limit = server.http.head_limit;
                connections.spawn(connection(stream, router.clone(), limit, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Mostly there are too many open files: some have to be closed first.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection: to its end, or, once a shutdown was requested, to the end of the request that runs.
async fn connection(stream: TcpStream, router: Router, head_limit: Duration, stop: watch::Receiver<bool>) {
    // Every piece goes out at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    // One that has not said anything yet may wait for as long as it likes: it costs nothing but itself.
    let mut first = [0];
    tokio::select! {
        // Readiness alone may be a false alarm.
        peeked = stream.peek(&mut first) => if !peeked.is_ok_and(|bytes| bytes > 0) { return },
        () = stopped(stop.clone()) => return,
    }
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_limit);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Waits for all connections; false when the time was over first, and they were cut.
async fn drain(mut connections: JoinSet<()>, limit: Duration) -> bool {
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(limit, all).await.is_ok()
}

/// Ready when a shutdown is requested; never, once the sender is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Allows as many open files as the system lets us have: each connection is one, and the usual limit is a
/// thousand.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Becomes true at the first SIGINT or SIGTERM; the second one ends the program at once.
///
/// # Errors
/// When the system refuses a handler.
pub fn stop_on_signals() -> io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            seen += 1;
            if seen > 1 {
                tracing::warn!("stopping at once");
                std::process::exit(STOPPED_AT_ONCE);
            }
            tracing::info!("stopping after the requests that run; again to stop at once");
            // Nobody serves any more: then there is nothing to stop.
            let _ = sender.send(true);
        }
    });
    Ok(receiver)
}

/// The line by which scripts and tests know that the port is open, and which one it is.
///
/// # Errors
/// When stdout is closed.
pub fn announce(address: SocketAddr, models: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let noun = if models == 1 { "model" } else { "models" };
    writeln!(out, "Hypura is listening on http://{address} (Ollama's API; {models} {noun} installed)")?;
    out.flush()
}
