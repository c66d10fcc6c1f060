//! The operation: listen, say so, serve, and drain on the first signal.
//!
//! What ends the program when that takes too long, and at the second signal, is `last_resort`: no task of the
//! server can hold it up.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::address::Address;
use super::connections::{Connections, Member};
use super::http;
use super::settings::HttpSettings;
use super::state::Server;

pub use super::last_resort::{UNLOAD_LIMIT, end_by_force};

/// How long the program that owns the port may take to say who it is.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Open files that are not connections: models, their headers, sockets of runners, the log.
const OTHER_FILES: usize = 64;

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
    let open = Connections::new(server.http.most_connections);
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
            Ok((stream, _)) => match open.admit() {
                Some(member) => {
                    let server = Arc::clone(server);
                    let (router, stop) = (router.clone(), stop.clone());
                    connections
                        .spawn(async move { connection(stream, router, &server.http, &member, stop).await });
                }
                None => tracing::warn!("a connection was closed: all that there may be are at work"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Mostly there are too many open files: some have to be closed first.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection: to its end, until another one needs its place while it is idle, or, once a shutdown
/// was requested, to the end of the request that runs.
async fn connection(
    stream: TcpStream,
    router: Router,
    settings: &HttpSettings,
    member: &Arc<Member>,
    stop: watch::Receiver<bool>,
) {
    // Every piece goes out at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut first = [0];
    tokio::select! {
        // Readiness alone may be a false alarm.
        peeked = tokio::time::timeout(settings.first_byte_limit, stream.peek(&mut first)) => {
            if !peeked.is_ok_and(|peeked| peeked.is_ok_and(|bytes| bytes > 0)) {
                return;
            }
        }
        () = member.dismissed() => return,
        () = stopped(stop.clone()) => return,
    }
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (running, router) = (member.begin(), router.clone());
        async move { Ok::<_, Infallible>(running.until_sent(router.oneshot(request).await?)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.head_limit);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = member.dismissed() => return,
        // Half a head is not waited for.
        () = stopped(stop) => {
            if member.is_idle() {
                return;
            }
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
/// thousand. Returns how many connections there can be.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    files.saturating_sub(OTHER_FILES).max(1)
}

/// Becomes true at the first SIGINT or SIGTERM.
///
/// # Errors
/// When the system refuses a handler.
pub fn stop_on_signals() -> io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping after the requests that run; again to stop at once");
        // Nobody serves any more: then there is nothing to stop.
        let _ = sender.send(true);
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
