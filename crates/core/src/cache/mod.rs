//! Residency of routed experts: which expert is in which slot, and what may be evicted for what.
//!
//! Pure bookkeeping for one size class (experts of equal slot bytes); no bytes, reads or threads live here.
//! The engine asks ([`ExpertCache::acquire`]), does the reads it returns, and reports their end
//! ([`ExpertCache::complete`]). The simulator drives the very same code, so their hit rates agree exactly.
//!
//! * `key`: names (expert, slot, token clock)
//! * `slot_table`: the state machine of slots and its invariants
//! * `expert_cache`: lookups, and who is evicted for whom; two of them are two tiers
//! * `counters`: what is counted, and what a hit rate means
//! * `policy`: who is evicted, one policy a file
//! * `rows`: the same for rows of a table that streams

mod counters;
mod expert_cache;
mod key;
pub mod policy;
mod rows;
mod slot_table;

pub use crate::model::ExpertKey;
pub use counters::Counters;
pub use expert_cache::{Admission, Batch, Demand, ExpertCache, Grant};
pub use key::{DECODE_TOKENS, SlotId, TokenClock};
pub use policy::{EvictionPolicy, PolicyKind, Use};
pub use rows::{RowCache, RowGrant};
pub use slot_table::{Residency, SlotTable};
