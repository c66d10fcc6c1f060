//! Experts that a device computes.
//!
//! - `attached`: the device, in one of two ways
//! - `side`: its slots, a cache over those of the host, and what it may still be computing
//! - `link`: copies to it and back
//! - `demotion`: what it evicts comes back to the host
//! - `guessed`: slots that guesses are being uploaded to
//! - `work`: a layer in slots, in one call; a node over a frame; and `uploading`: what it takes there
//! - `in_place`: a device that computes with the host's slots where they are, and what it may still be
//!   computing
//! - `in_place_work`: the same work there, without uploads
//! - `counts`: what it did

mod attached;
mod counts;
mod demotion;
mod guessed;
mod in_place;
mod in_place_work;
mod link;
mod side;
mod uploading;
mod work;

pub(crate) use attached::ExpertDevice;
pub(crate) use counts::DeviceCounts;
pub(crate) use in_place::InPlace;
pub(crate) use side::DeviceSide;
pub(super) use work::PartOp;
