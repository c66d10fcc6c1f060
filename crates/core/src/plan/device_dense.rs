//! Dense weights that a device computes with and that do not all fit its memory.
//!
//! All layers are at home on the device, KV cache included. Of their matrices it keeps as many as fit; the
//! others go through a ring of cells each time they are used, from the host's memory, where as many of them
//! stay as fit there, or from the disk. Where host and device have one memory there is one ring, which the
//! disk fills and the device reads, and nothing else in the host's memory to come from.

use super::dense_weights::{DenseWeights, bytes_of, cell_room, evenly};
use super::error::PlanError;
use super::ledger::{Basis, Entry, Ledger, Purpose};
use super::placement::{DensePlan, Plan, share, times};
use super::pool::PoolId;
use super::request::{CacheSize, Constraints};
use super::row_tables::RowTables;
use super::{ExpertLayout, PAGE};
use crate::model::ModelShape;

/// Products of one input are computed in one call: query, key and value are most of them.
const GROUP: usize = 3;
/// Cells of the host's ring: a group that is uploaded or computed with, and two reads at the disk.
const CELLS: usize = GROUP + 2;
/// Cells of the device's: a group that is computed with, and uploads of the next.
const DEVICE_CELLS: usize = GROUP + 2;

/// What the host's memory and the device's have to hold, and how the ring's cells look.
struct Room<'a> {
    shape: &'a ModelShape,
    constraints: &'a Constraints,
    dense: DenseWeights,
    tables: RowTables,
    pool: PoolId,
    /// Bytes in the host's memory but for the ring and weights that come from there.
    host: u64,
    /// Bytes of all weights at home on the device.
    total: u64,
}

/// Decides. The homes of `constraints` have all layers on the device that computes what streams.
///
/// # Errors
/// [`PlanError`] when one of the budgets is too small.
pub(super) fn plan(shape: &ModelShape, constraints: &Constraints) -> Result<Plan, PlanError> {
    let Constraints { needs, homes, context, tables, .. } = constraints;
    let pool = homes.streamed_dense;
    let tables = RowTables::of(shape, homes, context, *tables);
    let on_host = homes.bytes(shape, PoolId::HOST, |_| true).saturating_sub(tables.bytes);
    let host = on_host.saturating_add(needs.pool_bytes(PoolId::HOST)).saturating_add(tables.memory_bytes());
    let total = homes.bytes(shape, pool, |_| true);
    let dense = DenseWeights::in_pool(shape, homes, pool, CELLS);
    Room { shape, constraints, dense, tables, pool, host, total }.plan()
}

