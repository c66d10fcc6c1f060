//! The plan: what is where.
//!
//! How a model runs follows from what there is in the plan: experts that stream bring their slots and cells,
//! dense weights that stream bring their ring, and neither can be there by half. Plain data: it can be sent
//! to another process. Invariant: the ledger is the whole truth about bytes, and no pool has more in it than
//! its budget.

use serde::{Deserialize, Serialize};

use super::dense_weights::bytes_of;
use super::homes::Homes;
use super::ledger::{Ledger, Purpose};
use super::pool::{PoolId, Pools};
use super::{ContextShape, ExpertLayout};
use crate::model::ModelShape;

/// How a model runs. Follows from the plan, not from a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Everything is in memory.
    FullResident,
    /// Tables of embeddings stream by the row; the rest is resident.
    TableStreaming,
    /// Routed experts stream through slots; the rest is resident.
    ExpertStreaming,
    /// Dense weights stream through a ring; the rest is resident.
    DenseStreaming,
    /// Routed experts stream through slots and weights that every token passes through a ring, because not
    /// even those fit.
    MixedStreaming,
}

impl Mode {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullResident => "full-resident",
            Self::TableStreaming => "table-streaming",
            Self::ExpertStreaming => "expert-streaming",
            Self::DenseStreaming => "dense-streaming",
            Self::MixedStreaming => "mixed-streaming",
        }
    }
}

/// Slots of one size class in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassSlots {
    /// In which memory.
    pub pool: PoolId,
    /// Index into [`ExpertLayout::classes`].
    pub class: usize,
    /// How many.
    pub slots: u32,
}

/// Routed experts that stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertPlan {
    /// By pool and class.
    pub slots: Vec<ClassSlots>,
    /// Throwaway cells for slices of experts that have no slot.
    pub cells: usize,
    /// Bytes of one of them.
    pub cell_bytes: usize,
    /// Bytes of the experts that stream, in the file.
    pub streamable_bytes: u64,
}

/// Weights that every token passes and that stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DensePlan {
    /// The weights that do: indices into [`ModelShape::tensors`], in order of use.
    pub weights: Vec<usize>,
    /// Cells of the ring.
    pub cells: usize,
    /// Bytes of one of them.
    pub cell_bytes: usize,
    /// Bytes of the weights that can stream, those that stay in memory included.
    pub streamable_bytes: u64,
    /// Those of `weights` that stay in the host's memory, and go to a device from there.
    #[serde(default)]
    pub kept: Vec<usize>,
    /// Cells in the memory of the device that computes; 0 where it is the host, or computes in its memory.
    #[serde(default)]
    pub device_cells: usize,
}

/// A table that streams by the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamedTable {
    /// Index into [`ModelShape::tensors`].
    pub weight: usize,
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Rows that a token reads.
    pub rows_per_token: u32,
    /// Rows that stay in memory after they were read.
    pub cache_rows: u32,
}

/// Tables that stream by the row, beside whatever else does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlan {
    /// Which.
    pub tables: Vec<StreamedTable>,
    /// Bytes of the pages that rows are read into, two halves that are filled in turn.
    pub staging_bytes: u64,
}

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The context that it has room for.
    pub context: ContextShape,
    /// Memory that may be used.
    pub pools: Pools,
    /// Smallest budget of the host's memory that works for this model, context and homes.
    pub floor_bytes: u64,
    /// All bytes, by pool and purpose.
    pub ledger: Ledger,
    /// Where layers are at home.
    pub homes: Homes,
    /// Routed experts that stream.
    pub experts: Option<ExpertPlan>,
    /// Weights of the dense weights that stream.
    pub dense: Option<DensePlan>,
    /// Tables that stream by the row.
    #[serde(default)]
    pub tables: Option<TablePlan>,
}

impl ExpertPlan {
    /// Slots of a class in the host's memory.
    #[must_use]
    pub fn class_slots(&self, class: usize) -> u32 {
        self.class_slots_in(PoolId::HOST, class)
    }

    /// Slots of a class in the memory of a pool.
    #[must_use]
    pub fn class_slots_in(&self, pool: PoolId, class: usize) -> u32 {
        let of_class = self.slots.iter().filter(|group| group.class == class && group.pool == pool);
        of_class.fold(0, |sum, group| sum.saturating_add(group.slots))
    }
}

