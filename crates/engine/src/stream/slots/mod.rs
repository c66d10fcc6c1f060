//! Memory for weights that come and go.
//!
//! - `pool`: slots of a size class: who is in them, which reads are out
//! - `cells`: throwaway memory for one slice each
//! - `host`: slots in the host's memory: a read lands where it is computed with
//! - `device`: slots in a device's memory, a cache over the host's that is filled by uploads

pub(crate) mod cells;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod pool;

pub(crate) use cells::ScratchRing;
pub(crate) use pool::{SlotBank, SlotPool, make_pools};

/// A byte pattern that decodes to NaN or huge values in every quantisation, so that stale bytes cannot go
/// unnoticed.
pub(crate) const POISON: u8 = 0xff;
