//! One layer of one step: which experts it needs, where each of them is, and what is still to read.

use hypura_core::cache::{Demand, ExpertKey, SlotId};
use hypura_core::plan::LayerLayout;
use hypura_ggml::MoeIds;
use std::collections::VecDeque;

use super::lookups::DECODE_TOKENS;

/// An expert that the step needs.
pub(super) struct ExpertDemand {
    pub expert: u32,
    /// Indices into the ids.
    pub pairs: Vec<u32>,
    pub place: Place,
    /// Its slot on the device, where the step computes with those.
    pub on_device: Option<DeviceSlot>,
}

/// A slot on a device, pinned.
#[derive(Clone, Copy)]
pub(super) struct DeviceSlot {
    pub slot: SlotId,
    /// Its expert has yet to be uploaded.
    pub loading: bool,
}

/// Where an expert is in the host's memory.
pub(super) enum Place {
    /// Nowhere: the device has it.
    OnDevice,
    Slot(SlotId),
    /// For each part of the layer, the cell once one was given.
    Cells(Vec<Option<usize>>),
}

impl ExpertDemand {
    /// Whether it has to be in the host's memory.
    pub fn is_wanted_on_host(&self) -> bool {
        !matches!(self.place, Place::OnDevice)
    }
}

/// One layer of one step.
pub(super) struct Step {
    pub layer: usize,
    pub ids: usize,
    pub wanted: Vec<ExpertDemand>,
    /// Pairs without an expert.
    pub none: Vec<u32>,
    /// For each pair its slot in the memory that is computed with, when every expert has one.
    pub slots: Option<Vec<i32>>,
    /// Slices to read into cells, in the order of use: (part, index into `wanted`).
    pub queue: VecDeque<(usize, usize)>,
    pub ops_left: usize,
    pub tokens: usize,
}

/// The streamed nodes of one layer, which share one ids operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerOps {
    /// How many nodes there are.
    pub count: usize,
    /// Every part of the layer once, in the order the nodes need them.
    pub parts: Vec<usize>,
    /// How many of them these nodes need: the others are of nodes in another graph.
    pub needed: usize,
}

/// Collects the pairs of each expert.
pub(super) fn group_by_expert(ids: &MoeIds, experts: u32) -> GroupedIds {
    let mut pairs: Vec<Vec<u32>> = vec![Vec::new(); experts as usize];
    let mut none = Vec::new();
    for (pair, expert) in (0u32..).zip(&ids.experts) {
        match usize::try_from(*expert).ok().and_then(|expert| pairs.get_mut(expert)) {
            Some(list) => list.push(pair),
            None => none.push(pair),
        }
    }
    let wanted = (0u32..)
        .zip(pairs)
        .filter(|(_, pairs)| !pairs.is_empty())
        .map(|(expert, pairs)| ExpertDemand {
            expert,
            pairs,
            place: Place::Cells(Vec::new()),
            on_device: None,
        })
        .collect();
    GroupedIds { wanted, none }
}

/// For each pair its slot in the memory that is computed with, when every expert of the step has one.
fn slots_of_pairs(ids: &MoeIds, wanted: &[ExpertDemand], on_device: bool) -> Option<Vec<i32>> {
    let mut slots = vec![-1; ids.experts.len()];
    for want in wanted {
        let slot = match (&want.place, want.on_device) {
            (_, Some(device)) => device.slot,
            (Place::Slot(slot), None) if !on_device => *slot,
            _ => return None,
        };
        for pair in &want.pairs {
            slots[*pair as usize] = i32::try_from(slot.0).ok()?;
        }
    }
    Some(slots)
}

/// The slices that go through cells, part by part as the nodes come, in file order within a part.
fn cell_queue(wanted: &mut [ExpertDemand], part_count: usize, parts: &[usize]) -> VecDeque<(usize, usize)> {
    let mut queue = VecDeque::new();
    for part in parts {
        for (index, want) in wanted.iter_mut().enumerate() {
            if let Place::Cells(cells) = &mut want.place {
                cells.resize(part_count, None);
                queue.push_back((*part, index));
            }
        }
    }
    queue
}

impl Step {
    /// The step of a layer whose experts have their places; `on_device`: it is not computed over the host's
    /// slots.
    pub fn new(
        layer: usize,
        layout: &LayerLayout,
        ids_operand: usize,
        ids: &MoeIds,
        wanted: GroupedIds,
        ops: &LayerOps,
        on_device: bool,
    ) -> Self {
        let GroupedIds { mut wanted, none } = wanted;
        // Kernels for many tokens sum in an order that depends on the ids: they get those of the model.
        let by_slot = !on_device || ids.tokens <= DECODE_TOKENS;
        let slots = if by_slot { slots_of_pairs(ids, &wanted, on_device) } else { None };
        let queue = cell_queue(&mut wanted, layout.parts.len(), &ops.parts[..ops.needed]);
        Self { layer, ids: ids_operand, wanted, none, slots, queue, ops_left: ops.count, tokens: ids.tokens }
    }
}

/// What the ids of a layer ask for.
pub(super) struct GroupedIds {
    /// Experts in ascending order, which is the order of the file.
    pub wanted: Vec<ExpertDemand>,
    /// Pairs without an expert.
    pub none: Vec<u32>,
}

impl GroupedIds {
    /// One demand for each expert that the host must have, in the same order.
    pub fn demands(&self, layer: u32) -> Vec<Demand> {
        self.demands_where(layer, ExpertDemand::is_wanted_on_host)
    }

    /// One demand for each of the others.
    pub fn demands_on_device(&self, layer: u32) -> Vec<Demand> {
        self.demands_where(layer, |want| !want.is_wanted_on_host())
    }

    fn demands_where(&self, layer: u32, wanted: impl Fn(&ExpertDemand) -> bool) -> Vec<Demand> {
        let demand = |want: &ExpertDemand| Demand {
            key: ExpertKey::new(layer, want.expert),
            tokens: u32::try_from(want.pairs.len()).unwrap_or(u32::MAX),
        };
        self.wanted.iter().filter(|want| wanted(want)).map(demand).collect()
    }
}
