//! Experts that a device computes.
//!
//! - `side`: its slots, a cache over those of the host, and what it may still be computing
//! - `work`: a layer in slots, in one call; a node over a frame
//! - `in_place`: a device that computes with the host's slots where they are, and what it may still be
//!   computing
//! - `in_place_work`: the same work there, without uploads
//! - `counts`: what it did

mod counts;
mod in_place;
mod in_place_work;
mod side;
mod work;

pub(crate) use counts::DeviceCounts;
pub(crate) use in_place::InPlace;
pub(super) use in_place_work::InPlaceWork;
pub(crate) use side::DeviceSide;
pub(super) use work::{DeviceWork, PartOp};
