//! The tunnel: carries bytes between a local socket and a connection, on one thread, and ends both in time.
//!
//! Frames go over the connection: a kind, a length, bytes, packed where that makes them fewer
//! ([`crate::pack`]). Each side says that it is alive every second, whatever else it sends, so that silence
//! means something: a side that hears nothing for [`SILENCE`], although it listens, closes the local socket
//! and says why. One that cannot pass on what it gets does not listen meanwhile and waits: the process behind
//! the socket may compute for minutes.
//!
//! Invariant: the bytes of the local socket arrive at the other one as they are, in order, or the end of both
//! is told.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::Connection;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::pack::{self, Packer, Unpacker};

/// How long the other side may say nothing.
pub const SILENCE: Duration = Duration::from_secs(5);
/// How often each side says that it is alive.
const PULSE: Duration = Duration::from_secs(1);
/// How often to look at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes that are taken from the local socket at once.
const PART: usize = pack::MOST_BYTES;
/// Bytes on their way to the local socket beyond which the connection is not listened to.
const MOST_WAITING: usize = 1 << 20;
/// Most reads of the connection before the local socket is looked at.
const READS: usize = 32;
/// Longest frame that is no data.
const MOST_SAID: usize = 4 << 10;
/// Bytes of a frame's head.
const HEAD: usize = 5;

const DATA: u8 = 0;
const ALIVE: u8 = 1;
const BYE: u8 = 2;
const KEEP: u8 = 3;
const PACKED: u8 = 4;

/// Bytes that went through a tunnel, by direction, frames and all.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the local socket to the other machine.
    pub sent_bytes: AtomicU64,
    /// From the other machine to the local socket.
    pub received_bytes: AtomicU64,
}

/// Memory that a client has found to need, to be told to the worker.
#[derive(Debug)]
pub struct Keep(AtomicU64);

impl Default for Keep {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Keep {
    /// No more than so many bytes are needed.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// How a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The local socket was closed: the process there is done, or dead.
    Local,
    /// The other machine said why.
    Told(String),
    /// The connection broke.
    Broken(String),
    /// Nothing was heard of the other machine.
    Silent,
    /// Nothing was heard of the process at the local socket.
    ProcessSilent,
}

impl End {
    /// For people, about the other machine.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Local => "its process ended".to_owned(),
            Self::Told(reason) => reason.clone(),
            Self::Broken(reason) => format!("the connection broke: {reason}"),
            Self::Silent => format!("nothing was heard of it for {} s", SILENCE.as_secs()),
            Self::ProcessSilent => format!("its process gave no sign of life for {} s", SILENCE.as_secs()),
        }
    }
}

/// What arrives from the other machine, between reads.
#[derive(Default)]
struct Arriving {
    head: Vec<u8>,
    kind: u8,
    left: usize,
    frame: Vec<u8>,
    unpacker: Unpacker,
}

/// One tunnel.
pub struct Pump {
    tls: Connection,
    tcp: TcpStream,
    local: UnixStream,
    /// Readable whenever the local process gives a sign of life.
    pulse: Option<OwnedFd>,
    counters: Arc<Counters>,
    keep: Arc<Keep>,
    /// Called with what the other machine needs.
    kept: Box<dyn FnMut(u64) + Send>,
    arriving: Arriving,
    to_local: Vec<u8>,
    at: usize,
    part: Vec<u8>,
    packer: Packer,
    heard: Instant,
    pulsed: Instant,
    said: Instant,
    told_keep: u64,
}

impl Pump {
    /// A tunnel over a connection on which both sides are proven.
    ///
    /// # Errors
    /// When the sockets cannot be prepared.
    pub(crate) fn new(tls: Connection, tcp: TcpStream, local: UnixStream) -> io::Result<Self> {
        tcp.set_read_timeout(None)?;
        tcp.set_write_timeout(None)?;
        tcp.set_nonblocking(true)?;
        local.set_nonblocking(true)?;
        let mut tls = tls;
        // A part is encrypted as a whole; no further one is taken until it is out.
        tls.set_buffer_limit(None);
        let now = Instant::now();
        Ok(Self {
            tls,
            tcp,
            local,
            pulse: None,
            counters: Arc::default(),
            keep: Arc::default(),
            kept: Box::new(|_| ()),
            arriving: Arriving::default(),
            to_local: Vec::new(),
            at: 0,
            part: vec![0; PART],
            packer: Packer::default(),
            heard: now,
            pulsed: now,
            said: now,
            told_keep: u64::MAX,
        })
    }

