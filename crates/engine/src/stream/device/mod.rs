//! Experts that a device computes.
//!
//! - `side`: its slots, a cache over those of the host, and what it may still be computing
//! - `work`: a layer in slots, in one call; a node over a frame
//! - `counts`: what it did

mod counts;
mod side;
mod work;

pub(crate) use counts::DeviceCounts;
pub(crate) use side::DeviceSide;
pub(super) use work::{DeviceWork, PartOp};
