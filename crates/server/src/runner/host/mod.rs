//! The runner's side: does what the server asks of the engine of this process.
//!
//! - `serve`: the plan, the load, the end
//! - `calls`: what has an answer; each call on a thread of its own
//! - `answers`: what comes of requests
//! - `memory`: asking the server for memory
//! - `shared`: what all threads share
//! - `outgoing`: what is said, and the sign of life

mod answers;
mod calls;
mod memory;
mod outgoing;
mod serve;
mod shared;

pub use serve::{Hooks, serve};
