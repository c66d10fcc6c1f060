//! What two machines say before the tunnel opens, as JSON behind a length.
//!
//! Worker: [`Greeting`]. Client: [`Claim`], with its proof. Worker: [`Verdict`], with its own. Then the
//! client asks ([`Ask`]): a measurement of the link, as often as it likes, and at most once a session, after
//! whose [`Answer::Open`] the connection belongs to the pump.

use rustls::Connection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use crate::identity::Identity;

/// Longest message.
const MOST_BYTES: u32 = 64 << 10;
/// Most bytes of a measurement.
pub const MOST_MEASURED: u32 = 64 << 20;

/// The worker's first words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Who it is.
    pub identity: Identity,
    /// Names its pairing code.
    pub code: String,
}

/// The client's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Who it is.
    pub identity: Identity,
    /// That it knows the code.
    pub proof: Vec<u8>,
}

/// What becomes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// No.
    Refused(String),
    /// Yes.
    Welcome {
        /// That the worker knows the code, too.
        proof: Vec<u8>,
        /// What it offers.
        offer: Offer,
    },
}

/// What a worker offers now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Bytes of memory that nobody has.
    pub memory_bytes: u64,
    /// Bytes of memory in all.
    pub total_bytes: u64,
    /// What computes, for people.
    pub device: String,
    /// Threads that compute.
    pub threads: u32,
    /// How fast that is, as JSON of whoever runs the worker; `None` where it was not measured.
    pub rates: Option<String>,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// So many bytes follow; to be answered when all are there.
    Measure(u32),
    /// A session: memory and a process for it.
    Open,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// They are there.
    Measured,
    /// The tunnel is open; so many bytes of memory may be used.
    Open(u64),
    /// There is no session, and why.
    Refused(String),
}

/// A connection while messages are said.
pub(crate) struct Talk {
    pub tls: Connection,
    pub tcp: TcpStream,
}

impl Talk {
    pub fn say<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.write_all(&[&length.to_be_bytes(), text.as_slice()].concat())
    }

    pub fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MOST_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
        }
        let mut text = vec![0; length as usize];
        self.read_exact(&mut text)?;
        serde_json::from_slice(&text)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no such message"))
    }

    /// Sends bytes of a measurement.
    pub fn send_zeros(&mut self, bytes: u32) -> io::Result<()> {
        let part = [0_u8; 16 << 10];
        let mut left = bytes as usize;
        while left > 0 {
            let length = left.min(part.len());
            self.write_all(&part[..length])?;
            left -= length;
        }
        Ok(())
    }

    /// Takes bytes of a measurement.
    pub fn discard(&mut self, bytes: u32) -> io::Result<()> {
        let taken = io::copy(&mut io::Read::by_ref(self).take(u64::from(bytes)), &mut io::sink())?;
        if taken == u64::from(bytes) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl io::Read for Talk {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            // Reads at least one packet, and sends what a handshake wants sent.
            if self.tls.complete_io(&mut self.tcp)? == (0, 0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl io::Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.tcp)?;
        }
        let written = self.tls.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}
