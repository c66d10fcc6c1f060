//! ggml's devices, decorated: an object of ours in front of each, which forwards everything but what concerns
//! weights in our buffers and the graphs that use them.
//!
//! - `handle`: a device, as everything else names it
//! - `limits`: what its kernels ask of memory
//! - `functions`: what a registry offers by name alone
//! - `registry`: one decorated device for each of ggml's, for the whole process
//! - `decorated`: the device's functions
//! - `backend`: those of a backend, and how its graphs reach an executor
//! - `cpu`: what only the CPU's device needs

mod backend;
mod cpu;
mod decorated;
mod functions;
mod handle;
mod limits;
mod registry;

pub(crate) use cpu::cpu_functions;
pub(crate) use functions::CpuFunctions;
pub use handle::Device;
