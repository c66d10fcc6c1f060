//! What is resident, what streams, and whether it fits.
//!
//! Each pool's budget bounds everything in it: weights, slots, KV cache, compute buffers, read buffers and,
//! on the host, the process itself. What llama.cpp needs comes in with the constraints, measured or
//! estimated; the rest is arithmetic over the model's shape. What is at home on a device is resident there;
//! only what is at home on the host can stream. Sums saturate: sizes come from files, which may lie. Nothing
//! here allocates.

use super::dense_weights::{DenseWeights, bytes_of};
use super::device_dense;
use super::error::PlanError;
use super::ledger::{Basis, Entry, Ledger, Purpose};
use super::placement::{ClassSlots, DensePlan, ExpertPlan, Plan, ratio, share, times};
use super::pool::PoolId;
use super::request::{CacheSize, Constraints, Residency};
use super::row_tables::RowTables;
use super::{ClassLayout, ExpertLayout};
use crate::model::{ModelShape, ModelTensor, TensorRole};

/// Cells of the expert ring: one being computed, one landed, the rest at the disk.
const EXPERT_CELLS: usize = 16;
/// Fewest cells that keep the disk busy while one is computed.
const FEWEST_CELLS: usize = 2;
/// Whole stacks on a device: one that is filled while another is computed with.
const FRAMES: usize = 2;
/// The expert ring may take this share of what is left for slots.
const CELL_SHARE: u64 = 8;

/// Decides. `layout` and the homes of `constraints` belong to the same shape.
///
/// # Errors
/// [`PlanError`] when the budget is below the floor, with the floor.
pub fn fill(shape: &ModelShape, layout: &ExpertLayout, constraints: &Constraints) -> Result<Plan, PlanError> {
    if constraints.homes.streamed_dense != PoolId::HOST {
        return device_dense::plan(shape, constraints);
    }
    let devices = on_devices(shape, constraints)?;
    let layout = if constraints.pools.has_workers() {
        // Whole layers are elsewhere: their experts get no slots here.
        &layout.on_host(&constraints.homes)
    } else {
        layout
    };
    Host::new(shape, layout, constraints, devices).plan()
}

/// What devices have in them; all of it is resident.
///
/// # Errors
/// [`PlanError::DeviceTooSmall`] for the first that is.
pub(super) fn on_devices(shape: &ModelShape, constraints: &Constraints) -> Result<Ledger, PlanError> {
    let Constraints { pools, needs, homes, .. } = constraints;
    let mut ledger = Ledger::new();
    for entry in needs.entries().iter().filter(|entry| entry.pool != PoolId::HOST) {
        ledger.add(*entry);
    }
    for (pool, _) in pools.devices() {
        ledger.add(Entry::weights(pool, homes.bytes(shape, pool, |_| true)));
    }
    match ledger.exceeded(pools) {
        None => Ok(ledger),
        Some(pool) => Err(PlanError::DeviceTooSmall {
            pool,
            needed_bytes: ledger.pool_bytes(pool),
            budget_bytes: pools.get(pool).map_or(0, |pool| pool.budget_bytes),
        }),
    }
}

/// Dividing the host's memory.
#[derive(Clone)]
struct Host<'a> {
    shape: &'a ModelShape,
    layout: &'a ExpertLayout,
    constraints: &'a Constraints,
    /// What devices have in them.
    devices: Ledger,
    /// Bytes of all weights that are at home on the host.
    total: u64,
    /// Those of routed experts.
    routed: u64,
    /// What else of them may stream.
    dense: DenseWeights,
    /// Tables that may stream by the row, or, where something streams, that do.
    tables: RowTables,
    /// What llama.cpp, the process and media need.
    needs: u64,
    budget: u64,
}

/// How the host's memory is divided.
struct Division {
    floor: u64,
    resident: u64,
    experts: Option<ExpertPlan>,
    dense: Option<DensePlan>,
    /// Whether anything does, and tables with it.
    streams: bool,
}

