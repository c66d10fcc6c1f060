//! The reads of dense weights: into a ring of cells of the host, in the order of use.
//!
//! A forward pass uses its weights in the same order every time, so what comes next is always known, also
//! across the end of a token: whenever a cell is free, the next weight of the cycle is read into it. The disk
//! is never idle while there is a free cell. A least-recently-used cache would hit nothing here, so there is
//! none: the plan keeps a fixed share of the weights in memory instead, and this file never reads those.

use hypura_core::plan::PartRead;
use hypura_ggml::{ExecError, StreamedOp};
use hypura_storage::Priority;
use std::collections::VecDeque;
use std::ops::Range;

use super::io::{Io, Landed, TargetedRead};
use super::slots::ScratchRing;
use crate::error::StreamError;

/// A streamed dense weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DenseWeight {
    pub tensor: String,
    pub shard: usize,
    pub offset: u64,
    pub bytes: usize,
}

impl DenseWeight {
    fn read(&self) -> PartRead {
        PartRead::around(self.offset, self.bytes)
    }
}

/// A product with a streamed weight: the node, and the index of the weight.
pub(super) type Product = (StreamedOp, usize);

/// Which cell a read fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    cell: usize,
    shift: usize,
}

/// A ring of cells, and what is read into it.
pub(super) struct DenseReads {
    pub weights: Vec<DenseWeight>,
    pub cells: ScratchRing,
    pub io: Io<Target>,
    /// The order of use, as the last step had it: the cycle that is read ahead.
    order: Vec<usize>,
    /// How much of it the graphs of the step in progress have named.
    named: usize,
    /// Index into `order` of the next weight to read.
    next: usize,
    /// Weights being read or waiting to be used, in order: (weight, cell).
    window: VecDeque<(usize, usize)>,
}

impl DenseReads {
    pub fn new(weights: Vec<DenseWeight>, cells: ScratchRing, io: Io<Target>) -> Self {
        Self { weights, cells, io, order: Vec::new(), named: 0, next: 0, window: VecDeque::new() }
    }

    /// A step begins.
    pub fn begin_step(&mut self) {
        self.named = 0;
    }

    /// Whether what was read ahead is what a graph needs that uses these weights in this order, which it is
    /// from token to token.
    pub fn is_ahead_of(&self, weights: &[usize]) -> bool {
        self.order.get(self.named..self.named + weights.len()) == Some(weights)
    }

    /// The order is another one from here on. All cells are free.
    pub fn change_order(&mut self, weights: &[usize]) {
        self.order.truncate(self.named);
        self.order.extend_from_slice(weights);
        self.next = self.named;
    }

    /// A graph has named so many weights.
    pub fn begin_graph(&mut self, weights: usize) {
        self.named += weights;
        self.fill();
    }

    /// Whether the step that ended used fewer weights than the last: then the order is another one.
    pub fn is_shorter(&self) -> bool {
        self.named > 0 && self.named < self.order.len()
    }

    /// The order ends where the step did. All cells are free.
    pub fn cut_order(&mut self) {
        self.order.truncate(self.named);
    }

    /// Whether a weight is the next in the ring.
    pub fn is_next(&self, weight: usize) -> bool {
        self.window.front().is_some_and(|(first, _)| *first == weight)
    }

    /// A graph skipped a weight: the cycle starts again from this one. All cells are free.
    pub fn restart_at(&mut self, weight: usize) {
        self.next = self.order.iter().position(|entry| *entry == weight).unwrap_or(0);
        self.fill();
    }

    /// Waits until a weight has landed, which is the next in the ring; returns its cell, which is then its
    /// user's.
    pub fn landed(&mut self, weight: usize) -> Result<usize, ExecError> {
        let cell = self.front(weight)?;
        while !self.cells.ready(cell) {
            // Only of the weight that is needed now: whoever needs another one finds its failure then.
            if let Some(failure) = self.cells.failure(cell) {
                return Err(StreamError::Read(failure.clone()).into());
            }
            let landed = self.io.wait()?;
            self.absorb(landed);
        }
        self.window.pop_front();
        Ok(cell)
    }

    /// Where a weight that has landed is in the memory of the cells.
    pub fn place(&self, weight: usize, cell: usize) -> Result<Range<usize>, ExecError> {
        Ok(self.cells.place(cell, self.weights[weight].bytes).ok_or(StreamError::LostRead)?)
    }

    /// Nothing uses these cells any more: the next weights are read into them.
    pub fn free(&mut self, cells: impl IntoIterator<Item = usize>) {
        self.release(cells);
        self.fill();
    }

    /// Nothing uses these cells any more.
    pub fn release(&mut self, cells: impl IntoIterator<Item = usize>) {
        for cell in cells {
            self.cells.free(cell);
        }
    }

    /// Takes what has landed meanwhile.
    pub fn poll(&mut self) {
        let landed = self.io.poll();
        self.absorb(landed);
    }

    /// The cell of the weight that is used next.
    fn front(&mut self, weight: usize) -> Result<usize, ExecError> {
        loop {
            match self.window.front() {
                Some((first, cell)) if *first == weight => return Ok(*cell),
                Some(_) => return Err(StreamError::LostRead.into()),
                // A stopped graph left all cells to a disk that hung.
                None => {
                    let landed = self.io.wait()?;
                    self.absorb(landed);
                    self.fill();
                }
            }
        }
    }

    /// Reads the next weights of the cycle into all free cells.
    pub fn fill(&mut self) {
        if self.order.is_empty() {
            return;
        }
        let mut reads = Vec::new();
        // A weight that is in the window already would wait for itself.
        while self.window.len() < self.order.len() {
            let weight = self.order[self.next];
            let Some((cell, memory, at)) = self.cells.take() else { break };
            self.next = (self.next + 1) % self.order.len();
            self.window.push_back((weight, cell));
            let layout = &self.weights[weight];
            let read = layout.read();
            let target = Target { cell, shift: read.required - layout.bytes };
            reads.push(TargetedRead {
                target,
                shard: layout.shard,
                read,
                memory,
                at,
                priority: Priority::Demand,
            });
        }
        self.io.submit(reads);
    }

    fn absorb(&mut self, landed: Vec<Landed<Target>>) {
        for Landed { target, result } in landed {
            match result {
                Ok(()) => self.cells.land(target.cell, target.shift),
                Err(failure) => self.cells.fail(target.cell, failure),
            }
        }
    }

    /// Waits for all reads, as long as the disk answers, and empties the ring; nothing is being computed with
    /// it. After a failure, a stop, or a change of order.
    pub fn reset(&mut self) {
        let (landed, taken_back) = self.io.quiesce();
        for Landed { target, .. } in landed {
            self.cells.land(target.cell, target.shift);
        }
        taken_back.iter().for_each(|target| self.cells.give_up(target.cell));
        self.window.clear();
        self.next = 0;
        self.cells.free_all();
    }
}
