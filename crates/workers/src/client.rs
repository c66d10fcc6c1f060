//! Connecting to a worker: who it is, what it offers, what the link can do, and the tunnel.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::code::{Code, CodeFolder, Role};
use crate::identity::Identity;
use crate::message::{Answer, Ask, Claim, Greeting, Offer, Talk, Verdict};
use crate::pump::{Counters, Keep, Pump};
use crate::{PORT, WorkerError, tls};

/// How long a worker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// How long it may take for each word before the tunnel.
const ANSWER: Duration = Duration::from_secs(5);
/// Round trips that are measured; the fastest counts.
const ROUNDS: usize = 8;
/// How long a measurement of the bandwidth should take.
const LONG_ENOUGH: Duration = Duration::from_millis(150);
/// Most and fewest bytes that it sends for that.
const FEWEST_BYTES: u32 = 128 << 10;
const MOST_BYTES: u32 = 32 << 20;

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkRates {
    /// There and back, in seconds.
    pub round_trip_s: f64,
    /// Bytes a second, to the worker.
    pub bytes_per_s: f64,
}

/// A worker that both sides are sure of.
pub struct Client {
    talk: Talk,
    /// As it was given, with a port.
    pub address: String,
    /// Who it is.
    pub identity: Identity,
    /// What it offers.
    pub offer: Offer,
}

/// An open tunnel to a worker's memory.
pub struct Session {
    /// What speaks ggml's RPC at the other end.
    pub socket: OwnedFd,
    /// Bytes of memory that may be used there.
    pub granted_bytes: u64,
    /// What goes through.
    pub counters: Arc<Counters>,
    /// What of the memory is needed.
    pub keep: Arc<Keep>,
}

/// An address with a port: HOST, HOST:PORT, an IPv6 address with or without brackets.
///
/// # Errors
/// [`WorkerError::Address`].
pub fn address_of(text: &str) -> Result<String, WorkerError> {
    let wrong = || WorkerError::Address(text.to_owned());
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong());
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{PORT}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            let port: u16 = port.parse().map_err(|_| wrong())?;
            if port == 0 { Err(wrong()) } else { Ok(format!("{host}:{port}")) }
        }
        Some(("", _)) => Err(wrong()),
        _ => Ok(format!("{text}:{PORT}")),
    }
}

