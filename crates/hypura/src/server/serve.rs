//! The operation: listen, say so, serve, drain on the first signal and stop on the second.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::address::Address;
use super::http;
use super::state::Server;

/// How long the program that owns the port may take to say who it is.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Exit code of a program that a second signal ended.
const STOPPED_AT_ONCE: i32 = 130;

/// Opens the port.
///
/// # Errors
/// A sentence that names who has the port, where somebody has.
pub async fn listen(address: &Address) -> anyhow::Result<TcpListener> {
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
            anyhow::bail!(
                "cannot listen on {}: {who}; {way_out}, or choose another port with --port or OLLAMA_HOST",
                address.authority()
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {}", address.authority())),
    }
}

/// Who answers on a port.
enum Owner {
    Hypura,
    Ollama,
}

fn owner_of(address: &Address) -> Option<Owner> {
    let at = (address.host.as_str(), address.port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&at, PROBE_LIMIT).ok()?;
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

/// Serves until `stop` becomes true, then lets what runs come to its end and frees the models.
///
/// # Errors
/// When the port fails.
pub async fn run(
    listener: TcpListener,
    server: Arc<Server>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = http::router(Arc::clone(&server));
    // Every piece goes out at once.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    let stopped = async move {
        // A sender that is gone will never stop us; nor can anybody else.
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await?;
    let freed = tokio::task::spawn_blocking(move || server.models.close(true)).await;
    freed.map_err(io::Error::other)
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
