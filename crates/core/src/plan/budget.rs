//! What is resident, what streams, and whether it fits.
//!
//! One budget bounds everything: weights, slabs, KV cache, compute buffers, read buffers and the process itself. What
//! llama.cpp needs (KV and compute) is measured by the caller and comes in as [`Fixed`]; the rest is arithmetic over the
//! model's shape. Nothing here allocates.

use super::ExpertLayout;
use super::trunk::{Trunk, bytes_of};
use crate::model::ModelShape;

/// How a model runs. Follows from the plan, not from a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is in memory.
    FullResident,
    /// Routed experts stream through slots; the rest is resident.
    ExpertStreaming,
    /// Dense weights stream through a ring; the rest is resident.
    DenseStreaming,
    /// Routed experts stream through slots and weights that every token passes through a ring, because not even those
    /// fit.
    MixedStreaming,
}

impl Mode {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullResident => "full-resident",
            Self::ExpertStreaming => "expert-streaming",
            Self::DenseStreaming => "dense-streaming",
            Self::MixedStreaming => "mixed-streaming",
        }
    }

    /// Whether routed experts stream through slots.
    #[must_use]
    pub const fn streams_experts(self) -> bool {
        matches!(self, Self::ExpertStreaming | Self::MixedStreaming)
    }

    /// Whether weights that every token passes stream through the ring.
    #[must_use]
    pub const fn streams_dense(self) -> bool {
        matches!(self, Self::DenseStreaming | Self::MixedStreaming)
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
    /// A projector: its weights, its compute buffers, and the pictures and sounds that are on their way through it.
    pub media_bytes: u64,
}

impl Fixed {
    fn total(&self) -> u64 {
        self.kv_bytes + self.compute_bytes + self.process_bytes + self.media_bytes
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
    /// Throwaway cells for slices of experts that have no slot.
    pub cells: usize,
    /// Bytes of one of them.
    pub cell_bytes: usize,
    /// Cells of the ring that dense weights stream through.
    pub ring_cells: usize,
    /// Bytes of one of them.
    pub ring_cell_bytes: usize,
    /// Dense weights that stream: indices into [`ModelShape::tensors`], in order of use.
    pub streamed_dense: Vec<usize>,
}

impl Plan {
    /// Everything the plan expects to use.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.resident_bytes + self.fixed.total() + self.slot_bytes + self.buffer_bytes()
    }

