//! Joining machines: a worker offers its memory to another machine, over a connection that both can trust.
//!
//! - [`code`]: the secret that two machines share, and where it is kept
//! - [`identity`]: who speaks: version, build, name
//! - [`tls`]: encryption, and what binds the secret to one connection
//! - [`message`]: what is said before the tunnel opens
//! - [`pump`]: the tunnel: bytes between a local socket and the connection, and the deadlines
//! - `pack`: what the tunnel leaves out, because the other side has it already
//! - [`client`]: connecting to a worker, and measuring the link
//! - [`daemon`]: a worker: who may connect ([`attempts`]), what of its memory is given out ([`grants`])
//! - [`cache`]: weights that a worker keeps on its disk
//! - [`discover`]: workers of the local network
//!
//! What travels in the tunnel is none of this crate's business (it is ggml's RPC, which has no authentication
//! and is memory-unsafe). Invariants: no byte reaches the local socket before both ends have proven that they
//! know the secret; a peer that is silent for [`pump::SILENCE`] is gone, and the local socket is closed then.
#![deny(unsafe_code)]

pub mod attempts;
pub mod cache;
pub mod client;
pub mod code;
pub mod daemon;
pub mod discover;
mod error;
pub mod grants;
pub mod identity;
pub mod message;
mod pack;
pub mod pump;
mod tls;

pub use error::WorkerError;

/// The port of workers, where nobody says another.
pub const PORT: u16 = 11_436;