    /// Ends the tunnel when nothing comes from there.
    pub(crate) fn with_pulse(mut self, pulse: OwnedFd) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// Calls that with what the other side says that it needs.
    pub(crate) fn with_kept(mut self, kept: Box<dyn FnMut(u64) + Send>) -> Self {
        self.kept = kept;
        self
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Where to put what is needed.
    pub(crate) fn keep(&self) -> Arc<Keep> {
        Arc::clone(&self.keep)
    }

    /// Carries bytes until one of the sides ends. The other one is as it was left, for [`Self::close`] and
    /// [`Self::bye`].
    pub fn run(&mut self) -> End {
        loop {
            if let Some(end) = self.turn() {
                return end;
            }
        }
    }

    /// Closes the local socket: the process there is told, whatever it waits for.
    pub fn close(&self) {
        // It may be gone already.
        let _ = self.local.shutdown(std::net::Shutdown::Both);
    }

    /// Tells the other side why this one ends, as far as it listens.
    pub fn bye(&mut self, reason: &str) {
        let reason: String = reason.chars().take(MOST_SAID / 4).collect();
        self.frame(BYE, reason.as_bytes());
        self.tls.send_close_notify();
        let start = Instant::now();
        while self.tls.wants_write() && start.elapsed() < LOOK {
            let _ = self.flush();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn turn(&mut self) -> Option<End> {
        let listens = self.to_local.len() - self.at < MOST_WAITING;
        let ready = match self.wait(listens) {
            Ok(ready) => ready,
            Err(error) => return Some(End::Broken(error.to_string())),
        };
        if ready.pulse && !self.feel() {
            self.pulse = None;
        }
        if ready.tcp.contains(PollFlags::OUT)
            && let Err(error) = self.flush()
        {
            return Some(End::Broken(error.to_string()));
        }
        if listens
            && ready.tcp.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && let Some(end) = self.hear()
        {
            return Some(end);
        }
        if !self.exchange(ready.local) {
            return Some(End::Local);
        }
        self.keep_time(listens)
    }

    /// Waits for either side.
    fn wait(&self, listens: bool) -> io::Result<Ready> {
        let writes = self.tls.wants_write();
        let of = |is: bool, flag| if is { flag } else { PollFlags::empty() };
        let tcp = of(listens, PollFlags::IN) | of(writes, PollFlags::OUT);
        let local = of(!writes, PollFlags::IN) | of(self.at < self.to_local.len(), PollFlags::OUT);
        let mut polled = vec![PollFd::new(&self.tcp, tcp), PollFd::new(&self.local, local)];
        polled.extend(self.pulse.as_ref().map(|pulse| PollFd::new(pulse, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = |at: usize| polled.get(at).map_or(PollFlags::empty(), PollFd::revents);
        Ok(Ready { tcp: flags(0), local: flags(1), pulse: !flags(2).is_empty() })
    }

    /// Takes signs of life of the local process; false when there will be no more.
    fn feel(&mut self) -> bool {
        let Some(pulse) = &self.pulse else { return false };
        let mut signs = [0_u8; 64];
        match rustix::io::read(pulse.as_fd(), &mut signs) {
            Ok(0) => false,
            Ok(_) => {
                self.pulsed = Instant::now();
                true
            }
            Err(error) => error == rustix::io::Errno::INTR || error == rustix::io::Errno::AGAIN,
        }
    }

    /// Sends what is encrypted, as far as the system takes it.
    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(sent) => {
                    self.counters.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
                }
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what the other machine sent.
    fn hear(&mut self) -> Option<End> {
        for _ in 0..READS {
            match self.hear_once() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(end) => return Some(end),
            }
        }
        None
    }

    /// Whether there was anything.
    fn hear_once(&mut self) -> Result<bool, End> {
        let broken = |error: &dyn std::fmt::Display| End::Broken(error.to_string());
        match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => return Err(broken(&"it was closed")),
            Ok(received) => {
                self.heard = Instant::now();
                self.counters.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
            }
            Err(error) if is_for_later(&error) => return Ok(false),
            Err(error) => return Err(broken(&error)),
        }
        self.tls.process_new_packets().map_err(|error| broken(&error))?;
        let mut plain = std::mem::take(&mut self.part);
        let end = loop {
            match self.tls.reader().read(&mut plain) {
                // The end of the stream: whatever comes, the socket tells.
                Ok(0) => break None,
                Ok(length) => {
                    let told = plain.get(..length).and_then(|bytes| self.arrive(bytes));
                    if told.is_some() {
                        break told;
                    }
                }
                Err(error) if is_for_later(&error) => break None,
                Err(error) => break Some(broken(&error)),
            }
        };
        self.part = plain;
        end.map_or(Ok(true), Err)
    }

    /// Takes apart what arrived.
    fn arrive(&mut self, mut bytes: &[u8]) -> Option<End> {
        while !bytes.is_empty() {
            if self.arriving.head.len() < HEAD {
                let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.arriving.head.len()));
                self.arriving.head.extend_from_slice(head);
                bytes = rest;
                if let [kind, length @ ..] = self.arriving.head.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    (self.arriving.kind, self.arriving.left) = (*kind, u32::from_be_bytes(length) as usize);
                    let most = if matches!(*kind, DATA | PACKED) { PART } else { MOST_SAID };
                    if self.arriving.left > most {
                        return Some(not_understood());
                    }
                } else {
                    continue;
                }
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.arriving.left));
            self.arriving.left -= payload.len();
            bytes = rest;
            self.arriving.frame.extend_from_slice(payload);
            if self.arriving.left == 0 {
                self.arriving.head.clear();
                let mut frame = std::mem::take(&mut self.arriving.frame);
                let end = self.take(&frame);
                frame.clear();
                self.arriving.frame = frame;
                if end.is_some() {
                    return end;
                }
            }
        }
        None
    }

