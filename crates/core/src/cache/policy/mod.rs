//! Who is evicted. A policy is a pure decision: no clock, thread or randomness of its own, so that a replay
//! of the same calls gives the same victims.
//!
//! * `lfru`: decayed frequency, recency and layer distance; the default
//! * `lru`: least recently used; the baseline
//! * `s3fifo`: three queues; the best known of the queue family
//! * `belady`: the optimum with a known future; for the simulator
//! * `slot_list`: the queue that the simple ones share
//! * `eviction`: what all of them are told and asked

mod belady;
mod eviction;
mod lfru;
mod lru;
mod s3fifo;
mod slot_list;

pub use belady::Belady;
pub use eviction::{EvictionPolicy, Use};
pub use lfru::Lfru;
pub use lru::Lru;
pub use s3fifo::S3Fifo;

/// The policies that need no future, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PolicyKind {
    /// [`Lfru`].
    #[default]
    Lfru,
    /// [`Lru`].
    Lru,
    /// [`S3Fifo`].
    S3Fifo,
}

impl PolicyKind {
    /// All of them, the default first.
    pub const ALL: [PolicyKind; 3] = [PolicyKind::Lfru, PolicyKind::Lru, PolicyKind::S3Fifo];

    /// The name that [`EvictionPolicy::name`] of its policy gives.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Lfru => "lfru",
            PolicyKind::Lru => "lru",
            PolicyKind::S3Fifo => "s3fifo",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A fresh policy for slots `0..slots` of a model of `layers` layers.
    pub fn build(self, slots: u32, layers: u32) -> Box<dyn EvictionPolicy + Send> {
        match self {
            PolicyKind::Lfru => Box::new(Lfru::new(slots, layers)),
            PolicyKind::Lru => Box::new(Lru::new(slots)),
            PolicyKind::S3Fifo => Box::new(S3Fifo::new(slots)),
        }
    }
}
