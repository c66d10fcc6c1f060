//! A worker: accepts connections, checks who is there, and gives each session a process of its own.
//!
//! The process speaks ggml's RPC on its standard input, which is one end of a socket pair: nobody else, of
//! this machine or another, can reach it. Whatever it makes of what it is sent ends that process, and the
//! session with it; its memory is free once it is gone. On its standard output it gives a sign of life every
//! second.

use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::attempts::{Attempt, Attempts};
use crate::cache::WeightCache;
use crate::code::{Code, Role};
use crate::grants::{Grant, Grants};
use crate::identity::Identity;
use crate::message::{Answer, Ask, Claim, Greeting, MOST_MEASURED, Offer, Talk, Verdict};
use crate::pump::{End, Pump};
use crate::{WorkerError, tls};

/// How long a stranger may take for each word.
const STRANGER: Duration = Duration::from_secs(5);
/// How long a client may take to decide what it wants.
const DECIDE: Duration = Duration::from_secs(60);
/// How long a client waits for memory that another session has: less than it waits for an answer.
const ENDING: Duration = Duration::from_secs(3);
/// How long a process may take to end once its socket is closed.
const LINGER: Duration = Duration::from_secs(2);

/// What a worker is.
pub struct Worker {
    /// Who it is.
    pub identity: Identity,
    /// The secret.
    pub code: Code,
    /// Its memory.
    pub grants: Grants,
    /// Its device and threads.
    pub offer: Offer,
    /// Weights on its disk, if it keeps any.
    pub cache: Option<WeightCache>,
    /// The command of a session's process, for so many bytes of memory; its standard streams are set here.
    pub command: Box<dyn Fn(u64) -> io::Result<Command> + Send + Sync>,
}

/// What all connections of a worker share.
struct Shared {
    worker: Worker,
    tls: Arc<ServerConfig>,
    attempts: Attempts,
    sessions: AtomicUsize,
}

/// Serves until the listener fails.
///
/// # Errors
/// [`WorkerError::Crypto`] without keys; otherwise what the listener says.
pub fn serve(worker: Worker, listener: &TcpListener) -> Result<(), WorkerError> {
    let (tls, attempts) = (tls::server_config()?, Attempts::default());
    let shared = Arc::new(Shared { worker, tls, attempts, sessions: AtomicUsize::new(0) });
    loop {
        let accepted = listener.accept();
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "a connection was not accepted");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            Err(error) => return Err(WorkerError::file("no connections are accepted")(error)),
        };
        let Some(attempt) = shared.attempts.begin(from.ip()) else { continue };
        let shared = Arc::clone(&shared);
        let work = move || shared.connection(tcp, from.ip(), attempt);
        if let Err(error) = thread::Builder::new().name("connection".to_owned()).spawn(work) {
            tracing::warn!(%error, "no thread for a connection");
        }
    }
}