impl Client {
    /// Connects. Nothing of the worker's memory is taken yet.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn connect(address: &str, codes: &CodeFolder, identity: &Identity) -> Result<Self, WorkerError> {
        let address = address_of(address)?;
        let unreachable = |source| WorkerError::Unreachable { address: address.clone(), source };
        let tcp = reach(&address).map_err(unreachable)?;
        let talk = Talk { tls: tls::client(&tls::client_config()?)?, tcp };
        let known = codes.known()?;
        introduce(talk, &address, &known, identity)
    }

    /// Measures the link.
    ///
    /// # Errors
    /// [`WorkerError::Protocol`] when the connection breaks.
    pub fn measure(&mut self) -> Result<LinkRates, WorkerError> {
        let mut round_trip = Duration::MAX;
        for _ in 0..ROUNDS {
            round_trip = round_trip.min(self.round(1)?);
        }
        let mut bytes = FEWEST_BYTES;
        loop {
            let took = self.round(bytes)?;
            if took >= LONG_ENOUGH || bytes >= MOST_BYTES {
                let moving = took.saturating_sub(round_trip).as_secs_f64().max(1e-9);
                let round_trip_s = round_trip.as_secs_f64();
                return Ok(LinkRates { round_trip_s, bytes_per_s: f64::from(bytes) / moving });
            }
            bytes = bytes.saturating_mul(4).min(MOST_BYTES);
        }
    }

    fn round(&mut self, bytes: u32) -> Result<Duration, WorkerError> {
        let start = Instant::now();
        let broken = broken(&self.address);
        self.talk.say(&Ask::Measure(bytes)).map_err(&broken)?;
        self.talk.send_zeros(bytes).map_err(&broken)?;
        match self.talk.hear().map_err(&broken)? {
            Answer::Measured => Ok(start.elapsed()),
            _ => Err(broken(io::Error::other("another answer was expected"))),
        }
    }

    /// Opens the tunnel. `lost` is called, on a thread of the tunnel, when it ends before this process does;
    /// the local socket is closed afterwards.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn open(mut self, lost: Box<dyn FnOnce(&str) + Send>) -> Result<Session, WorkerError> {
        let address = self.address.clone();
        let broken = broken(&address);
        self.talk.say(&Ask::Open).map_err(&broken)?;
        let granted_bytes = match self.talk.hear().map_err(&broken)? {
            Answer::Open(bytes) => bytes,
            Answer::Refused(reason) => return Err(WorkerError::Refused { address, reason }),
            Answer::Measured => return Err(broken(io::Error::other("another answer was expected"))),
        };
        let (ours, theirs) = UnixStream::pair().map_err(&broken)?;
        let mut pump = Pump::new(self.talk.tls, self.talk.tcp, ours).map_err(&broken)?;
        let (counters, keep) = (pump.counters(), pump.keep());
        let work = move || {
            let end = pump.run();
            lost(&end.reason());
            pump.close();
            pump.bye("the other machine is done");
        };
        std::thread::Builder::new().name("tunnel".to_owned()).spawn(work).map_err(&broken)?;
        Ok(Session { socket: theirs.into(), granted_bytes, counters, keep })
    }
}

fn reach(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for found in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&found, CONNECT) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(ANSWER))?;
                tcp.set_write_timeout(Some(ANSWER))?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn broken(address: &str) -> impl Fn(io::Error) -> WorkerError + use<> {
    let address = address.to_owned();
    move |error| WorkerError::Protocol { address: address.clone(), reason: error.to_string() }
}

fn introduce(
    mut talk: Talk,
    address: &str,
    known: &[Code],
    identity: &Identity,
) -> Result<Client, WorkerError> {
    let broken = broken(address);
    let address = address.to_owned();
    let greeting: Greeting = talk.hear().map_err(&broken)?;
    if !greeting.identity.suits(identity) {
        let (theirs, ours) = (greeting.identity.program(), identity.program());
        return Err(WorkerError::Version { address, theirs, ours });
    }
    let Some(code) = known.iter().find(|code| code.id() == greeting.code) else {
        return Err(WorkerError::NotPaired { address });
    };
    let binding = tls::binding(&talk.tls)?;
    let proof = code.proof(Role::Client, &binding);
    talk.say(&Claim { identity: identity.clone(), proof }).map_err(&broken)?;
    match talk.hear().map_err(&broken)? {
        Verdict::Refused(reason) => Err(WorkerError::Refused { address, reason }),
        Verdict::Welcome { proof, .. } if !code.proves(Role::Worker, &binding, &proof) => {
            Err(WorkerError::Impostor { address })
        }
        Verdict::Welcome { offer, .. } => Ok(Client { talk, address, identity: greeting.identity, offer }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_gets_ours() {
        let read = |text: &str| address_of(text).ok();
        assert_eq!(read("box").as_deref(), Some("box:11436"));
        assert_eq!(read("box:5").as_deref(), Some("box:5"));
        assert_eq!(read("10.0.0.1").as_deref(), Some("10.0.0.1:11436"));
        assert_eq!(read("fe80::1").as_deref(), Some("[fe80::1]:11436"));
        assert_eq!(read("[fe80::1]").as_deref(), Some("[fe80::1]:11436"));
        assert_eq!(read("[fe80::1]:7").as_deref(), Some("[fe80::1]:7"));
        for wrong in ["", " ", ":5", "box:", "box:x", "box:0", "box:99999", "http://box", "a b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
