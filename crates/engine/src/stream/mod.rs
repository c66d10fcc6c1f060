//! Streaming: the executor that runs a context's graphs with weights that are not all in memory.
//!
//! - `slots`: slots and throwaway cells in memory, and their state
//! - `io`: reads in flight and what they are for
//! - `experts`: routed experts, layer by layer, and `expert_slots`: where they are
//! - `landing`: experts on their way into memory, and `guesses`: what the disk reads when it has time
//! - `chain`: a layer of a decode step, expert by expert as they land
//! - `ready`: what of a layer can be computed now
//! - `device`: a layer on a device, and `on_host`: a node on the host
//! - `step`: what one layer of one step needs
//! - `layer_reads`: the reads of a layer, and `misses`: those that start when its ids are known
//! - `give_back`: slots for something else
//! - `prefetcher`: guessing the next layer's experts
//! - `selection`: how a layer chooses from its router's scores
//! - `routes`: routing observed and forced
//! - `dense`: dense weights through a ring, which `dense_reads` fills; `dense_in_place`: one that a device
//!   computes with where it is, and `dense_uploads`: one in its own memory
//! - `tables`: tables by the row, and `row_batch`: the reads of their rows
//! - `signals`: what ends waits, and what shows that something moves
//! - `segments`: what a graph is made of
//! - `executor`: goes through graphs and joins the above
//! - `open_step`: a decode in progress
//! - `handle`: the executor, shared by the context and the engine
//! - `lookups`, `stats`: what was done
//! - `expert_map`: which experts are in memory, for whoever watches
//! - `target`: what a read of experts is for

mod chain;
pub(crate) mod dense;
mod dense_in_place;
mod dense_reads;
mod dense_uploads;
pub(crate) mod device;
pub(crate) mod executor;
mod expert_map;
pub(crate) mod expert_slots;
pub(crate) mod experts;
mod give_back;
mod guesses;
pub(crate) mod handle;
pub(crate) mod io;
mod landing;
mod layer_reads;
pub(crate) mod lookups;
mod misses;
mod on_host;
mod open_step;
pub(crate) mod prefetcher;
mod ready;
pub(crate) mod routes;
pub(crate) mod row_batch;
mod segments;
pub(crate) mod selection;
pub(crate) mod signals;
pub(crate) mod slots;
mod stats;
mod step;
pub(crate) mod tables;
pub(crate) mod target;

pub use expert_map::{ExpertMap, ExpertRow, ExpertState};
pub use lookups::Lookups;
pub use prefetcher::Prefetch;
pub use routes::{RouteLog, RouteSettings, trace_header};
pub(crate) use stats::StatsPart;
pub use stats::{Held, SharedStats, StreamStats, Traffic};