impl<'a> Host<'a> {
    fn new(
        shape: &'a ModelShape,
        layout: &'a ExpertLayout,
        constraints: &'a Constraints,
        devices: Ledger,
    ) -> Self {
        let homes = &constraints.homes;
        let is_routed = |tensor: &ModelTensor| matches!(tensor.role, TensorRole::RoutedExpert(_));
        Self {
            shape,
            layout,
            constraints,
            devices,
            total: homes.bytes(shape, PoolId::HOST, |_| true),
            routed: homes.bytes(shape, PoolId::HOST, is_routed),
            dense: DenseWeights::of(shape, homes),
            tables: RowTables::of(shape, homes, &constraints.context, constraints.tables),
            needs: constraints.needs.pool_bytes(PoolId::HOST),
            budget: constraints.pools.host_budget_bytes(),
        }
    }

    fn plan(&self) -> Result<Plan, PlanError> {
        let Constraints { residency, cache, tables, .. } = *self.constraints;
        let needed = self.total.saturating_add(self.needs);
        let fits = needed <= self.budget;
        let tables_stream = tables == Residency::Stream && !self.tables.is_empty();
        match residency {
            Residency::Resident if !fits => {
                Err(PlanError::ResidentTooLarge { needed_bytes: needed, budget_bytes: self.budget })
            }
            Residency::Auto
                if fits
                    && !tables_stream
                    && !self.has_device_slots()
                    && (cache.is_none() || !self.can_stream()) =>
            {
                Ok(self.resident(needed))
            }
            Residency::Resident => Ok(self.resident(needed)),
            Residency::Auto | Residency::Stream => self.without_tables().streaming(),
        }
    }

    /// The same where tables stream: they take what their rows need.
    fn without_tables(&self) -> Self {
        let mut host = self.clone();
        host.total = self.total.saturating_sub(self.tables.bytes);
        host.needs = self.needs.saturating_add(self.tables.memory_bytes());
        host
    }

    /// A plan in which something streams: tables before anything else, because a byte of them is worth least
    /// in memory.
    fn streaming(&self) -> Result<Plan, PlanError> {
        let Constraints { residency, cache, .. } = *self.constraints;
        let needed = self.total.saturating_add(self.needs);
        let tables_suffice = !self.tables.is_empty()
            && needed <= self.budget
            && !self.has_device_slots()
            && (!self.can_stream() || (residency == Residency::Auto && cache.is_none()));
        if tables_suffice {
            Ok(self.with_some_tables(needed))
        } else if self.has_experts() {
            self.experts().map(|it| self.placed(it))
        } else {
            self.dense(needed).map(|it| self.placed(it))
        }
    }

    /// Everything is resident but tables, and of these what there is room for.
    fn with_some_tables(&self, needed: u64) -> Plan {
        let Constraints { context, tables, residency, .. } = self.constraints;
        let asked = [*tables, *residency].contains(&Residency::Stream);
        let room = if asked { 0 } else { self.budget.saturating_sub(needed) };
        let mut host = self.clone();
        host.tables = self.tables.without_what_fits(self.shape, context, room);
        let kept = self.tables.bytes.saturating_sub(host.tables.bytes);
        host.total = self.total.saturating_add(kept);
        host.placed(Division {
            floor: needed,
            resident: host.total,
            experts: None,
            dense: None,
            streams: true,
        })
    }

    /// Whether there is anything that could stream.
    fn can_stream(&self) -> bool {
        self.has_experts() || !self.dense.weights.is_empty()
    }

    /// Whether there are routed experts at home here. They go to devices all together or not at all.
    fn has_experts(&self) -> bool {
        let homes = &self.constraints.homes.layers;
        let here = |layer: u32| homes.get(layer as usize).is_none_or(|home| home.experts == PoolId::HOST);
        self.layout.layers.iter().any(|layer| here(layer.layer))
    }

    /// Whether a device computes experts that stream.
    fn has_device_slots(&self) -> bool {
        self.has_experts() && self.constraints.homes.streamed_experts != PoolId::HOST
    }

    /// Slots in what the device that computes streamed experts has left, and bytes of its frames, which take
    /// the whole stacks of long prompts. A device that computes with the host's slots has none of its own.
    fn device_slots(&self) -> (Vec<ClassSlots>, u64) {
        let pool = self.constraints.homes.streamed_experts;
        if self.constraints.pools.are_unified() {
            return (Vec::new(), times(FRAMES, self.layout.largest_stack_bytes()));
        }
        let budget = self.constraints.pools.get(pool).map_or(0, |pool| pool.budget_bytes);
        let frames = times(FRAMES, self.layout.largest_stack_bytes());
        let room = budget.saturating_sub(self.devices.pool_bytes(pool)).saturating_sub(frames);
        (split_slots(self.layout, pool, room), frames)
    }

