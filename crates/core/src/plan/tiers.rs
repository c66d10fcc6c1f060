//! Who lives where, for people: bytes of each role and of each layer on devices, in memory and on the disk.
//!
//! Weights that stream are on the disk; the share of them that has room in memory is counted as cached,
//! because which of them is there changes from token to token.

use super::{ExpertLayout, Plan, PoolId};
use crate::model::{ModelShape, ModelTensor, TensorRole};
use std::collections::{BTreeMap, BTreeSet};

/// Where weights live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Memory of a device.
    Device,
    /// Memory of the host.
    Host,
    /// The disk.
    Storage,
}

impl Tier {
    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "VRAM",
            Self::Host => "RAM",
            Self::Storage => "NVMe",
        }
    }
}

/// Weights that belong together for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleGroup {
    /// Attention, state space and everything else of a layer that is no network of its own.
    Attention,
    /// Feed-forward networks of layers without routing.
    FeedForward,
    /// Routers.
    Router,
    /// Experts that every token passes.
    SharedExperts,
    /// Experts that a router chooses.
    RoutedExperts,
    /// Embedding tables.
    Embedding,
    /// The projection to the vocabulary.
    Output,
    /// Norms and the rest.
    Other,
}

/// Bytes of weights by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierBytes {
    /// In memory of devices for good.
    pub device_bytes: u64,
    /// In the host's memory for good.
    pub resident_bytes: u64,
    /// On the disk, read when needed.
    pub streamed_bytes: u64,
    /// Of the streamed ones, as many as there is room for in memory.
    pub cached_bytes: u64,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierTable {
    /// By role, only those that the model has.
    pub roles: BTreeMap<RoleGroup, TierBytes>,
    /// By layer.
    pub layers: Vec<TierBytes>,
    /// What belongs to no layer.
    pub outside: TierBytes,
}

impl RoleGroup {
    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::FeedForward => "feed-forward",
            Self::Router => "router",
            Self::SharedExperts => "shared experts",
            Self::RoutedExperts => "routed experts",
            Self::Embedding => "embedding",
            Self::Output => "output",
            Self::Other => "norms and other",
        }
    }

    const fn of(role: TensorRole) -> Self {
        match role {
            TensorRole::Dense => Self::Attention,
            TensorRole::DenseFfn(_) => Self::FeedForward,
            TensorRole::Router => Self::Router,
            TensorRole::SharedExpert => Self::SharedExperts,
            TensorRole::RoutedExpert(_)
            | TensorRole::RoutedExpertBias(_)
            | TensorRole::RoutedExpertScale(_) => Self::RoutedExperts,
            TensorRole::Embedding => Self::Embedding,
            TensorRole::Output => Self::Output,
            TensorRole::Norm | TensorRole::Other => Self::Other,
        }
    }
}

impl TierBytes {
    /// Everything.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.device_bytes.saturating_add(self.resident_bytes).saturating_add(self.streamed_bytes)
    }

    fn add(&mut self, other: Self) {
        self.device_bytes = self.device_bytes.saturating_add(other.device_bytes);
        self.resident_bytes = self.resident_bytes.saturating_add(other.resident_bytes);
        self.streamed_bytes = self.streamed_bytes.saturating_add(other.streamed_bytes);
        self.cached_bytes = self.cached_bytes.saturating_add(other.cached_bytes);
    }
}

impl TierTable {
    /// The table of a plan.
    #[must_use]
    pub fn new(shape: &ModelShape, layout: &ExpertLayout, plan: &Plan) -> Self {
        let tables = plan.streamed_tables().iter().map(|table| table.weight);
        let mut streamed: BTreeSet<usize> = plan.streamed_dense().iter().copied().chain(tables).collect();
        let kept: BTreeSet<usize> = plan.kept_dense().iter().copied().collect();
        streamed.retain(|index| !kept.contains(index));
        let fractions = class_fractions(layout, plan);
        let mut table = Self {
            roles: BTreeMap::new(),
            layers: vec![TierBytes::default(); shape.layers as usize],
            outside: TierBytes::default(),
        };
        for (index, tensor) in shape.tensors.iter().enumerate() {
            let bytes = if kept.contains(&index) {
                TierBytes { resident_bytes: tensor.info.bytes, ..TierBytes::default() }
            } else {
                place(layout, plan, &fractions, tensor, streamed.contains(&index))
            };
            table.roles.entry(RoleGroup::of(tensor.role)).or_default().add(bytes);
            let layer = tensor.layer.and_then(|layer| table.layers.get_mut(layer as usize));
            layer.unwrap_or(&mut table.outside).add(bytes);
        }
        table
    }

    /// Everything.
    #[must_use]
    pub fn total(&self) -> TierBytes {
        let mut total = TierBytes::default();
        self.roles.values().for_each(|bytes| total.add(*bytes));
        total
    }
}

/// For each size class, the share of its experts that has a slot.
fn class_fractions(layout: &ExpertLayout, plan: &Plan) -> Vec<f64> {
    let of_class = |(class, slots): (&super::ClassLayout, u32)| {
        if class.experts == 0 { 0.0 } else { f64::from(slots) / class.experts as f64 }
    };
    layout.classes.iter().zip(plan.slots(layout)).map(of_class).collect()
}

fn place(
    layout: &ExpertLayout,
    plan: &Plan,
    fractions: &[f64],
    tensor: &ModelTensor,
    streams: bool,
) -> TierBytes {
    let bytes = tensor.info.bytes;
    if plan.homes.of(tensor) != PoolId::HOST && !streams {
        return TierBytes { device_bytes: bytes, ..TierBytes::default() };
    }
    let is_expert = plan.experts.is_some() && matches!(tensor.role, TensorRole::RoutedExpert(_));
    if is_expert {
        let class = tensor
            .layer
            .and_then(|layer| layout.layers.iter().find(|found| found.layer == layer))
            .map(|layer| layer.class);
        let fraction = class.and_then(|class| fractions.get(class)).copied().unwrap_or(0.0);
        let cached_bytes = (bytes as f64 * fraction) as u64;
        TierBytes { streamed_bytes: bytes, cached_bytes, ..TierBytes::default() }
    } else if streams {
        TierBytes { streamed_bytes: bytes, ..TierBytes::default() }
    } else {
        TierBytes { resident_bytes: bytes, ..TierBytes::default() }
    }
}
