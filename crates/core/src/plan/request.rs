//! What is asked of a plan.

use serde::{Deserialize, Serialize};

use super::homes::Homes;
use super::ledger::{Basis, Ledger, Purpose};
use super::pool::Pools;
use crate::gguf::GgmlType;
use crate::model::ModelShape;

/// Tokens of context when nobody asks for another and a longer one does not come cheap.
pub const SHORT_CONTEXT: u32 = 4096;

/// Tokens of a ubatch where there is no reason for more (llama.cpp's default).
pub const SMALL_UBATCH: u32 = 512;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// Resident when it fits, streaming otherwise.
    #[default]
    Auto,
    /// Everything in memory or an error.
    Resident,
    /// Streaming even when everything would fit.
    Stream,
}

/// Whose kernels compute routed experts, when the user says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpertHome {
    /// A device's where all of the model fits there, the host's otherwise.
    #[default]
    Auto,
    /// The host's.
    Host,
    /// A device's, with slots in its memory for those that do not fit, where all other weights do.
    Device,
}

/// How much of the streamable bytes stays in memory, when the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheSize {
    /// Bytes.
    Bytes(u64),
    /// Percent of the streamable bytes, 0 to 100.
    Percent(f64),
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// Blocks of 8-bit integers.
    Q8_0,
}

impl KvType {
    /// llama.cpp's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        GgmlType::from(self).name()
    }
}

impl From<KvType> for GgmlType {
    fn from(kv: KvType) -> Self {
        match kv {
            KvType::F16 => Self::F16,
            KvType::Q8_0 => Self::Q8_0,
        }
    }
}

/// The context that llama.cpp is to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextShape {
    /// Tokens of context of each sequence.
    pub context_tokens: u32,
    /// Most tokens in one graph.
    pub ubatch_tokens: u32,
    /// Sequences that run at once.
    pub sequences: u32,
    /// Further sequences that only remember.
    pub idle_sequences: u32,
    /// Element type of the KV cache.
    pub kv: KvType,
}

impl Default for ContextShape {
    /// What a user gets without flags.
    fn default() -> Self {
        Self {
            context_tokens: SHORT_CONTEXT,
            ubatch_tokens: SMALL_UBATCH,
            sequences: 1,
            idle_sequences: 0,
            kv: KvType::F16,
        }
    }
}

/// What a plan has to keep to.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraints {
    /// The context that is to be built.
    pub context: ContextShape,
    /// Memory that may be used.
    pub pools: Pools,
    /// What it must have room for besides weights.
    pub needs: Ledger,
    /// Where layers are at home.
    pub homes: Homes,
    /// Resident, streaming, or what fits.
    pub residency: Residency,
    /// Overrides the size of the cache.
    pub cache: Option<CacheSize>,
    /// Whether tables stream by the row: those whose memory is worth it where not everything fits, none, or
    /// all that can.
    pub tables: Residency,
}

impl Constraints {
    /// Everything on the host, which may use so much memory.
    #[must_use]
    pub fn on_host(shape: &ModelShape, context: ContextShape, budget_bytes: u64, needs: Ledger) -> Self {
        Self {
            context,
            pools: Pools::host(budget_bytes),
            needs,
            homes: Homes::on_host(shape),
            residency: Residency::Auto,
            cache: None,
            tables: Residency::Auto,
        }
    }

    /// The same with another budget for the host's memory.
    #[must_use]
    pub fn with_host_budget(&self, budget_bytes: u64) -> Self {
        let constraints = self.clone();
        Self { pools: constraints.pools.with_host_budget(budget_bytes), ..constraints }
    }
}

/// A projector, as far as a plan must know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaNeeds {
    /// Bytes of host memory: weights, compute buffers, and media on their way.
    pub bytes: u64,
    /// Tokens that have to go through in one graph, because they see each other; 0 where they do not.
    pub graph_tokens: u32,
}

impl MediaNeeds {
    /// As an entry of a ledger.
    pub(super) fn add_to(self, ledger: Ledger) -> Ledger {
        ledger.with_host(Purpose::Media, self.bytes, Basis::Estimated)
    }
}
