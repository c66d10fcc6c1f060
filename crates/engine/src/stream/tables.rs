//! Tables that stream by the row: `GET_ROWS` over a cache of rows.
//!
//! Ids are inputs of the graph, so its rows are known before anything runs: all reads start when a graph
//! begins, in batches of whole pages, neighbours joined and in file order, and a node waits for its own rows
//! alone. What lands is copied from the pages into the cache, which the node gathers from, in pieces where it
//! gathers more rows than the cache holds.
//!
//! Invariants: rows that a node waits for or is computing with are pinned; each half of the staging memory
//! belongs to one batch until all of its reads have ended; only a completed read makes a row ready.

use hypura_core::cache::{RowCache, RowGrant};
use hypura_ggml::{ExecError, GraphRun, RowsOp, SlotBinding, StreamedOp};
use hypura_storage::{Arena, ArenaError, HugePages, ReadError};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::io::{Io, Landed};
use super::row_batch::{Half, RowTable, RowTarget, WantedRow};
use super::slots::POISON;
use super::stats::StreamStats;
use crate::error::StreamError;

/// Rows that are worth a call of the backend while others are still being read.
const LEAST_PIECE: usize = 512;

/// A table with its cache.
struct Table {
    layout: RowTable,
    cache: RowCache,
    memory: Arc<Arena>,
}

/// A node that gathers rows.
struct Gather {
    node: usize,
    table: usize,
    rows: Vec<u32>,
    /// Rows that were gathered.
    done: usize,
    /// Slots of the rows behind them, each pinned; of these, so many are known to be ready.
    slots: VecDeque<i32>,
    ready: usize,
}

/// What was done since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TableCounts {
    /// Rows that nodes gathered.
    pub rows: u64,
    /// Of these, the ones that were in the cache or on their way there.
    pub hits: u64,
    /// Reads, each of one row or of neighbours.
    pub reads: u64,
}

/// Streams the tables of one context.
pub(crate) struct TableStreamer {
    tables: Vec<Table>,
    staging: Arc<Arena>,
    halves: [Half; 2],
    io: Io<RowTarget>,
    /// Nodes of the graph in progress whose rows are known, in order.
    gathers: VecDeque<Gather>,
    /// Why reads failed, by table and slot.
    failures: HashMap<(usize, u32), ReadError>,
    counts: TableCounts,
    poison: bool,
}

impl TableStreamer {
    /// `staging_bytes` are two halves of whole pages, each with room for any row and the pages around it.
    ///
    /// # Errors
    /// [`ArenaError`] when memory is refused.
    pub fn new(
        tables: Vec<RowTable>,
        staging_bytes: usize,
        io: Io<RowTarget>,
        poison: bool,
    ) -> Result<Self, ArenaError> {
        let table = |layout: RowTable| {
            let memory = Arena::new(layout.cache_rows as usize * layout.row_bytes, HugePages::Try)?;
            Ok(Table { cache: RowCache::new(layout.cache_rows), memory, layout })
        };
        let tables = tables.into_iter().map(table).collect::<Result<_, ArenaError>>()?;
        let half_bytes = staging_bytes / 2;
        Ok(Self {
            tables,
            staging: Arena::new(staging_bytes, HugePages::No)?,
            halves: [Half::new(0, half_bytes), Half::new(half_bytes, half_bytes)],
            io,
            gathers: VecDeque::new(),
            failures: HashMap::new(),
            counts: TableCounts::default(),
            poison,
        })
    }

    pub fn io(&self) -> &Io<RowTarget> {
        &self.io
    }

    /// Adds what was done to counters.
    pub fn count_into(&self, stats: &mut StreamStats) {
        let TableCounts { rows, hits, reads } = self.counts;
        (stats.table_rows, stats.table_hits, stats.table_reads) = (rows, hits, reads);
        stats.table_bytes_read = self.io.device_bytes();
        stats.bytes_read += self.io.device_bytes();
        stats.disk_busy += self.io.disk_busy();
        stats.read_stall += self.io.stall();
    }

