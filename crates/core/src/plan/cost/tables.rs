//! Rows of tables that stream: known before anything is computed, and waited for by the first nodes, so that
//! nothing but other reads goes on meanwhile.

use super::compute::Rates;
use super::disk::Disk;
use super::{CostInput, DecodeCost, Estimate};
use crate::plan::{PAGE, pages_of_row};

/// What the rows of some tokens cost where none of them is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RowReads {
    pub bytes: f64,
    pub read_s: f64,
    pub sync_s: f64,
}

impl RowReads {
    /// Of so many tokens in one graph; `None` where the disk was not measured.
    pub fn of(input: &CostInput<'_>, rates: &Rates<'_>, disk: &Disk<'_>, tokens: f64) -> Option<Self> {
        let mut reads = Self::default();
        for table in input.plan.streamed_tables() {
            let rows = tokens * f64::from(table.rows_per_token);
            let offset = input.shape.tensors.get(table.weight).map_or(0, |tensor| tensor.info.offset);
            let bytes = pages_of_row(offset, table.row_bytes) * PAGE as f64;
            reads.bytes += rows * bytes;
            reads.read_s += disk.burst_seconds(rows, bytes as u64)?;
            // The node and what comes before it are calls of their own.
            reads.sync_s += 2.0 * rates.call_s();
        }
        Some(reads)
    }

    /// A token that waits for its rows first.
    pub fn before(self, cost: DecodeCost) -> DecodeCost {
        if self == Self::default() {
            return cost;
        }
        let wait_s = self.read_s + self.sync_s;
        let slower = |per_s: f64| 1.0 / (1.0 / per_s + wait_s);
        let Estimate { low, mid, high } = cost.tokens_per_s;
        DecodeCost {
            tokens_per_s: Estimate { low: slower(low), mid: slower(mid), high: slower(high) },
            sync_s: cost.sync_s + self.sync_s,
            read_s: cost.read_s + self.read_s,
            read_bytes: cost.read_bytes + self.bytes,
            ..cost
        }
    }
}