    fn resident(&self, floor: u64) -> Plan {
        self.placed(Division { floor, resident: self.total, experts: None, dense: None, streams: false })
    }

    fn placed(&self, division: Division) -> Plan {
        let Division { floor, resident, mut experts, dense, streams } = division;
        let tables = self.tables.plan().filter(|_| streams);
        let mut ledger = self.devices.clone();
        if let Some(experts) = experts.as_mut().filter(|_| self.has_device_slots()) {
            let (slots, bytes) = self.device_slots();
            experts.slots.extend(slots);
            let pool = self.constraints.homes.streamed_experts;
            ledger.add(Entry { pool, purpose: Purpose::Cells, bytes, basis: Basis::Exact });
        }
        for entry in self.constraints.needs.entries().iter().filter(|entry| entry.pool == PoolId::HOST) {
            ledger.add(*entry);
        }
        ledger.add(Entry::weights(PoolId::HOST, resident));
        if let Some(experts) = &experts {
            for group in &experts.slots {
                let bytes = slot_bytes(self.layout, *group);
                ledger.add(Entry { pool: group.pool, purpose: Purpose::Slots, bytes, basis: Basis::Exact });
            }
            let bytes = times(experts.cells, experts.cell_bytes);
            ledger = ledger.with_host(Purpose::Cells, bytes, Basis::Exact);
        }
        if let Some(dense) = &dense {
            let bytes = times(dense.cells, dense.cell_bytes);
            ledger = ledger.with_host(Purpose::Ring, bytes, Basis::Exact);
        }
        if let Some(tables) = &tables {
            ledger = ledger.with_host(Purpose::Rows, tables.memory_bytes(), Basis::Exact);
        }
        let Constraints { context, pools, homes, .. } = self.constraints.clone();
        Plan { context, pools, floor_bytes: floor, ledger, homes, experts, dense, tables }
    }

    /// A model with routed experts. What every token passes is worth most in memory: a byte of it saves a
    /// byte of reading for each token, a byte of slots at most as much and mostly less. So slots get what is
    /// left when all of it is resident (beyond what the user asks for them); where not even that fits, it
    /// streams too, as much of it as must.
    fn experts(&self) -> Result<Division, PlanError> {
        let resident = self.total.saturating_sub(self.routed);
        let always = self.needs.saturating_add(times(FEWEST_CELLS, self.layout.cell_bytes));
        let least_resident = resident.saturating_sub(self.dense.bytes);
        let whole = always.saturating_add(resident);
        let least = least_resident.saturating_add(self.dense.ring_bytes());
        let floor = always.saturating_add(resident.min(least));
        let asked = self.asked_bytes(self.layout.total_bytes());
        if let Some(left) = self.budget.checked_sub(whole.saturating_add(asked)) {
            return Ok(self.slotted(floor, resident, left));
        }
        let part = floor.saturating_add(asked);
        match self.budget.checked_sub(part).filter(|_| floor < whole) {
            Some(left) => Ok(self.mixed(floor, resident, left)),
            None => Err(self.below_floor(part, least_resident.min(resident))),
        }
    }

    /// Everything but experts is resident; `left` bytes are for slots and cells, beyond the slots that were
    /// asked for.
    fn slotted(&self, floor: u64, resident: u64, left: u64) -> Division {
        let layout = self.layout;
        let asked = self.asked_bytes(layout.total_bytes());
        // Cells beyond the least come out of the room for slots, but never more than a share of it. The share
        // is set aside also where it is no whole number of cells: otherwise a larger budget could, by one
        // more cell, leave fewer slots.
        let spare = (asked.saturating_add(left) / CELL_SHARE).min(most_spare(layout)).min(left);
        let wanted = if self.constraints.cache.is_some() { asked } else { left - spare };
        let experts = Some(self.streamed_experts(wanted, spare));
        Division { floor, resident, experts, dense: None, streams: true }
    }

