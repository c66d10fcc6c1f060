//! A process for each loaded model: whatever a file or a request makes of the C++ that reads it ends one
//! runner, and never the server.
//!
//! The server's side:
//! - `backend`: plans and loads in a runner; refuses files that ended theirs again and again (`crashes`)
//! - `remote`: a loaded model in a runner, as the server's engine; `audit`: what it came to
//! - `errand`: a process for one piece of work: templates of clients (`trial`), plans that nobody carries out
//!   (`advise`), quantising (`quantize`)
//! - `link`: the connection to one runner (`connect`), what comes from it (`incoming`, `deltas`), and what
//!   becomes of its requests when it ends
//! - `process`: starting, ending and watching the process (`watch`, `limits`, `movement`, `group`); `places`:
//!   how much it is asked at a time
//!
//! The runner's side:
//! - `host`: does what the server asks of the engine of its process
//! - `confine`: what a runner may not do
//!
//! Between them:
//! - `message`: what is said; `frame`: how it goes over the socket

mod advise;
mod audit;
mod backend;
mod confine;
mod connect;
mod crashes;
mod deltas;
mod errand;
mod frame;
#[cfg(test)]
mod fuzz_tests;
#[cfg(target_os = "linux")]
mod group;
#[cfg(not(target_os = "linux"))]
#[path = "no_group.rs"]
mod group;
mod host;
mod incoming;
mod limits;
mod link;
mod message;
mod movement;
mod places;
mod process;
mod quantize;
mod remote;
#[cfg(test)]
mod tests;
mod trial;
mod watch;

pub use backend::ProcessBackend;
pub use confine::{Confinement, available, confine, confine_quantizing, confine_trial, confine_worker};
pub use host::{Hooks, serve};
pub use limits::Limits;
pub use process::{LOST_WORKER, own_bytes};
pub use quantize::quantize;
