//! Streaming of dense weights through a ring.
//!
//! A forward pass uses its weights in the same order every time, so what comes next is always known, also across the
//! end of a token: whenever a cell is free, the next weight of the cycle is read into it. The disk is never idle while
//! there is a free cell. A least-recently-used cache would hit nothing here, so there is none: the plan keeps a fixed
//! share of the weights resident instead, and this file never sees those.

use hypura_core::plan::PartRead;
use hypura_ggml::{ExecError, GraphRun, StreamedOp};
use hypura_storage::{Priority, ReadError};
use std::collections::VecDeque;

use super::io::{Io, Landed, Wish};
use super::slab::Cells;
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

/// Which cell a read fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    cell: usize,
    shift: usize,
}

/// Streams the dense weights of one context.
pub(crate) struct DenseStreamer {
    weights: Vec<DenseWeight>,
    cells: Cells,
    io: Io<Target>,
    /// The order of use, as the last graph had it.
    order: Vec<usize>,
    /// Index into `order` of the next weight to read.
    next: usize,
    /// Weights being read or waiting to be used, in order: (weight, cell).
    window: VecDeque<(usize, usize)>,
    failure: Option<ReadError>,
    pub used: u64,
}

impl DenseStreamer {
    /// Every cell must have room for the largest weight and the page around its beginning.
    pub fn new(weights: Vec<DenseWeight>, cells: Cells, io: Io<Target>) -> Self {
        Self {
            weights,
            cells,
            io,
            order: Vec::new(),
            next: 0,
            window: VecDeque::new(),
            failure: None,
            used: 0,
        }
    }

    pub fn weights(&self) -> &[DenseWeight] {
        &self.weights
    }

    pub fn io(&self) -> &Io<Target> {
        &self.io
    }

    /// Cells that hold a weight or wait for one.
    pub fn cells_in_use(&self) -> usize {
        self.cells.in_use()
    }

    /// A graph begins that uses these weights in this order. Reads started in an earlier graph stay valid when the
    /// order is the same, which it is from token to token.
    pub fn begin_graph(&mut self, order: Vec<usize>) {
        if self.order != order {
            self.reset();
            self.order = order;
        }
        self.feed();
    }

    /// Runs one `MUL_MAT` with its streamed weight.
    pub fn run_op(&mut self, run: &mut GraphRun<'_>, op: StreamedOp, weight: usize) -> Result<(), ExecError> {
        if self.window.front().map(|(first, _)| *first) != Some(weight) {
            // A graph that skipped a weight: start the cycle again from here.
            self.reset();
            self.next = self.order.iter().position(|entry| *entry == weight).unwrap_or(0);
            self.feed();
        }
        let cell = self.front(weight)?;
        while !self.cells.ready(cell) {
            let landed = self.io.wait()?;
            self.absorb(landed)?;
        }
        let bytes = self.weights[weight].bytes;
        let binding = self.cells.slice(cell, bytes).ok_or(StreamError::LostRead)?;
        run.run_dense(op, binding.memory)?;
        self.used += 1;
        self.window.pop_front();
        self.cells.free(cell);
        self.feed();
        let landed = self.io.poll();
        self.absorb(landed)
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
                    self.absorb(landed)?;
                    self.feed();
                }
            }
        }
    }

    /// Reads the next weights of the cycle into all free cells.
    fn feed(&mut self) {
        if self.order.is_empty() {
            return;
        }
        let mut wishes = Vec::new();
        // A weight that is in the window already would wait for itself.
        while self.window.len() < self.order.len() {
            let weight = self.order[self.next];
            let Some((cell, memory, at)) = self.cells.take() else { break };
            self.next = (self.next + 1) % self.order.len();
            self.window.push_back((weight, cell));
            let layout = &self.weights[weight];
            let read = layout.read();
            let target = Target { cell, shift: read.required - layout.bytes };
            wishes.push(Wish { target, shard: layout.shard, read, memory, at, priority: Priority::Demand });
        }
        self.io.submit(wishes);
    }

    fn absorb(&mut self, landed: Vec<Landed<Target>>) -> Result<(), ExecError> {
        for Landed { target, result } in landed {
            match result {
                Ok(()) => self.cells.land(target.cell, target.shift),
                Err(failure) => {
                    if self.cells.fail(target.cell) {
                        super::slab::keep_first(&mut self.failure, failure);
                    }
                }
            }
        }
        match self.failure.take() {
            Some(failure) => Err(StreamError::Read(failure).into()),
            None => Ok(()),
        }
    }

    /// Waits for all reads, as long as the disk answers, and empties the ring: after a failure, a stop, or a change of order.
    pub fn reset(&mut self) {
        let (landed, taken_back) = self.io.quiesce();
        for Landed { target, .. } in landed {
            self.cells.land(target.cell, target.shift);
        }
        taken_back.iter().for_each(|target| self.cells.give_up(target.cell));
        self.failure = None;
        self.window.clear();
        self.next = 0;
        for cell in 0..self.cells.count() {
            self.cells.free(cell);
        }
    }
}