    /// The table of a weight.
    pub fn position(&self, tensor: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.layout.tensor == tensor)
    }

    /// Pins that nobody has taken back.
    pub fn pins(&self) -> usize {
        self.tables.iter().map(|table| table.cache.pins()).sum()
    }

    /// A graph begins with these nodes: reads what is known of their rows.
    pub fn begin_graph(
        &mut self,
        run: &GraphRun<'_>,
        nodes: impl Iterator<Item = (StreamedOp, usize)>,
    ) -> Result<(), ExecError> {
        for (op, table) in nodes {
            if let Some(rows) = RowsOp::new(op)?.known_ids(run)? {
                self.gathers.push_back(Gather::new(op.node, table, rows));
            }
        }
        self.advance();
        Ok(())
    }

    /// Computes a `GET_ROWS`, waiting for its rows.
    pub fn run_op(&mut self, run: &mut GraphRun<'_>, op: StreamedOp, table: usize) -> Result<(), ExecError> {
        if self.gathers.front().is_none_or(|gather| gather.node != op.node) {
            let rows = RowsOp::new(op)?.ids(run)?;
            // What later nodes have pinned may be all there is.
            self.release();
            self.gathers.push_front(Gather::new(op.node, table, rows));
        }
        loop {
            self.advance();
            let Some(gather) = self.gathers.front_mut() else { return Ok(()) };
            if gather.is_done() {
                self.gathers.pop_front();
                break;
            }
            let Table { cache, .. } = &self.tables[table];
            gather.look(cache);
            if let Some(slot) = gather.failed(cache) {
                let failure = self.failures.get(&(table, slot)).cloned();
                return Err(failure.map_or(StreamError::TakenBack, StreamError::Read).into());
            }
            if gather.ready == 0 || (gather.ready < gather.slots.len() && gather.ready < LEAST_PIECE) {
                let landed = self.io.wait()?;
                self.absorb(landed);
            } else {
                self.gather(run, op, table)?;
            }
        }
        let landed = self.io.poll();
        self.absorb(landed);
        Ok(())
    }

    /// Gathers what is ready of the first node.
    fn gather(&mut self, run: &mut GraphRun<'_>, op: StreamedOp, table: usize) -> Result<(), ExecError> {
        let Some(gather) = self.gathers.front_mut() else { return Ok(()) };
        let Table { layout, cache, memory } = &mut self.tables[table];
        let slots: Vec<i32> = gather.slots.drain(..gather.ready).collect();
        let stride = layout.row_bytes;
        let binding = SlotBinding { memory: memory.cells().into(), stride, slots: cache.len() };
        let outcome = RowsOp::new(op)?.gather(run, binding, &slots, gather.done);
        gather.done += slots.len();
        gather.ready = 0;
        slots.iter().for_each(|slot| cache.unpin(slot.unsigned_abs()));
        outcome
    }

    /// Pins rows for the nodes that wait, in order, and starts the reads of those that are not there, as far
    /// as there are slots and staging memory.
    fn advance(&mut self) {
        while let Some(half) = self.halves.iter().position(Half::is_free) {
            let wanted = self.pin(self.halves[half].bytes());
            if wanted.is_empty() {
                return;
            }
            let (reads, count) = self.halves[half].fill(half, wanted, &self.staging);
            self.counts.reads += count;
            self.io.submit(reads);
        }
    }

    /// Pins as many rows as there are slots for, of which those that must be read fit into `room` bytes of
    /// pages; returns these.
    fn pin(&mut self, mut room: usize) -> Vec<WantedRow> {
        let mut wanted = Vec::new();
        for gather in &mut self.gathers {
            let Table { layout, cache, memory } = &mut self.tables[gather.table];
            for row in &gather.rows[gather.done + gather.slots.len()..] {
                let pages = layout.pages_bytes(*row);
                if pages > room {
                    return wanted;
                }
                let slot = match cache.pin(*row) {
                    RowGrant::Full => return wanted,
                    RowGrant::Held(slot) => {
                        self.counts.hits += 1;
                        slot
                    }
                    RowGrant::Read(slot) => {
                        self.failures.remove(&(gather.table, slot));
                        if self.poison {
                            let at = slot as usize * layout.row_bytes;
                            memory.fill(at..at + layout.row_bytes, POISON);
                        }
                        room -= pages;
                        wanted.push(layout.wanted(gather.table, *row, slot));
                        slot
                    }
                };
                self.counts.rows += 1;
                gather.slots.push_back(slot.cast_signed());
            }
        }
        wanted
    }

    /// Takes back what was pinned for nodes to come; their reads go on.
    fn release(&mut self) {
        for gather in &mut self.gathers {
            let cache = &mut self.tables[gather.table].cache;
            let pinned = gather.slots.drain(..);
            let count = pinned.map(|slot| cache.unpin(slot.unsigned_abs())).count();
            // They will be asked for again.
            self.counts.rows -= count as u64;
            self.counts.hits = self.counts.hits.saturating_sub(count as u64);
            gather.ready = 0;
        }
    }

    fn absorb(&mut self, landed: Vec<Landed<RowTarget>>) {
        for Landed { target, result } in landed {
            for (wanted, at) in self.halves[target.half].end(target.read) {
                let Table { layout, cache, memory } = &mut self.tables[wanted.table];
                match &result {
                    Ok(()) => {
                        let to = wanted.slot as usize * layout.row_bytes;
                        self.staging.copy_to(at, memory, to, layout.row_bytes);
                    }
                    Err(failure) => {
                        self.failures.insert((wanted.table, wanted.slot), failure.clone());
                    }
                }
                cache.complete(wanted.slot, result.is_ok());
            }
        }
    }

    /// Gives back everything that a failed or stopped graph holds. A disk that does not answer is not waited
    /// for: its reads land later.
    pub fn abandon(&mut self) {
        self.gathers.clear();
        let (landed, taken_back) = self.io.quiesce();
        self.absorb(landed);
        for target in taken_back {
            for (wanted, _) in self.halves[target.half].end(target.read) {
                self.tables[wanted.table].cache.complete(wanted.slot, false);
            }
        }
        self.tables.iter_mut().for_each(|table| table.cache.unpin_all());
    }
}

impl Gather {
    fn new(node: usize, table: usize, rows: Vec<u32>) -> Self {
        Self { node, table, rows, done: 0, slots: VecDeque::new(), ready: 0 }
    }

    fn is_done(&self) -> bool {
        self.done == self.rows.len()
    }

    /// Looks how many of its next rows are there.
    fn look(&mut self, cache: &RowCache) {
        let more = self.slots.range(self.ready..);
        self.ready += more.take_while(|slot| cache.is_ready(slot.unsigned_abs())).count();
    }

    /// The slot of its first row that is not there, if that will not come.
    fn failed(&self, cache: &RowCache) -> Option<u32> {
        let slot = self.slots.get(self.ready)?.unsigned_abs();
        cache.has_failed(slot).then_some(slot)
    }
}
