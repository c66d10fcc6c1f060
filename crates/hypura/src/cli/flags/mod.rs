//! Flags: parsed low, as they were typed, and resolved high, once, into what the engine and the server are
//! told.
//!
//! - `size`: sizes and rates as people write them
//! - `environment`: variables and facts of the machine that flags depend on
//! - `model`: which model
//! - `named`: the file that a name stands for
//! - `device`: the GPU that computes beside the CPU
//! - `memory`: what of it streams, and how
//! - `speculate`: what is drafted, and how much
//! - `load`: how it is loaded and computed
//! - `resolve`: all of that becomes [`hypura_engine::load::LoadSettings`], for every command alike
//! - `sampling`: how tokens are chosen
//! - `serve`: what a server takes, and Ollama's variables

mod device;
mod environment;
mod load;
mod memory;
mod model;
mod named;
mod resolve;
mod sampling;
mod serve;
mod size;
mod speculate;

pub use device::worker_addresses;
pub use environment::Env;
pub use memory::policy_about;
pub use model::ModelFlags;
pub use named::NamedModel;
pub(in crate::cli) use named::whole_parameter;
pub(in crate::cli) use resolve::beyond;
pub use sampling::SamplingFlags;
pub use serve::{ServeFlags, Serving};
pub use size::{MemorySize, decimal_rate, parse_bytes};
