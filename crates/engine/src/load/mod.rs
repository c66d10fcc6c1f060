//! From a plan to a model that is ready to decode.
//!
//! Order matters: headers, then what llama.cpp will need (measured without allocating), then the plan, and
//! only when the plan works is anything large allocated or read. Experts are never read at load.
//!
//! - [`settings`](LoadSettings): what is asked of a model, how to run it, hooks for tests
//! - `devices`: whose kernels compute with which weights
//! - `prepare`: from settings to a plan
//! - `draft`: a model that drafts for another
//! - `speculation`: which tokens are drafted
//! - `measure`: what llama.cpp will need, without allocating it
//! - `names`: which tensors llama.cpp is to leave to us
//! - `offload`: layers on a device, as llama.cpp is told of them
//! - `assemble`: the executor, with its memory and its readers
//! - `fill`: reading the weights that stay in memory
//! - `open`: loading what was planned

use hypura_core::plan;
use hypura_storage::{PAGE, ReaderConfig};

// Plans are made of pages and predicted for readers as `storage` has them.
const _: () = assert!(plan::PAGE == PAGE);
const _: () = assert!(plan::CHUNK_BYTES == ReaderConfig::DEFAULT.chunk_bytes as u64);
const _: () = assert!(plan::READER_DEPTH == ReaderConfig::DEFAULT.depth as f64);

mod assemble;
mod devices;
mod draft;
mod fill;
mod measure;
mod names;
mod offload;
mod open;
mod prepare;
mod settings;
mod speculation;

pub use devices::DeviceSettings;
pub(crate) use draft::DRAFT_UBATCH;
pub use draft::{PlanMeter, PlannedDraft};
pub use hypura_core::cache::PolicyKind;
pub use measure::NeedsMeter;
pub(crate) use measure::kv_type;
pub use names::Kernels;
pub use open::{LoadedModel, load, load_watched};
pub use prepare::{Planned, prepare, with_gpu};
pub use settings::{LoadSettings, ModelOptions, TestHooks, Tuning, default_threads};
pub use speculation::{Drafting, Speculation};