    /// A frame arrived as a whole.
    fn take(&mut self, said: &[u8]) -> Option<End> {
        match self.arriving.kind {
            DATA => {
                self.arriving.unpacker.plain(said);
                self.to_local.extend_from_slice(said);
                None
            }
            PACKED => {
                let Some(frame) = self.arriving.unpacker.unpack(said) else { return Some(not_understood()) };
                self.to_local.extend_from_slice(&frame);
                None
            }
            BYE => Some(End::Told(String::from_utf8_lossy(said).into_owned())),
            KEEP => {
                if let Ok(bytes) = <[u8; 8]>::try_from(said) {
                    (self.kept)(u64::from_be_bytes(bytes));
                }
                None
            }
            // Of a later version: nothing that must be understood.
            _ => None,
        }
    }

    /// Passes on what arrived, and takes what is to be sent. False when the local process is gone.
    fn exchange(&mut self, ready: PollFlags) -> bool {
        while let Some(waiting) = self.to_local.get(self.at..).filter(|waiting| !waiting.is_empty()) {
            match self.local.write(waiting) {
                Ok(0) => return false,
                Ok(written) => self.at += written,
                Err(error) if is_for_later(&error) => break,
                Err(_) => return false,
            }
        }
        if self.at == self.to_local.len() {
            self.to_local.clear();
            self.at = 0;
        }
        let readable = ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if !readable || self.tls.wants_write() {
            return true;
        }
        let mut part = std::mem::take(&mut self.part);
        let read = self.local.read(&mut part);
        let alive = match read {
            Ok(0) => false,
            Ok(length) => {
                let data = part.get(..length).unwrap_or_default();
                match self.packer.pack(data) {
                    Some(packed) => self.frame(PACKED, &packed),
                    None => self.frame(DATA, data),
                }
                // Now, not after the next look at what is ready. A failure is seen there.
                let _ = self.flush();
                true
            }
            Err(error) => is_for_later(&error),
        };
        self.part = part;
        alive
    }

    /// Puts a frame where it is encrypted.
    fn frame(&mut self, kind: u8, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
        let head = [kind, length[0], length[1], length[2], length[3]];
        // It goes to memory, and there is no limit to that.
        let _ = self.tls.writer().write_all(&head).and_then(|()| self.tls.writer().write_all(bytes));
        self.said = Instant::now();
    }

    /// Says what has to be said from time to time, and ends what was silent for too long.
    fn keep_time(&mut self, listens: bool) -> Option<End> {
        let now = Instant::now();
        let keep = self.keep.0.load(Ordering::Relaxed);
        if keep != self.told_keep {
            self.told_keep = keep;
            self.frame(KEEP, &keep.to_be_bytes());
        }
        if now.duration_since(self.said) >= PULSE && !self.tls.wants_write() {
            self.frame(ALIVE, &[]);
        }
        if self.tls.wants_write()
            && let Err(error) = self.flush()
        {
            return Some(End::Broken(error.to_string()));
        }
        if !listens {
            // What it says waits in the system's buffers.
            self.heard = now;
        }
        if self.pulse.is_some() && now.duration_since(self.pulsed) > SILENCE {
            return Some(End::ProcessSilent);
        }
        // Sending proves nothing: the system takes what nobody will ever acknowledge.
        (now.duration_since(self.heard) > SILENCE).then_some(End::Silent)
    }
}

/// What can be done without waiting.
struct Ready {
    tcp: PollFlags,
    local: PollFlags,
    pulse: bool,
}

fn not_understood() -> End {
    End::Broken("it said what cannot be understood".to_owned())
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
