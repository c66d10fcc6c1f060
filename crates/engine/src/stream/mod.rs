//! Streaming: the executor that runs a context's graphs with weights that are not all in memory.
//!
//! - `slab`: slots and throwaway cells in memory, and their state
//! - `io`: reads in flight and what they are for
//! - `experts`: routed experts, layer by layer
//! - `chain`: a layer of a decode step, expert by expert as they land
//! - `step`: what one layer of one step needs
//! - `wishes`: the reads of a layer
//! - `give_back`: slots for something else
//! - `ahead`: guessing the next layer's experts
//! - `selection`: how a layer chooses from its router's scores
//! - `routes`: routing observed and forced
//! - `dense`: dense weights through a ring
//! - `executor`: walks a graph and joins the above
//! - `stats`: what was done

pub(crate) mod ahead;
mod chain;
pub(crate) mod dense;
pub(crate) mod executor;
pub(crate) mod experts;
mod give_back;
pub(crate) mod io;
pub(crate) mod routes;
pub(crate) mod selection;
pub(crate) mod slab;
mod stats;
mod step;
mod wishes;

pub use ahead::Prefetch;
pub use experts::Lookups;
pub use routes::{RouteLog, RouteSettings, trace_header};
pub use stats::{Held, SharedStats, StreamStats};
