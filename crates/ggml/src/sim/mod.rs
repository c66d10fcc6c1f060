//! A simulated device, for tests of everything that is not the CPU: a pool of memory that hosts cannot
//! address, and queues that are late.
//!
//! It computes with the CPU's kernels, so its results are those of the CPU bit for bit, and everything else
//! about it is as hard as a GPU: addresses are numbers that fault when followed, graphs are computed on a
//! thread of their own after the call has returned, copies between two points of order happen in any order,
//! and their sources are read late.
//!
//! Whoever reads or writes memory that some unfinished work still uses, without an event or a wait between,
//! is a *violation*: it is written down ([`SimDevice::violations`]) and not left to luck.
//!
//! - `memory`: buffers
//! - `order`: what happens before what
//! - `queue`: the thread behind a backend
//! - `capture`: graphs as they were when they were handed over
//! - `backend`, `device`: the functions that ggml calls

mod backend;
mod capture;
mod device;
mod memory;
mod order;
mod queue;

pub use device::{SimDevice, SimDeviceOptions};
