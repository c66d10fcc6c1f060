//! Reads of rows: whole pages around each, neighbours joined, in file order.

use hypura_core::plan::{PAGE, PartRead};
use hypura_storage::{Arena, Priority};
use std::ops::Range;
use std::sync::Arc;

use super::io::TargetedRead;

/// A table of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowTable {
    pub tensor: String,
    pub shard: usize,
    pub offset: u64,
    /// Of the shard: its last page may be a part of one.
    pub file_bytes: u64,
    pub row_bytes: usize,
    /// Rows that the cache holds, at least one.
    pub cache_rows: u32,
}

/// A row that must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedRow {
    pub table: usize,
    pub slot: u32,
    shard: usize,
    offset: u64,
    bytes: usize,
    file_bytes: u64,
}

/// Which read of which half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTarget {
    pub(super) half: usize,
    pub(super) read: usize,
}

/// Half of the staging memory, and the batch of reads that fill it.
pub(super) struct Half {
    at: usize,
    bytes: usize,
    /// The rows of the batch in file order, each with where it begins in the staging memory.
    rows: Vec<(WantedRow, usize)>,
    /// The rows of each read.
    reads: Vec<Range<usize>>,
    /// Reads that have not ended.
    out: usize,
}

impl RowTable {
    /// Bytes of the whole pages around a row.
    pub(super) fn pages_bytes(&self, row: u32) -> usize {
        PartRead::around(self.offset_of(row), self.row_bytes).len
    }

    pub(super) fn wanted(&self, table: usize, row: u32, slot: u32) -> WantedRow {
        let (shard, bytes, file_bytes) = (self.shard, self.row_bytes, self.file_bytes);
        WantedRow { table, slot, shard, offset: self.offset_of(row), bytes, file_bytes }
    }

    fn offset_of(&self, row: u32) -> u64 {
        self.offset + u64::from(row) * self.row_bytes as u64
    }
}

impl Half {
    pub fn new(at: usize, bytes: usize) -> Self {
        Self { at, bytes, rows: Vec::new(), reads: Vec::new(), out: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no read into it is out.
    pub fn is_free(&self) -> bool {
        self.out == 0
    }

    /// Makes the reads of a batch, whose pages fit; returns them and their number.
    pub fn fill(
        &mut self,
        half: usize,
        mut wanted: Vec<WantedRow>,
        staging: &Arc<Arena>,
    ) -> (Vec<TargetedRead<RowTarget>>, u64) {
        wanted.sort_unstable_by_key(|row| (row.shard, row.offset));
        self.rows.clear();
        self.reads.clear();
        let (mut reads, mut at) = (Vec::new(), self.at);
        let mut rest = wanted.as_slice();
        while let Some(first) = rest.first() {
            let (joined, later) = rest.split_at(neighbours(rest));
            rest = later;
            let end = joined.last().map_or(0, |last| last.offset + last.bytes as u64);
            // A batch fits into the staging memory, whose size is a usize.
            let read = whole_pages(first, (end - first.offset) as usize);
            let start = self.rows.len();
            self.rows.extend(joined.iter().map(|row| (*row, at + (row.offset - read.offset) as usize)));
            let target = RowTarget { half, read: self.reads.len() };
            self.reads.push(start..self.rows.len());
            let (shard, priority) = (first.shard, Priority::Demand);
            reads.push(TargetedRead { target, shard, read, memory: Arc::clone(staging), at, priority });
            at += read.len;
        }
        self.out = reads.len();
        (reads, self.out as u64)
    }

    /// A read has ended; returns its rows, and where they begin in the staging memory.
    pub fn end(&mut self, read: usize) -> impl Iterator<Item = (WantedRow, usize)> {
        self.out -= 1;
        self.rows[self.reads[read].clone()].iter().copied()
    }
}

/// The whole pages around bytes that begin with a row, as far as the file has them. A device reads no less
/// for a part of a page, and so what is read does not depend on the device's sectors, which a plan does not
/// know.
fn whole_pages(first: &WantedRow, bytes: usize) -> PartRead {
    let read = PartRead::around(first.offset, bytes);
    let in_file = usize::try_from(first.file_bytes.saturating_sub(read.offset)).unwrap_or(usize::MAX);
    PartRead { required: read.len.min(in_file).max(read.required), ..read }
}

/// How many of the rows, which are in file order, share pages or lie in pages next to each other.
fn neighbours(rows: &[WantedRow]) -> usize {
    let page = |offset: u64| offset / PAGE as u64;
    let last_page = |row: &WantedRow| page(row.offset + row.bytes.saturating_sub(1) as u64);
    let apart = rows
        .windows(2)
        .position(|pair| pair[0].shard != pair[1].shard || page(pair[1].offset) > last_page(&pair[0]) + 1);
    apart.map_or(rows.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_storage::HugePages;

    const TABLE: RowTable = RowTable {
        tensor: String::new(),
        shard: 0,
        offset: 1000,
        file_bytes: 1000 + 101 * 600,
        row_bytes: 600,
        cache_rows: 1,
    };

    #[test]
    fn neighbours_are_read_at_once() {
        let staging = Arena::new(16 * PAGE, HugePages::No).unwrap();
        let mut half = Half::new(8 * PAGE, 8 * PAGE);
        // Pages 0, 0 and 1, 1, 3 and then 14 and 15.
        let wanted = [20, 0, 3, 100, 5].map(|row| TABLE.wanted(0, row, row)).to_vec();
        let (reads, count) = half.fill(1, wanted, &staging);
        let places: Vec<_> = reads.iter().map(|read| (read.read.offset, read.read.len, read.at)).collect();
        let page = PAGE as u64;
        assert_eq!(
            places,
            [(0, 2 * PAGE, 8 * PAGE), (3 * page, PAGE, 10 * PAGE), (14 * page, 2 * PAGE, 11 * PAGE)]
        );
        // The file ends within the last page.
        let required = reads.iter().map(|read| read.read.required).collect::<Vec<_>>();
        assert_eq!(required, [2 * PAGE, PAGE, 1000 + 101 * 600 - 14 * PAGE]);
        assert!(count == 3 && !half.is_free());
        let rows: Vec<_> = half.end(0).map(|(row, at)| (row.slot, at)).collect();
        assert_eq!(rows, [(0, 8 * PAGE + 1000), (3, 8 * PAGE + 2800), (5, 8 * PAGE + 4000)]);
        assert_eq!((half.end(1).count(), half.end(2).count(), half.is_free()), (1, 1, true));
    }

    #[test]
    fn rows_of_two_shards_are_two_reads() {
        let other = RowTable { shard: 1, ..TABLE };
        let staging = Arena::new(2 * PAGE, HugePages::No).unwrap();
        let wanted = vec![other.wanted(1, 1, 0), TABLE.wanted(0, 1, 0)];
        let (reads, _) = Half::new(0, 2 * PAGE).fill(0, wanted, &staging);
        assert_eq!(reads.iter().map(|read| read.shard).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_read_is_as_long_as_the_pages_of_its_rows() {
        assert_eq!([0, 6, 5].map(|row| TABLE.pages_bytes(row)), [PAGE, PAGE, 2 * PAGE]);
    }
}