    /// Cells of both kinds.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        (self.cells * self.cell_bytes + self.ring_cells * self.ring_cell_bytes) as u64
    }

    /// Share of the streamable bytes that has room in memory, 0 to 1. 1 when nothing streams.
    #[must_use]
    pub fn cached_fraction(&self, shape: &ModelShape, layout: &ExpertLayout) -> f64 {
        match self.mode {
            Mode::FullResident => 1.0,
            Mode::ExpertStreaming => self.expert_fraction(layout),
            Mode::DenseStreaming => 1.0 - ratio(self.streamed_dense_bytes(shape), self.streamable_bytes),
            Mode::MixedStreaming => {
                let trunk = self.streamable_bytes.saturating_sub(shape.routed_bytes());
                let held = trunk.saturating_sub(self.streamed_dense_bytes(shape)) + self.slot_bytes;
                ratio(held, trunk + layout.total_bytes())
            }
        }
    }

    /// Share of the experts that has room in slots, 0 to 1.
    #[must_use]
    pub fn expert_fraction(&self, layout: &ExpertLayout) -> f64 {
        ratio(self.slot_bytes, layout.total_bytes())
    }

    /// Bytes of the dense weights that stream: what every pass reads of them.
    #[must_use]
    pub fn streamed_dense_bytes(&self, shape: &ModelShape) -> u64 {
        self.streamed_dense.iter().map(|index| bytes_of(shape, *index)).sum()
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

impl PlanError {
    /// What to say when a KV cache in q8_0 makes the plan work that this error stood in the way of with f16.
    #[must_use]
    pub fn shrunk_kv_note(&self) -> String {
        let (needed_bytes, budget_bytes) = match self {
            Self::BelowFloor { floor_bytes, budget_bytes, .. } => (*floor_bytes, *budget_bytes),
            Self::ResidentTooLarge { needed_bytes, budget_bytes } => (*needed_bytes, *budget_bytes),
            Self::NothingToStream => (0, 0),
        };
        format!(
            "KV cache in q8_0, because in f16 this needs {} of memory and may use {} (--kv f16 forces it)",
            human_bytes(needed_bytes),
            human_bytes(budget_bytes)
        )
    }
}

/// Cells of the expert ring: one being computed, one landed, the rest at the disk.
const EXPERT_CELLS: usize = 16;
/// Fewest cells that keep the disk busy while one is computed.
const FEWEST_CELLS: usize = 2;
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
        ring_cells: 0,
        ring_cell_bytes: 0,
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

/// A model with routed experts. What every token passes is worth most in memory: a byte of it saves a byte of reading
/// for each token, a byte of slots at most as much and mostly less. So slots get what is left when all of it is resident
/// (beyond what the user asks for them); where not even that fits, it streams too, as much of it as must.
fn experts(
    shape: &ModelShape,
    layout: &ExpertLayout,
    request: &Request,
    full: Plan,
) -> Result<Plan, PlanError> {
    let resident = shape.total_bytes() - shape.routed_bytes();
    let least_cells = (FEWEST_CELLS * layout.cell_bytes) as u64;
    let always = request.fixed.total() + least_cells;
    let trunk = Trunk::of(shape);
    let least_resident = resident - trunk.bytes;
    let floor = always + resident.min(least_resident + trunk.ring_bytes());
    let asked = asked_bytes(request.cache, layout.total_bytes());
    let full = Plan { floor_bytes: floor, cell_bytes: layout.cell_bytes, ..full };
    let whole = always.saturating_add(resident).saturating_add(asked);
    if let Some(left) = request.budget_bytes.checked_sub(whole) {
        return Ok(slotted(shape, layout, request, Plan { resident_bytes: resident, ..full }, left));
    }
    let part = floor.saturating_add(asked);
    let left = request.budget_bytes.checked_sub(part);
    match left.filter(|_| floor < always + resident) {
        Some(left) => {
            Ok(mixed(shape, layout, &trunk, Plan { resident_bytes: resident, ..full }, (asked, left)))
        }
        None => Err(below_floor(part, least_resident.min(resident), request)),
    }
}

/// Everything but experts is resident; `left` bytes are for slots and cells, beyond the slots that were asked for.
fn slotted(shape: &ModelShape, layout: &ExpertLayout, request: &Request, full: Plan, left: u64) -> Plan {
    let asked = asked_bytes(request.cache, layout.total_bytes());
    // Cells beyond the least come out of the room for slots, but never more than a share of it. The share is set aside
    // also where it is no whole number of cells: otherwise a larger budget could, by one more cell, leave fewer slots.
    let spare = ((asked + left) / CELL_SHARE).min(most_spare(layout)).min(left);
    let wanted = if request.cache.is_some() { asked } else { left - spare };
    let (slots, slot_bytes) = slots_in(layout, wanted);
    Plan {
        mode: Mode::ExpertStreaming,
        streamable_bytes: shape.routed_bytes(),
        slots,
        slot_bytes,
        cells: cells_in(layout, spare),
        ..full
    }
}

/// The trunk streams in part: slots get what was asked for, the cells of experts what keeps the disk busy, and the trunk
/// the rest.
fn mixed(
    shape: &ModelShape,
    layout: &ExpertLayout,
    trunk: &Trunk,
    full: Plan,
    (asked, left): (u64, u64),
) -> Plan {
    let spare = (left / CELL_SHARE).min(most_spare(layout));
    let (slots, slot_bytes) = slots_in(layout, asked);
    let streamed_dense = trunk.stream(shape, trunk.bytes.saturating_sub(left - spare));
    let streamed: u64 = streamed_dense.iter().map(|index| bytes_of(shape, *index)).sum();
    Plan {
        mode: Mode::MixedStreaming,
        resident_bytes: full.resident_bytes - streamed,
        streamable_bytes: shape.routed_bytes() + trunk.bytes,
        slots,
        slot_bytes,
        cells: cells_in(layout, spare),
        ring_cells: Trunk::CELLS,
        ring_cell_bytes: trunk.cell_bytes,
        streamed_dense,
        ..full
    }
}

/// Bytes that cells of experts take at most, beyond the least.
fn most_spare(layout: &ExpertLayout) -> u64 {
    ((EXPERT_CELLS - FEWEST_CELLS) * layout.cell_bytes) as u64
}

/// The cells that `spare` bytes beyond the least allow.
fn cells_in(layout: &ExpertLayout, spare: u64) -> usize {
    FEWEST_CELLS + usize::try_from(spare).unwrap_or(usize::MAX) / layout.cell_bytes.max(1)
}

/// Slots in `room_bytes`, and their bytes.
fn slots_in(layout: &ExpertLayout, room_bytes: u64) -> (Vec<u32>, u64) {
    let slots = split_slots(layout, room_bytes);
    let bytes = |(class, slots): (&super::ClassLayout, &u32)| u64::from(*slots) * class.slot_bytes as u64;
    let slot_bytes = layout.classes.iter().zip(&slots).map(bytes).sum();
    (slots, slot_bytes)
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
    let trunk = Trunk::of(shape);
    if trunk.weights.is_empty() {
        return Err(match request.choice {
            Choice::Stream => PlanError::NothingToStream,
            _ => below_floor(full.floor_bytes, full.resident_bytes, request),
        });
    }
    let least_resident = shape.total_bytes() - trunk.bytes;
    let floor = least_resident + request.fixed.total() + trunk.ring_bytes();
    let asked = asked_bytes(request.cache, trunk.bytes);
    let Some(left) = request.budget_bytes.checked_sub(floor.saturating_add(asked)) else {
        return Err(below_floor(floor.saturating_add(asked), least_resident, request));
    };
    let keep = if request.cache.is_some() { asked } else { left };
    let streamed_dense = trunk.stream(shape, trunk.bytes.saturating_sub(keep));
    let streamed: u64 = streamed_dense.iter().map(|index| bytes_of(shape, *index)).sum();
    Ok(Plan {
        mode: Mode::DenseStreaming,
        floor_bytes: floor,
        resident_bytes: shape.total_bytes() - streamed,
        streamable_bytes: trunk.bytes,
        ring_cells: Trunk::CELLS,
        ring_cell_bytes: trunk.cell_bytes,
        streamed_dense,
        ..full
    })
}

fn below_floor(floor_bytes: u64, resident: u64, request: &Request) -> PlanError {
    let Fixed { kv_bytes, compute_bytes, process_bytes, media_bytes } = request.fixed;
    let named = resident + kv_bytes + compute_bytes + media_bytes;
    let mut detail = format!(
        "resident weights {}, context {}, compute {}, program and buffers {}",
        human_bytes(resident),
        human_bytes(kv_bytes),
        human_bytes(compute_bytes),
        human_bytes(floor_bytes.saturating_sub(named).max(process_bytes)),
    );
    if media_bytes > 0 {
        detail.push_str(&format!(", media {}", human_bytes(media_bytes)));
    }
    PlanError::BelowFloor { floor_bytes, budget_bytes: request.budget_bytes, detail }
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
