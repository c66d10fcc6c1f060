//! Which embeddings stream by the row, and the memory that their rows get.
//!
//! A token reads a row of a table, or a few, so a byte of it in memory saves next to nothing of reading, and
//! a table goes before anything else does. What it takes instead is a small cache of rows, which also holds
//! those of a prompt while they are computed with, and pages that rows are read into: whole pages, because
//! the reader bypasses the page cache.

use super::dense_weights::bytes_of;
use super::homes::Homes;
use super::placement::{StreamedTable, TablePlan};
use super::request::{ContextShape, Residency};
use super::{PAGE, PoolId};
use crate::model::{ModelShape, Streaming};

/// A cache holds the rows of a ubatch, within these bounds.
const LEAST_CACHE_BYTES: u64 = 4 << 20;
const MOST_CACHE_BYTES: u64 = 64 << 20;
/// A cache takes at most one part in so many of its table.
const CACHE_SHARE: u64 = 4;
/// Each half of the pages that rows are read into: a thousand pages keep any disk busy.
const MOST_HALF_BYTES: u64 = 4 << 20;
/// A table that gives back less stays resident where nobody asks for it.
const LEAST_GAIN_BYTES: u64 = 32 << 20;

/// Pages that a row is spread over in the mean of all rows of a table that begins at `offset` of its file.
#[must_use]
pub fn pages_of_row(offset: u64, row_bytes: u64) -> f64 {
    let page = PAGE as u64;
    // Rows begin at all multiples of this, counted from where the first does, and no other bytes of a page: a
    // page is a power of two, so this is the greatest common divisor of the two.
    let step = 1 << row_bytes.trailing_zeros().min(page.trailing_zeros());
    let first = offset % step;
    let pages = |begin: u64| begin.saturating_add(row_bytes).div_ceil(page);
    let places = page / step;
    (0..places).map(|at| pages(first + at * step) as f64).sum::<f64>() / places as f64
}

/// Tables that may stream.
#[derive(Clone, Debug, Default)]
pub(super) struct RowTables {
    tables: Vec<StreamedTable>,
    /// Bytes of them.
    pub bytes: u64,
    half_bytes: u64,
}

impl RowTables {
    /// Chooses: none where they are to be resident, all that can where they are to stream, otherwise those
    /// that are worth it.
    pub fn of(shape: &ModelShape, homes: &Homes, context: &ContextShape, asked: Residency) -> Self {
        if asked == Residency::Resident {
            return Self::default();
        }
        let all = (0..shape.tensors.len())
            .filter(|index| homes.of(&shape.tensors[*index]) == PoolId::HOST)
            .filter_map(|index| table(shape, index, context));
        let worth = |table: &StreamedTable| {
            let gain = bytes_of(shape, table.weight).saturating_sub(cache_bytes(table) + 2 * MOST_HALF_BYTES);
            asked == Residency::Stream || gain >= LEAST_GAIN_BYTES
        };
        Self::with(shape, context, all.filter(worth).collect())
    }

    fn with(shape: &ModelShape, context: &ContextShape, tables: Vec<StreamedTable>) -> Self {
        let bytes = tables.iter().map(|table| bytes_of(shape, table.weight)).fold(0, u64::saturating_add);
        let half_bytes = tables.iter().map(|table| half_bytes(table, context)).max().unwrap_or(0);
        Self { tables, bytes, half_bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Bytes of the caches and of the pages that rows are read into.
    pub fn memory_bytes(&self) -> u64 {
        let caches = self.tables.iter().map(cache_bytes).fold(0, u64::saturating_add);
        caches.saturating_add(self.half_bytes.saturating_mul(2))
    }

    /// Those that still stream when the others, the smallest first, are in `room_bytes` of memory.
    pub fn without_what_fits(&self, shape: &ModelShape, context: &ContextShape, room_bytes: u64) -> Self {
        let mut tables = self.tables.clone();
        tables.sort_by_key(|table| std::cmp::Reverse(bytes_of(shape, table.weight)));
        let mut left = room_bytes;
        while let Some(smallest) = tables.last() {
            match left.checked_sub(bytes_of(shape, smallest.weight)) {
                Some(rest) => left = rest,
                None => break,
            }
            tables.pop();
        }
        tables.sort_by_key(|table| table.weight);
        Self::with(shape, context, tables)
    }

    /// As a part of the plan; `None` without tables.
    pub fn plan(&self) -> Option<TablePlan> {
        let plan =
            TablePlan { tables: self.tables.clone(), staging_bytes: self.half_bytes.saturating_mul(2) };
        (!self.is_empty()).then_some(plan)
    }
}

impl TablePlan {
    /// Bytes of memory for rows: caches, and pages that rows are read into.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.tables.iter().map(cache_bytes).fold(self.staging_bytes, u64::saturating_add)
    }
}

/// A weight as a table; `None` where it is none.
fn table(shape: &ModelShape, index: usize, context: &ContextShape) -> Option<StreamedTable> {
    let tensor = &shape.tensors[index];
    let Streaming::Rows(rows_per_token) = tensor.streaming else { return None };
    let rows = tensor.info.shape.get(1).copied().filter(|rows| *rows > 0)?;
    let row_bytes = tensor.info.bytes / rows;
    if row_bytes == 0 || row_bytes > MOST_HALF_BYTES - 2 * PAGE as u64 {
        return None;
    }
    let of_ubatch = u64::from(context.ubatch_tokens).saturating_mul(rows_per_token.into());
    let most = MOST_CACHE_BYTES.min(tensor.info.bytes / CACHE_SHARE).max(row_bytes);
    let bytes = of_ubatch.saturating_mul(row_bytes).max(LEAST_CACHE_BYTES).min(most);
    let cache_rows = u32::try_from((bytes / row_bytes).min(rows)).unwrap_or(u32::MAX);
    Some(StreamedTable { weight: index, row_bytes, rows_per_token, cache_rows })
}

fn cache_bytes(table: &StreamedTable) -> u64 {
    u64::from(table.cache_rows).saturating_mul(table.row_bytes).next_multiple_of(PAGE as u64)
}

/// Pages for the rows of a ubatch, within bounds, and for one row at least.
fn half_bytes(table: &StreamedTable, context: &ContextShape) -> u64 {
    let page = PAGE as u64;
    let row = table.row_bytes.saturating_add(2 * page - 1) / page * page;
    let rows = u64::from(context.ubatch_tokens.max(1)).saturating_mul(table.rows_per_token.into());
    row.saturating_mul(rows).min(MOST_HALF_BYTES).max(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_spread_over_pages() {
        let of = |offset, row| pages_of_row(offset, row);
        assert_eq!([of(0, 4096), of(4096, 8192), of(32, 4096)], [1.0, 2.0, 2.0]);
        // Halves of pages cross no border where the first begins at one; rows of five quarters take two
        // pages.
        assert_eq!([of(0, 2048), of(64, 2048), of(0, 5120)], [1.0, 1.5, 2.0]);
        assert!((of(32, 100) - 1.024).abs() < 0.001 && (of(0, 7344) - 2.79).abs() < 0.01);
        assert!((of(7, 90) - 1.022).abs() < 0.001);
    }
}