    /// Dense weights streams in part: slots get what was asked for, the cells of experts what keeps the disk
    /// busy, and the dense weights the rest.
    fn mixed(&self, floor: u64, resident: u64, left: u64) -> Division {
        let spare = (left / CELL_SHARE).min(most_spare(self.layout));
        let asked = self.asked_bytes(self.layout.total_bytes());
        let (dense, streamed) = self.streamed_trunk(left - spare);
        Division {
            floor,
            resident: resident.saturating_sub(streamed),
            experts: Some(self.streamed_experts(asked, spare)),
            dense: Some(dense),
            streams: true,
        }
    }

    fn dense(&self, needed: u64) -> Result<Division, PlanError> {
        if self.dense.weights.is_empty() {
            return Err(match self.constraints.residency {
                Residency::Stream if self.tables.is_empty() => PlanError::NothingToStream,
                _ => self.below_floor(needed, self.total),
            });
        }
        let least_resident = self.total.saturating_sub(self.dense.bytes);
        let floor = least_resident.saturating_add(self.needs).saturating_add(self.dense.ring_bytes());
        let asked = self.asked_bytes(self.dense.bytes);
        let Some(left) = self.budget.checked_sub(floor.saturating_add(asked)) else {
            return Err(self.below_floor(floor.saturating_add(asked), least_resident));
        };
        let keep = if self.constraints.cache.is_some() { asked } else { left };
        let (dense, streamed) = self.streamed_trunk(keep);
        let resident = self.total.saturating_sub(streamed);
        Ok(Division { floor, resident, experts: None, dense: Some(dense), streams: true })
    }

    /// Slots in `room` bytes, and the cells that `spare` bytes beyond the least allow.
    fn streamed_experts(&self, room: u64, spare: u64) -> ExpertPlan {
        let cell_bytes = self.layout.cell_bytes;
        let more_cells = usize::try_from(spare).unwrap_or(usize::MAX) / cell_bytes.max(1);
        ExpertPlan {
            slots: split_slots(self.layout, PoolId::HOST, room),
            cells: FEWEST_CELLS.saturating_add(more_cells),
            cell_bytes,
            streamable_bytes: self.routed,
        }
    }

    /// Dense weights streams, but for about `keep` bytes of it; and how many bytes stream.
    fn streamed_trunk(&self, keep: u64) -> (DensePlan, u64) {
        let DenseWeights { bytes, cell_bytes, cells, .. } = self.dense;
        let weights = self.dense.stream(self.shape, bytes.saturating_sub(keep));
        let streamed = weights.iter().map(|index| bytes_of(self.shape, *index));
        let streamed = streamed.fold(0, u64::saturating_add);
        let (kept, device_cells) = (Vec::new(), 0);
        let plan = DensePlan { weights, cells, cell_bytes, streamable_bytes: bytes, kept, device_cells };
        (plan, streamed)
    }

    /// The size of the cache that the user asked for, of `streamable` bytes; 0 when nobody asked.
    fn asked_bytes(&self, streamable: u64) -> u64 {
        match self.constraints.cache {
            None => 0,
            Some(CacheSize::Bytes(bytes)) => bytes,
            Some(CacheSize::Percent(percent)) => share(streamable, percent / 100.0),
        }
    }

    fn below_floor(&self, floor: u64, resident: u64) -> PlanError {
        PlanError::below_floor(floor, resident, &self.constraints.needs, &self.constraints.pools)
    }
}

/// Bytes that cells of experts take at most, beyond the least.
fn most_spare(layout: &ExpertLayout) -> u64 {
    times(EXPERT_CELLS - FEWEST_CELLS, layout.cell_bytes)
}

fn slot_bytes(layout: &ExpertLayout, group: ClassSlots) -> u64 {
    let class = layout.classes.get(group.class);
    u64::from(group.slots).saturating_mul(class.map_or(0, |class| class.slot_bytes as u64))
}

/// Divides room in a pool among the size classes in proportion to their bytes.
fn split_slots(layout: &ExpertLayout, pool: PoolId, room_bytes: u64) -> Vec<ClassSlots> {
    let total = layout.total_bytes();
    let of_class = |(class, sizes): (usize, &ClassLayout)| {
        let part = share(room_bytes, ratio(sizes.total_bytes(), total));
        let slots = (part / (sizes.slot_bytes as u64).max(1)).min(sizes.experts).min(sizes.most_slots);
        ClassSlots { pool, class, slots: u32::try_from(slots).unwrap_or(u32::MAX) }
    };
    layout.classes.iter().enumerate().map(of_class).collect()
}
