//! A graph in execution: which nodes use streamed weights, how to run pieces of it, and how executors get to
//! see it.
//!
//! A node with a streamed weight runs on the inner backend unchanged: for the length of one call its weight
//! operand is replaced by a copy of the tensor that points at memory the engine supplies. These forms exist:
//! - [`GraphRun::run_bound`]: the whole `MUL_MAT_ID` over all slots of a pool, with ids remapped to slots;
//! - [`GraphRun::run_layer`]: the same for all nodes of an expert layer and what is behind them, in one call;
//! - [`GraphRun::run_rows`]: only the rows of some experts, gathered and scattered, so that experts can be
//!   computed as their bytes land; all rows of an expert go in one group, because ggml picks its kernel by
//!   their number;
//! - [`ExpertChain::run`]: all nodes of an expert layer for the experts whose bytes are there;
//! - [`GraphRun::run_elsewhere`]: a node with its whole weight elsewhere, and [`GraphRun::run_products`]:
//!   several of them and what is between and behind them, in one call;
//! - [`RowsOp::gather`]: some rows of a `GET_ROWS`, from memory that holds only rows that are needed.
//!
//! Rows and chains read and write the graph's own tensors, which only host memory allows: a device refuses
//! them. Sizes and ids are checked here, so that the engine needs no unsafe code.

mod asked;
pub(crate) mod attach;
pub(crate) mod between;
mod bind;
mod chain;
mod convert;
mod copies;
mod event;
mod graph;
mod groups;
mod ids;
mod memory;
mod operand;
mod question;
mod router;
mod rows;
mod run;
mod scratch;
mod slots;
mod standins;
mod table;
mod upload;
mod whole;

pub use attach::DeviceExecutor;
pub use chain::{ChainRow, ExpertChain};
pub use event::DeviceEvent;
pub use graph::{Graph, MatMul, StreamedKind, StreamedOp, WeightId};
pub use groups::ProductGroup;
pub use ids::MoeIds;
pub use rows::RowGroup;
pub use run::{Executor, GraphRun};
pub(crate) use run::{STATUS_ABORTED, STATUS_FAILED, STATUS_OK};
pub(crate) use scratch::Scratch;
pub use slots::SlotBinding;
pub use table::RowsOp;
pub use upload::Uploader;
