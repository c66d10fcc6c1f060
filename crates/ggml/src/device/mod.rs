//! ggml's devices, decorated: an object of ours in front of each, which forwards everything but what concerns
//! weights in our buffers and the graphs that use them.
//!
//! - `registry`: one decorated device for each of ggml's, for the whole process
//! - `decorated`: the device's functions
//! - `backend`: those of a backend, and how its graphs reach an executor
//! - `cpu`: what only the CPU's device needs

mod backend;
mod cpu;
mod decorated;
mod registry;

pub(crate) use cpu::{CpuFunctions, cpu_functions};
pub use registry::Device;
pub(crate) use registry::is_cpu_decorated;
