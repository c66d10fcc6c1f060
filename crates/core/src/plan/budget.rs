//! What is resident, what streams, and whether it fits.
//!
//! One budget bounds everything: weights, slabs, KV cache, compute buffers, read buffers and the process itself. What
//! llama.cpp needs (KV and compute) is measured by the caller and comes in as [`Fixed`]; the rest is arithmetic over the
//! model's shape. Nothing here allocates.

use super::{ExpertLayout, PAGE};
use crate::model::{ModelShape, Streaming};

/// How a model runs. Follows from the plan, not from a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is in memory.
    FullResident,
    /// Routed experts stream through slots; the rest is resident.
    ExpertStreaming,
    /// Dense weights stream through a ring; the rest is resident.
    DenseStreaming,
}

impl Mode {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullResident => "full-resident",
            Self::ExpertStreaming => "expert-streaming",
            Self::DenseStreaming => "dense-streaming",
        }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Resident when it fits, streaming otherwise.
    #[default]
    Auto,
    /// Everything in memory or an error.
    Resident,
    /// Streaming even when everything would fit.
    Stream,
}

/// How much of the streamable bytes stays in memory, when the user says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheSize {
    /// Bytes.
    Bytes(u64),
    /// Percent of the streamable bytes, 0 to 100.
    Percent(f64),
}

/// What the plan must leave room for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// KV cache and recurrent state.
    pub kv_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
    /// The process itself: code, vocabulary, graphs, stacks.
    pub process_bytes: u64,
}

impl Fixed {
    fn total(&self) -> u64 {
        self.kv_bytes + self.compute_bytes + self.process_bytes
    }
}

/// All inputs of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes that may be used in all.
    pub budget_bytes: u64,
    /// What cannot be avoided.
    pub fixed: Fixed,
    /// What the user asked for.
    pub choice: Choice,
    /// Overrides the size of the cache.
    pub cache: Option<CacheSize>,
}

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the model runs.
    pub mode: Mode,
    /// Bytes that may be used in all.
    pub budget_bytes: u64,
    /// Smallest budget that works for this model and context.
    pub floor_bytes: u64,
    /// Weights that stay in memory.
    pub resident_bytes: u64,
    /// Weights that can stream in this mode, resident share included.
    pub streamable_bytes: u64,
    /// What cannot be avoided.
    pub fixed: Fixed,
    /// Slots of each size class of experts.
    pub slots: Vec<u32>,
    /// Bytes of all slots.
    pub slot_bytes: u64,
    /// Throwaway cells.
    pub cells: usize,
    /// Bytes of one cell.
    pub cell_bytes: usize,
    /// Dense weights that stream: indices into [`ModelShape::tensors`], in order of use.
    pub streamed_dense: Vec<usize>,
}

impl Plan {
    /// Everything the plan expects to use.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.resident_bytes + self.fixed.total() + self.slot_bytes + (self.cells * self.cell_bytes) as u64
    }

    /// Share of the streamable bytes that has room in memory, 0 to 1. 1 when nothing streams.
    #[must_use]
    pub fn cached_fraction(&self, shape: &ModelShape, layout: &ExpertLayout) -> f64 {
        match self.mode {
            Mode::FullResident => 1.0,
            Mode::ExpertStreaming => ratio(self.slot_bytes, layout.total_bytes()),
            Mode::DenseStreaming => {
                let streamed: u64 = self.streamed_dense.iter().map(|index| tensor_bytes(shape, *index)).sum();
                1.0 - ratio(streamed, self.streamable_bytes)
            }
        }
    }
}

/// Why a plan cannot work, and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The budget is below what the model needs at least.
    #[error(
        "this needs at least {floor} of memory ({detail}) and may use {budget}: give more (--memory), \
         a shorter context (--ctx) or a smaller quantisation",
        floor = human_bytes(*floor_bytes),
        budget = human_bytes(*budget_bytes)
    )]
    BelowFloor {
        /// The smallest budget that works.
        floor_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// What the floor is made of.
        detail: String,
    },
    /// `--residency resident` does not fit.
    #[error(
        "--residency resident needs {needed} and may use {budget}: leave it out, and the model streams",
        needed = human_bytes(*needed_bytes),
        budget = human_bytes(*budget_bytes)
    )]
    ResidentTooLarge {
        /// Bytes of everything.
        needed_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// `--residency stream` on a model without anything to stream.
    #[error("this model has no weights that can be streamed: use --residency auto")]
    NothingToStream,
}

