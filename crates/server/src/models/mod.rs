//! Loaded models: which there are, which are loaded, and how they come and go.
//!
//! - `advice`: plans that nobody carries out
//! - [`backend`]: what the server needs of an engine
//! - [`catalog`]: what it needs of a store
//! - [`engine`]: the engine behind the traits, in this process
//! - `forecast`: what was predicted of a model
//! - [`manager`]: loads on demand, one at a time, within one memory budget
//! - [`order`]: what loading takes, as plain data
//! - [`loader`]: the thread that plans, makes room and loads
//! - [`store_catalog`]: the store as a catalogue
//! - [`table`]: what is loaded, without any waiting

mod advice;
pub mod backend;
pub mod catalog;
pub mod engine;
mod forecast;
mod loader;
mod manager;
mod order;
mod store_catalog;
mod table;

pub use advice::{PlanQuestion, advise_here};
pub use catalog::{Catalog, LookupError};
pub use engine::EngineBackend;
pub use forecast::{Band, Forecast, Speed};
pub use manager::{ManagerSettings, ModelManager, RunningModel};
pub use order::LoadOrder;
pub use store_catalog::{StoreCatalog, failure_of_store};
pub use table::Lease;