/// Whether it is about one connection, or over once others have ended.
fn is_passing(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
        || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

impl Shared {
    fn connection(&self, tcp: TcpStream, from: IpAddr, attempt: Attempt) {
        match self.admit(tcp, &attempt) {
            Ok(Some((talk, client))) => {
                drop(attempt);
                if let Err(error) = self.obey(talk, &client) {
                    tracing::debug!(%error, client, "a client");
                }
            }
            Ok(None) => tracing::warn!(%from, "a client was refused"),
            Err(error) => {
                attempt.failed();
                tracing::debug!(%error, %from, "somebody tried");
            }
        }
    }

    /// Who is there; `None` where it was refused.
    fn admit(&self, tcp: TcpStream, attempt: &Attempt) -> io::Result<Option<(Talk, String)>> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(STRANGER))?;
        tcp.set_write_timeout(Some(STRANGER))?;
        let Worker { identity, code, .. } = &self.worker;
        let mut talk = Talk { tls: tls::server(&self.tls).map_err(io::Error::other)?, tcp };
        talk.say(&Greeting { identity: identity.clone(), code: code.id() })?;
        let claim: Claim = talk.hear()?;
        let binding = tls::binding(&talk.tls).map_err(io::Error::other)?;
        if !code.proves(Role::Client, &binding, &claim.proof) {
            attempt.failed();
            talk.say(&Verdict::Refused("the pairing code is wrong".to_owned()))?;
            return Ok(None);
        }
        attempt.succeeded();
        if !claim.identity.suits(identity) {
            let (ours, theirs) = (identity.program(), claim.identity.program());
            talk.say(&Verdict::Refused(format!("it is {ours}, not {theirs}")))?;
            return Ok(None);
        }
        let proof = code.proof(Role::Worker, &binding);
        talk.say(&Verdict::Welcome { proof, offer: self.offer() })?;
        Ok(Some((talk, claim.identity.name)))
    }

    fn offer(&self) -> Offer {
        Offer { memory_bytes: self.worker.grants.free_bytes(), ..self.worker.offer.clone() }
    }

    fn obey(&self, mut talk: Talk, client: &str) -> io::Result<()> {
        talk.tcp.set_read_timeout(Some(DECIDE))?;
        loop {
            match talk.hear()? {
                Ask::Measure(bytes) if bytes <= MOST_MEASURED => {
                    talk.discard(bytes)?;
                    talk.say(&Answer::Measured)?;
                }
                Ask::Measure(_) => return Err(io::ErrorKind::InvalidData.into()),
                Ask::Open => return self.session(talk, client),
            }
        }
    }

    fn session(&self, mut talk: Talk, client: &str) -> io::Result<()> {
        // Dropped after the grant: the memory is free before the disk is looked through.
        let _running = self.begin();
        let grant = match self.worker.grants.take_within(client, ENDING) {
            Ok(grant) => Arc::new(grant),
            Err(reason) => return talk.say(&Answer::Refused(reason)),
        };
        let bytes = grant.bytes();
        let started = (self.worker.command)(bytes).and_then(Process::start);
        let (mut process, local) = match started {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(%error, "no process for a session");
                return talk.say(&Answer::Refused("it has no process for a session".to_owned()));
            }
        };
        talk.say(&Answer::Open(bytes))?;
        tracing::info!(client, memory_mib = bytes >> 20, "a session begins");
        let kept: Arc<Grant> = Arc::clone(&grant);
        let mut pump = Pump::new(talk.tls, talk.tcp, local)?.with_kept(Box::new(move |most| kept.keep(most)));
        if let Some(pulse) = process.pulse.take() {
            pump = pump.with_pulse(pulse);
        }
        let counters = pump.counters();
        let end = pump.run();
        pump.close();
        let reason = match (process.end(), &end) {
            (Some(words), End::Local) => format!("its process ended: {words}"),
            _ => end.reason(),
        };
        pump.bye(&reason);
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sent_bytes, received_bytes) = (bytes(&counters.sent_bytes), bytes(&counters.received_bytes));
        tracing::info!(client, reason, sent_bytes, received_bytes, "a session ended");
        Ok(())
    }

    /// Notes that a session runs; when the last one has ended, what it left on the disk is looked through.
    fn begin(&self) -> Running<'_> {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        Running(self)
    }
}

struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.sessions.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(cache) = &self.0.worker.cache
            && let Err(error) = cache.tidy()
        {
            tracing::warn!(%error, "the cache of weights");
        }
    }
}

/// A session's process.
struct Process {
    child: Child,
    pulse: Option<OwnedFd>,
    words: Option<thread::JoinHandle<Option<String>>>,
}

impl Process {
    fn start(mut command: Command) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // The command holds the other end of the socket until it is dropped.
        drop(command);
        let pulse = child.stdout.take().map(OwnedFd::from);
        let words = child.stderr.take().map(|stderr| {
            thread::Builder::new().name("session-stderr".to_owned()).spawn(move || {
                let mut last = None;
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    tracing::debug!(line, "session");
                    last = Some(line).filter(|line| !line.trim().is_empty()).or(last);
                }
                last
            })
        });
        Ok((Self { child, pulse, words: words.transpose()? }, ours))
    }

    /// Ends it, and gives its last words where it failed.
    fn end(&mut self) -> Option<String> {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if start.elapsed() < LINGER => thread::sleep(Duration::from_millis(5)),
                _ => break None,
            }
        };
        if status.is_none() {
            // One that is gone cannot be killed, nor has to be.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let words = self.words.take().and_then(|thread| thread.join().ok()).flatten();
        status.filter(|status| !status.success()).map(|status| words.unwrap_or_else(|| status.to_string()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