impl Room<'_> {
    fn plan(&self) -> Result<Plan, PlanError> {
        let streamed = self.streamed()?;
        let kept = self.kept(&streamed)?;
        // One that nothing is read into, where nothing is.
        let is_read = kept.len() < streamed.len() || streamed.is_empty();
        let dense = DensePlan {
            cells: if is_read { CELLS } else { 1 },
            cell_bytes: self.dense.cell_bytes,
            streamable_bytes: self.dense.bytes,
            device_cells: if self.is_unified() { 0 } else { DEVICE_CELLS },
            kept,
            weights: streamed,
        };
        let ledger = self.ledger(&dense);
        let Constraints { context, pools, homes, .. } = self.constraints.clone();
        let (floor_bytes, tables) = (self.host.saturating_add(self.dense.ring_bytes()), self.tables.plan());
        Ok(Plan { context, pools, floor_bytes, ledger, homes, experts: None, dense: Some(dense), tables })
    }

    fn is_unified(&self) -> bool {
        self.constraints.pools.are_unified()
    }

    /// The weights that do not stay in the device's memory.
    fn streamed(&self) -> Result<Vec<usize>, PlanError> {
        let needed = self.constraints.needs.pool_bytes(self.pool).saturating_add(self.device_ring_bytes());
        let budget_bytes = self.constraints.pools.get(self.pool).map_or(0, |pool| pool.budget_bytes);
        // One memory has room for both sides.
        let others = if self.is_unified() { self.host.saturating_add(self.dense.ring_bytes()) } else { 0 };
        let room = budget_bytes.saturating_sub(needed).saturating_sub(others);
        let must = self.total.saturating_sub(room);
        if must > self.dense.bytes {
            let least = self.total.saturating_sub(self.dense.bytes);
            let needed_bytes = needed.saturating_add(others).saturating_add(least);
            return Err(PlanError::DeviceTooSmall { pool: self.pool, needed_bytes, budget_bytes });
        }
        let wanted = self.asked_bytes().map_or(0, |asked| self.dense.bytes.saturating_sub(asked));
        Ok(self.dense.stream(self.shape, must.max(wanted)))
    }

    /// Those of them that stay in the host's memory.
    fn kept(&self, streamed: &[usize]) -> Result<Vec<usize>, PlanError> {
        let Constraints { pools, needs, .. } = self.constraints;
        let floor = self.host.saturating_add(self.dense.ring_bytes());
        let Some(room) = pools.host_budget_bytes().checked_sub(floor) else {
            return Err(PlanError::below_floor(floor, self.host, needs, pools));
        };
        if self.is_unified() {
            return Ok(Vec::new());
        }
        let all = self.sum(streamed);
        let on_device = self.dense.bytes.saturating_sub(all);
        let asked = self.asked_bytes().map_or(u64::MAX, |asked| asked.saturating_sub(on_device));
        // The pages around each of them.
        let room = room.saturating_sub(times(streamed.len(), 2 * PAGE)).min(asked);
        let from_disk = evenly(self.shape, streamed, all.saturating_sub(room));
        Ok(streamed.iter().copied().filter(|index| !from_disk.contains(index)).collect())
    }

    /// Bytes of dense weights that are to stay in memory, where somebody said so.
    fn asked_bytes(&self) -> Option<u64> {
        self.constraints.cache.map(|cache| match cache {
            CacheSize::Bytes(bytes) => bytes,
            CacheSize::Percent(percent) => share(self.dense.bytes, percent / 100.0),
        })
    }

    fn device_ring_bytes(&self) -> u64 {
        if self.is_unified() { 0 } else { times(DEVICE_CELLS, device_cell_bytes(self.dense.cell_bytes)) }
    }

    fn sum(&self, weights: &[usize]) -> u64 {
        weights.iter().map(|index| bytes_of(self.shape, *index)).fold(0, u64::saturating_add)
    }

    fn ledger(&self, dense: &DensePlan) -> Ledger {
        let mut ledger = Ledger::new();
        self.constraints.needs.entries().iter().for_each(|entry| ledger.add(*entry));
        let on_host = self.constraints.homes.bytes(self.shape, PoolId::HOST, |_| true);
        let on_host = on_host.saturating_sub(self.tables.bytes).saturating_add(dense.kept_bytes(self.shape));
        ledger.add(Entry::weights(PoolId::HOST, on_host));
        ledger.add(Entry::weights(self.pool, self.total.saturating_sub(self.sum(&dense.weights))));
        let (purpose, basis) = (Purpose::Ring, Basis::Exact);
        let ring = times(dense.cells, dense.cell_bytes);
        ledger.add(Entry { pool: PoolId::HOST, purpose, bytes: ring, basis });
        ledger.add(Entry { pool: self.pool, purpose, bytes: self.device_ring_bytes(), basis });
        ledger.with_host(Purpose::Rows, self.tables.memory_bytes(), basis)
    }
}

/// Bytes of a cell on the device: kernels read up to a page beyond a matrix.
const fn device_cell_bytes(cell_bytes: usize) -> usize {
    cell_bytes.saturating_add(PAGE)
}

impl DensePlan {
    /// Bytes of a cell on the device.
    #[must_use]
    pub const fn device_cell_bytes(&self) -> usize {
        device_cell_bytes(self.cell_bytes)
    }

    /// Bytes of the host's memory that the weights take that stay there, whole pages each.
    #[must_use]
    pub fn kept_bytes(&self, shape: &ModelShape) -> u64 {
        let room = |index: &usize| cell_room(bytes_of(shape, *index)) as u64;
        self.kept.iter().map(room).fold(0, u64::saturating_add)
    }
}

/// Whether a plan in which a device computes all that streams is to be preferred to one in which the
/// processor does: where the disk has to read for each token, the device computes for nothing, and prompts
/// much faster. Not where it would have to read much more, because rings and KV cache take what little the
/// device has.
pub(super) fn is_better(shape: &ModelShape, there: &Plan, by_host: &Plan) -> bool {
    const MORE: f64 = 1.25;
    let bytes = |plan: &Plan| plan.streamed_dense_bytes(shape) as f64;
    bytes(by_host) > 0.0 && bytes(there) <= MORE * bytes(by_host)
}

/// Whether everything that could stream here is what every token passes.
pub(super) fn is_dense(layout: &ExpertLayout) -> bool {
    layout.layers.is_empty()
}
