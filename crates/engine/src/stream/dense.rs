//! Streaming of dense weights through a ring.
//!
//! A forward pass uses its weights in the same order every time, so what comes next is always known, also
//! across the end of a token: whenever a cell is free, the next weight of the cycle is read into it. The disk
//! is never idle while there is a free cell. A least-recently-used cache would hit nothing here, so there is
//! none: the plan keeps a fixed share of the weights resident instead, and this file never sees those.

use hypura_core::plan::PartRead;
use hypura_ggml::{Bytes, Device, DeviceBuffer, ExecError, GraphRun, HostMemory, StreamedOp};
use hypura_storage::Priority;
use std::collections::VecDeque;
use std::sync::Arc;

use super::dense_in_place::InPlaceRing;
use super::io::{Io, Landed, TargetedRead};
use super::slots::ScratchRing;
use super::slots::device::{Source, Uploads};
use crate::error::{LoadError, StreamError};

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

/// The ring of a device: as many cells as there are on the host, which reads land in.
struct DeviceRing {
    uploads: Uploads,
    source: Arc<dyn HostMemory>,
    buffer: Arc<DeviceBuffer>,
    /// Cells that the device may be computing with.
    launched: Vec<usize>,
}

/// Streams the dense weights of one context.
pub(crate) struct DenseStreamer {
    weights: Vec<DenseWeight>,
    cells: ScratchRing,
    io: Io<Target>,
    /// A device that computes with copies of the cells.
    device: Option<DeviceRing>,
    /// One that computes with the cells themselves.
    in_place: Option<InPlaceRing>,
    /// The order of use, as the last step had it: the cycle that is read ahead.
    order: Vec<usize>,
    /// How much of it the graphs of the step in progress have named.
    named: usize,
    /// Index into `order` of the next weight to read.
    next: usize,
    /// Weights being read or waiting to be used, in order: (weight, cell).
    window: VecDeque<(usize, usize)>,
    pub used: u64,
}

impl DenseStreamer {
    /// Every cell must have room for the largest weight and the page around its beginning.
    pub fn new(weights: Vec<DenseWeight>, cells: ScratchRing, io: Io<Target>) -> Self {
        let (order, window) = (Vec::new(), VecDeque::new());
        Self { weights, cells, io, device: None, in_place: None, order, named: 0, next: 0, window, used: 0 }
    }

    /// Has the weights computed with on the device that `uploads` leads to.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it has no memory left.
    pub fn on_device(self, uploads: Uploads) -> Result<Self, LoadError> {
        let source: Arc<dyn HostMemory> = Arc::new(Source(Arc::clone(self.cells.arena())));
        let bytes = self.cells.count() * self.cells.cell_bytes();
        let buffer = Arc::new(DeviceBuffer::new(uploads.device, bytes)?);
        Ok(Self { device: Some(DeviceRing { uploads, source, buffer, launched: Vec::new() }), ..self })
    }

    /// Has the weights computed with on a device, in the cells that they were read into.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it refuses to read them there.
    pub fn in_place(self, device: Device) -> Result<Self, LoadError> {
        let ring = InPlaceRing::new(device, &self.cells)?;
        Ok(Self { in_place: Some(ring), ..self })
    }