/// Cells of the expert ring: one being computed, one landed, the rest at the disk.
const EXPERT_CELLS: usize = 16;
/// Fewest cells that keep the disk busy while one is computed.
const FEWEST_CELLS: usize = 2;
/// Cells of the dense ring, whose weights are large: one being computed, one landed, one at the disk.
const DENSE_CELLS: usize = 3;
/// The expert ring may take this share of what is left for slots.
const CELL_SHARE: u64 = 8;

/// Decides. `layout` belongs to the same shape.
///
/// # Errors
/// [`PlanError`] when the budget is below the floor, with the floor.
pub fn plan(shape: &ModelShape, layout: &ExpertLayout, request: &Request) -> Result<Plan, PlanError> {
    let total = shape.total_bytes();
    let needed = total + request.fixed.total();
    let full = Plan {
        mode: Mode::FullResident,
        budget_bytes: request.budget_bytes,
        floor_bytes: needed,
        resident_bytes: total,
        streamable_bytes: 0,
        fixed: request.fixed,
        slots: vec![0; layout.classes.len()],
        slot_bytes: 0,
        cells: 0,
        cell_bytes: 0,
        streamed_dense: Vec::new(),
    };
    let fits = needed <= request.budget_bytes;
    match request.choice {
        Choice::Resident if fits => return Ok(full),
        Choice::Resident => {
            return Err(PlanError::ResidentTooLarge {
                needed_bytes: needed,
                budget_bytes: request.budget_bytes,
            });
        }
        Choice::Auto if fits && request.cache.is_none() => return Ok(full),
        Choice::Auto | Choice::Stream => {}
    }
    if layout.layers.is_empty() { dense(shape, request, full) } else { experts(shape, layout, request, full) }
}

fn experts(
    shape: &ModelShape,
    layout: &ExpertLayout,
    request: &Request,
    full: Plan,
) -> Result<Plan, PlanError> {
    let resident = shape.total_bytes() - shape.routed_bytes();
    let least_cells = FEWEST_CELLS * layout.cell_bytes;
    let floor = resident + request.fixed.total() + least_cells as u64;
    let asked = asked_bytes(request.cache, layout.total_bytes());
    let Some(left) = request.budget_bytes.checked_sub(floor.saturating_add(asked)) else {
        return Err(below_floor(floor.saturating_add(asked), resident, request));
    };
    // Cells beyond the least come out of the room for slots, but never more than a share of it. The share is set aside
    // also where it is no whole number of cells: otherwise a larger budget could, by one more cell, leave fewer slots.
    let most_spare = ((EXPERT_CELLS - FEWEST_CELLS) * layout.cell_bytes) as u64;
    let spare = ((asked + left) / CELL_SHARE).min(most_spare).min(left);
    let wanted = if request.cache.is_some() { asked } else { left - spare };
    let cells = FEWEST_CELLS + usize::try_from(spare).unwrap_or(usize::MAX) / layout.cell_bytes.max(1);
    let slots = split_slots(layout, wanted);
    let slot_bytes = layout
        .classes
        .iter()
        .zip(&slots)
        .map(|(class, slots)| u64::from(*slots) * class.slot_bytes as u64)
        .sum();
    Ok(Plan {
        mode: Mode::ExpertStreaming,
        floor_bytes: floor,
        resident_bytes: resident,
        streamable_bytes: shape.routed_bytes(),
        slots,
        slot_bytes,
        cells,
        cell_bytes: layout.cell_bytes,
        ..full
    })
}

/// The size of the cache that the user asked for, of `streamable` bytes; 0 when nobody asked.
fn asked_bytes(cache: Option<CacheSize>, streamable: u64) -> u64 {
    match cache {
        None => 0,
        Some(CacheSize::Bytes(bytes)) => bytes,
        Some(CacheSize::Percent(percent)) => share(streamable, percent / 100.0),
    }
}

/// Divides room among the size classes in proportion to their bytes.
fn split_slots(layout: &ExpertLayout, room_bytes: u64) -> Vec<u32> {
    let total = layout.total_bytes();
    layout
        .classes
        .iter()
        .map(|class| {
            let class_bytes = class.experts * class.slot_bytes as u64;
            let part = share(room_bytes, ratio(class_bytes, total));
            let slots = (part / (class.slot_bytes as u64).max(1)).min(class.experts);
            u32::try_from(slots).unwrap_or(u32::MAX)
        })
        .collect()
}