impl Plan {
    /// How the model runs.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match (&self.experts, &self.dense) {
            (None, None) if self.tables.is_some() => Mode::TableStreaming,
            (None, None) => Mode::FullResident,
            (Some(_), None) => Mode::ExpertStreaming,
            (None, Some(_)) => Mode::DenseStreaming,
            (Some(_), Some(_)) => Mode::MixedStreaming,
        }
    }

    /// Whether nothing streams that every token needs whole: tables cost a token a row or a few.
    #[must_use]
    pub const fn is_resident_but_for_tables(&self) -> bool {
        self.experts.is_none() && self.dense.is_none()
    }

    /// Bytes that may be used of the host's memory.
    #[must_use]
    pub const fn budget_bytes(&self) -> u64 {
        self.pools.host_budget_bytes()
    }

    /// Everything the plan expects to use, in all pools.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.ledger.total_bytes()
    }

    /// Weights that stay in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.ledger.bytes_for(Purpose::Weights)
    }

    /// Slots of experts in the host's memory.
    #[must_use]
    pub fn slot_bytes(&self) -> u64 {
        self.ledger.bytes(PoolId::HOST, Purpose::Slots)
    }

    /// Slots of experts in the memory of devices.
    #[must_use]
    pub fn device_slot_bytes(&self) -> u64 {
        self.ledger.bytes_for(Purpose::Slots).saturating_sub(self.slot_bytes())
    }

    /// Cells of experts and of the ring, and rows of tables, in the host's memory.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        let bytes = |purpose| self.ledger.bytes(PoolId::HOST, purpose);
        bytes(Purpose::Cells).saturating_add(bytes(Purpose::Ring)).saturating_add(bytes(Purpose::Rows))
    }

    /// Slots of each class of a layout in the host's memory; none of them where experts do not stream.
    #[must_use]
    pub fn slots(&self, layout: &ExpertLayout) -> Vec<u32> {
        self.slots_in(PoolId::HOST, layout)
    }

    /// The same of any pool.
    #[must_use]
    pub fn slots_in(&self, pool: PoolId, layout: &ExpertLayout) -> Vec<u32> {
        let slots = |class| self.experts.as_ref().map_or(0, |experts| experts.class_slots_in(pool, class));
        (0..layout.classes.len()).map(slots).collect()
    }

    /// Weights that can stream in this mode, resident share included.
    #[must_use]
    pub fn streamable_bytes(&self) -> u64 {
        let experts = self.experts.as_ref().map_or(0, |experts| experts.streamable_bytes);
        experts.saturating_add(self.dense.as_ref().map_or(0, |dense| dense.streamable_bytes))
    }

    /// Share of the streamable bytes that has room in memory, 0 to 1. 1 when nothing streams.
    #[must_use]
    pub fn cached_fraction(&self, shape: &ModelShape, layout: &ExpertLayout) -> f64 {
        let dense = self.dense.as_ref().map(|dense| dense.streamable_bytes);
        let streamed = self.streamed_dense_bytes(shape);
        match (&self.experts, dense) {
            (None, None) => 1.0,
            (Some(_), None) => self.expert_fraction(layout),
            (None, Some(dense)) => 1.0 - ratio(streamed, dense),
            (Some(_), Some(dense)) => {
                let held = dense.saturating_sub(streamed).saturating_add(self.slot_bytes());
                ratio(held, dense.saturating_add(layout.total_bytes()))
            }
        }
    }

    /// Share of the experts that has room in slots, those of devices included, 0 to 1.
    #[must_use]
    pub fn expert_fraction(&self, layout: &ExpertLayout) -> f64 {
        let slots = self.ledger.bytes_for(Purpose::Slots);
        ratio(slots.min(layout.total_bytes()), layout.total_bytes())
    }

    /// The dense weights that stream: indices into [`ModelShape::tensors`], in order of use.
    #[must_use]
    pub fn streamed_dense(&self) -> &[usize] {
        self.dense.as_ref().map_or(&[], |dense| &dense.weights)
    }

    /// The tables that stream.
    #[must_use]
    pub fn streamed_tables(&self) -> &[StreamedTable] {
        self.tables.as_ref().map_or(&[], |tables| &tables.tables)
    }

    /// Whether a weight, by its index in [`ModelShape::tensors`], streams whole or by the row.
    #[must_use]
    pub fn streams_weight(&self, index: usize) -> bool {
        self.streamed_dense().contains(&index)
            || self.streamed_tables().iter().any(|table| table.weight == index)
    }

    /// Bytes of the tables that stream.
    #[must_use]
    pub fn streamed_table_bytes(&self, shape: &ModelShape) -> u64 {
        let bytes = self.streamed_tables().iter().map(|table| bytes_of(shape, table.weight));
        bytes.fold(0, u64::saturating_add)
    }

    /// Those of them that stay in the host's memory, and go to a device from there.
    #[must_use]
    pub fn kept_dense(&self) -> &[usize] {
        self.dense.as_ref().map_or(&[], |dense| &dense.kept)
    }

    /// Bytes of the dense weights that every pass reads from the disk.
    #[must_use]
    pub fn streamed_dense_bytes(&self, shape: &ModelShape) -> u64 {
        let sum = |weights: &[usize]| {
            weights.iter().map(|index| bytes_of(shape, *index)).fold(0, u64::saturating_add)
        };
        sum(self.streamed_dense()).saturating_sub(sum(self.kept_dense()))
    }

    /// Bytes of dense weights that every pass uploads to a device's own memory.
    #[must_use]
    pub fn uploaded_dense_bytes(&self, shape: &ModelShape) -> u64 {
        let Some(dense) = self.dense.as_ref().filter(|dense| dense.device_cells > 0) else { return 0 };
        dense.weights.iter().map(|index| bytes_of(shape, *index)).fold(0, u64::saturating_add)
    }
}

/// Bytes of so many of `bytes` each.
pub(super) fn times(count: usize, bytes: usize) -> u64 {
    (count as u64).saturating_mul(bytes as u64)
}

/// `fraction` of `bytes`, rounded down.
pub(super) fn share(bytes: u64, fraction: f64) -> u64 {
    (bytes as f64 * fraction.clamp(0.0, 1.0)) as u64
}

pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