    /// Nothing is being computed any more: the cells of what was launched are free.
    fn settle(&mut self) {
        for cell in self.in_place.as_mut().map(InPlaceRing::settle).unwrap_or_default() {
            self.cells.free(cell);
        }
        let Some(device) = &mut self.device else { return };
        for cell in std::mem::take(&mut device.launched) {
            self.cells.free(cell);
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

    /// A step begins.
    pub fn begin_step(&mut self) {
        self.named = 0;
    }

    /// A graph of the step begins that uses these weights in this order. Reads started in an earlier step
    /// stay valid where the order is the same, which it is from token to token.
    pub fn begin_graph(&mut self, run: &mut GraphRun<'_>, weights: &[usize]) {
        if weights.is_empty() {
            return;
        }
        let named = self.named + weights.len();
        if self.order.get(self.named..named) != Some(weights) {
            run.synchronize();
            self.reset();
            self.order.truncate(self.named);
            self.order.extend_from_slice(weights);
            self.next = self.named;
        }
        self.named = named;
        self.fill_ring();
    }

    /// The step has ended, and nothing of it is being computed any more. One that used fewer weights than the
    /// last has another order.
    pub fn end_step(&mut self, ok: bool) {
        self.settle();
        if ok && self.named > 0 && self.named < self.order.len() {
            self.reset();
            self.order.truncate(self.named);
        }
    }

    /// Runs one `MUL_MAT` with its streamed weight.
    pub fn run_op(&mut self, run: &mut GraphRun<'_>, op: StreamedOp, weight: usize) -> Result<(), ExecError> {
        if self.window.front().map(|(first, _)| *first) != Some(weight) {
            // A graph that skipped a weight: start the cycle again from here.
            run.synchronize();
            self.reset();
            self.next = self.order.iter().position(|entry| *entry == weight).unwrap_or(0);
            self.fill_ring();
        }
        let cell = self.front(weight)?;
        while !self.cells.ready(cell) {
            // Only of the weight that is needed now: whoever needs another one finds its failure then.
            if let Some(failure) = self.cells.failure(cell) {
                return Err(StreamError::Read(failure.clone()).into());
            }
            let landed = self.io.wait()?;
            self.absorb(landed);
        }
        let bytes = self.weights[weight].bytes;
        self.window.pop_front();
        if self.device.is_some() {
            self.launch(run, op, cell, bytes)?;
        } else if let Some(ring) = &mut self.in_place {
            ring.launch(run, op, &self.cells, cell, bytes)?;
            // One cell landed and one at the disk, while the device computes with the others.
            for cell in ring.finish(run, self.cells.count().saturating_sub(2).max(1)) {
                self.cells.free(cell);
            }
        } else {
            let binding = self.cells.slice(cell, bytes).ok_or(StreamError::LostRead)?;
            run.run_elsewhere(op, binding.memory)?;
            self.cells.free(cell);
        }
        self.used += 1;
        self.fill_ring();
        let landed = self.io.poll();
        self.absorb(landed);
        Ok(())
    }

    /// Brings a weight that has landed to the device and has it computed with. Half of the ring may be under
    /// way there.
    fn launch(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        cell: usize,
        bytes: usize,
    ) -> Result<(), ExecError> {
        let place = self.cells.place(cell, bytes).ok_or(StreamError::LostRead)?;
        let device = self.device.as_mut().ok_or(StreamError::LostRead)?;
        // On the device slices begin where their cell does: kernels want them aligned.
        let at = cell * self.cells.cell_bytes();
        let mut uploader = device.uploads.lock();
        uploader.upload(&device.source, place, &device.buffer, at)?;
        uploader.fence(run);
        drop(uploader);
        let region = device.buffer.region(at..at + bytes).ok_or(StreamError::LostRead)?;
        device.launched.push(cell);
        run.run_elsewhere(op, Bytes::Device(region))?;
        if device.launched.len() * 2 >= self.cells.count() {
            run.synchronize();
            self.settle();
        }
        Ok(())
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
                    self.fill_ring();
                }
            }
        }
    }

    /// Reads the next weights of the cycle into all free cells.
    fn fill_ring(&mut self) {
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
                Err(failure) => {
                    self.cells.fail(target.cell, failure);
                }
            }
        }
    }

    /// Waits for all reads, as long as the disk answers, and empties the ring; nothing is being computed with
    /// it. After a failure, a stop, or a change of order.
    pub fn reset(&mut self) {
        if let Some(device) = &mut self.device {
            device.launched.clear();
            device.uploads.lock().wait();
        }
        if let Some(ring) = &mut self.in_place {
            ring.settle();
        }
        let (landed, taken_back) = self.io.quiesce();
        for Landed { target, .. } in landed {
            self.cells.land(target.cell, target.shift);
        }
        taken_back.iter().for_each(|target| self.cells.give_up(target.cell));
        self.window.clear();
        self.next = 0;
        for cell in 0..self.cells.count() {
            self.cells.free(cell);
        }
    }
}