fn dense(shape: &ModelShape, request: &Request, full: Plan) -> Result<Plan, PlanError> {
    let streamable: Vec<usize> = (0..shape.tensors.len())
        .filter(|index| shape.tensors[*index].streaming == Streaming::Whole)
        .collect();
    if streamable.is_empty() {
        return Err(match request.choice {
            Choice::Stream => PlanError::NothingToStream,
            _ => below_floor(full.floor_bytes, full.resident_bytes, request),
        });
    }
    let bytes: u64 = streamable.iter().map(|index| tensor_bytes(shape, *index)).sum();
    let cell_bytes = streamable.iter().map(|index| cell_room(tensor_bytes(shape, *index))).max().unwrap_or(0);
    let base = shape.total_bytes() - bytes + request.fixed.total();
    let ring = (DENSE_CELLS * cell_bytes) as u64;
    let floor = base + ring;
    let asked = asked_bytes(request.cache, bytes);
    let Some(left) = request.budget_bytes.checked_sub(floor.saturating_add(asked)) else {
        return Err(below_floor(floor.saturating_add(asked), shape.total_bytes() - bytes, request));
    };
    let keep = if request.cache.is_some() { asked } else { left };
    let streamed_dense = spread(shape, &streamable, bytes.saturating_sub(keep));
    let streamed: u64 = streamed_dense.iter().map(|index| tensor_bytes(shape, *index)).sum();
    Ok(Plan {
        mode: Mode::DenseStreaming,
        floor_bytes: floor,
        resident_bytes: shape.total_bytes() - streamed,
        streamable_bytes: bytes,
        cells: DENSE_CELLS,
        cell_bytes,
        streamed_dense,
        ..full
    })
}

/// Chooses weights of at least `stream_bytes` together, feed-forward ones first, evenly over the layers, so that the
/// disk has the same work in each of them.
fn spread(shape: &ModelShape, streamable: &[usize], stream_bytes: u64) -> Vec<usize> {
    use crate::model::TensorRole;
    let is_ffn = |index: &&usize| matches!(shape.tensors[**index].role, TensorRole::DenseFfn(_));
    let ffn: Vec<usize> = streamable.iter().filter(is_ffn).copied().collect();
    let rest: Vec<usize> = streamable.iter().filter(|index| !is_ffn(index)).copied().collect();
    let ffn_bytes: u64 = ffn.iter().map(|index| tensor_bytes(shape, *index)).sum();
    let mut chosen = evenly(shape, &ffn, stream_bytes.min(ffn_bytes));
    chosen.extend(evenly(shape, &rest, stream_bytes.saturating_sub(ffn_bytes)));
    chosen.sort_unstable();
    chosen
}

/// Takes weights of at least `stream_bytes` together, spread over the list, and such that a larger `stream_bytes` takes
/// the same ones and more: so more memory never streams more.
///
/// The order of taking is that of the multiples of the golden ratio, modulo 1: any prefix of it is spread over the list
/// with at most three different gaps (V. T. Sós, "On the distribution mod 1 of the sequence nα", 1958).
fn evenly(shape: &ModelShape, weights: &[usize], stream_bytes: u64) -> Vec<usize> {
    /// The golden ratio's fraction in units of 2⁻⁶⁴.
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut order: Vec<(u64, usize)> =
        (1u64..).zip(weights).map(|(number, index)| (number.wrapping_mul(GOLDEN), *index)).collect();
    order.sort_unstable();
    let mut taken = 0;
    let mut chosen = Vec::new();
    for (_, index) in order {
        if taken >= stream_bytes {
            break;
        }
        taken += tensor_bytes(shape, index);
        chosen.push(index);
    }
    chosen
}

fn below_floor(floor_bytes: u64, resident: u64, request: &Request) -> PlanError {
    let Fixed { kv_bytes, compute_bytes, process_bytes } = request.fixed;
    let detail = format!(
        "resident weights {}, context {}, compute {}, program and buffers {}",
        human_bytes(resident),
        human_bytes(kv_bytes),
        human_bytes(compute_bytes),
        human_bytes(floor_bytes.saturating_sub(resident + kv_bytes + compute_bytes).max(process_bytes)),
    );
    PlanError::BelowFloor { floor_bytes, budget_bytes: request.budget_bytes, detail }
}

fn tensor_bytes(shape: &ModelShape, index: usize) -> u64 {
    shape.tensors[index].info.bytes
}

/// Room for a weight that begins anywhere in a page.
fn cell_room(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(PAGE - 1).next_multiple_of(PAGE)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `fraction` of `bytes`, rounded down.
fn share(bytes: u64, fraction: f64) -> u64 {
    (bytes as f64 * fraction.clamp(0.0, 1.0)) as u64
}

/// Bytes for people: `6.42 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}
