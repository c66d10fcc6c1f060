//! Streaming of dense weights: `dense_reads` reads them in the order of use; here they are computed with, on
//! the host in its cells, on a device that reads those cells by itself (`dense_in_place`), or on one that
//! copies are uploaded to (`dense_uploads`).
//!
//! A device computes in groups: products of one input, and all nodes up to the next group, are one call, so
//! that nothing that a backend computes as one is divided. The host waits for it only where cells run out.

use hypura_ggml::{Device, ExecError, GraphRun, ProductGroup, StreamedOp};
use std::ops::Range;

use super::dense_in_place::InPlaceRing;
use super::dense_reads::{DenseReads, Product};
pub(crate) use super::dense_reads::{DenseWeight, Target};
pub(crate) use super::dense_uploads::KeptWeights;
use super::dense_uploads::UploadRing;
use super::device::DeviceCounts;
use super::io::Io;
use super::slots::ScratchRing;
use super::slots::device::Uploads;
use super::stats::StreamStats;
use crate::error::{LoadError, StreamError};

/// Who computes with the weights.
enum Home {
    /// The host, in its cells.
    Host,
    /// A device, with copies of them.
    Uploads(UploadRing),
    /// A device, in the host's cells.
    InPlace(InPlaceRing),
}

/// Streams the dense weights of one context.
pub(crate) struct DenseStreamer {
    reads: DenseReads,
    home: Home,
    used: u64,
}

impl DenseStreamer {
    /// Every cell must have room for the largest weight and the page around its beginning.
    pub fn new(weights: Vec<DenseWeight>, cells: ScratchRing, io: Io<Target>) -> Self {
        Self { reads: DenseReads::new(weights, cells, io), home: Home::Host, used: 0 }
    }

    /// Has the weights computed with on the device that `uploads` leads to, in `cells` cells there. Those
    /// that are `kept` come from the host's memory.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it has no memory left.
    pub fn on_device(self, uploads: Uploads, cells: usize, kept: KeptWeights) -> Result<Self, LoadError> {
        let ring = UploadRing::new(uploads, &self.reads.cells, cells, kept)?;
        Ok(Self { home: Home::Uploads(ring), ..self })
    }

    /// Has the weights computed with on a device, in the cells that they were read into.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when it refuses to read them there.
    pub fn in_place(self, device: Device) -> Result<Self, LoadError> {
        let ring = InPlaceRing::new(device, &self.reads.cells)?;
        Ok(Self { home: Home::InPlace(ring), ..self })
    }

    pub fn weights(&self) -> &[DenseWeight] {
        &self.reads.weights
    }

    pub fn io(&self) -> &Io<Target> {
        &self.reads.io
    }

    /// Cells that hold a weight or wait for one.
    pub fn cells_in_use(&self) -> usize {
        self.reads.cells.in_use()
    }

    /// Adds what was done to counters.
    pub fn count_into(&self, stats: &mut StreamStats) {
        stats.dense_weights = self.used;
        stats.bytes_read += self.reads.io.device_bytes();
        stats.disk_busy += self.reads.io.disk_busy();
        stats.read_stall += self.reads.io.stall();
        if let Some(DeviceCounts { uploaded_bytes, waits, wait, upload, launch, .. }) = self.device_counts() {
            stats.uploaded_bytes += uploaded_bytes;
            stats.device_waits += waits;
            stats.device_wait += wait;
            stats.device_upload += upload;
            stats.device_launch += launch;
        }
    }

    /// What a device did; `None` where the host computes.
    fn device_counts(&self) -> Option<DeviceCounts> {
        match &self.home {
            Home::Host => None,
            Home::Uploads(ring) => Some(ring.counts),
            Home::InPlace(ring) => Some(ring.counts),
        }
    }

    /// A step begins.
    pub fn begin_step(&mut self) {
        self.reads.begin_step();
    }

    /// A graph of the step begins that uses these weights in this order. Reads started in an earlier step
    /// stay valid where the order is the same, which it is from token to token.
    pub fn begin_graph(&mut self, run: &mut GraphRun<'_>, weights: &[usize]) {
        let from_disk: Vec<usize> = weights.iter().copied().filter(|weight| !self.is_kept(*weight)).collect();
        if from_disk.is_empty() {
            return;
        }
        if !self.reads.is_ahead_of(&from_disk) {
            run.synchronize();
            self.reset();
            self.reads.change_order(&from_disk);
        }
        self.reads.begin_graph(from_disk.len());
    }

    fn is_kept(&self, weight: usize) -> bool {
        matches!(&self.home, Home::Uploads(ring) if ring.is_kept(weight))
    }

    /// The step has ended, and nothing of it is being computed any more. One that used fewer weights than the
    /// last has another order.
    pub fn end_step(&mut self, ok: bool) {
        self.settle();
        if ok && self.reads.is_shorter() {
            self.reset();
            self.reads.cut_order();
        } else if ok {
            self.reads.fill();
        }
    }

    /// Nothing is being computed any more: the cells of what was launched are free.
    fn settle(&mut self) {
        let free = match &mut self.home {
            Home::Host => Vec::new(),
            Home::Uploads(ring) => ring.settle(),
            Home::InPlace(ring) => ring.settle(),
        };
        self.reads.release(free);
    }

    /// Runs one product with its streamed weight.
    pub fn run_op(&mut self, run: &mut GraphRun<'_>, op: StreamedOp, weight: usize) -> Result<(), ExecError> {
        self.run_group(run, &[(op, weight)], op.node..op.node + 1)
    }

    /// Has a device compute a whole graph, in groups.
    pub fn run_graph(&mut self, run: &mut GraphRun<'_>, products: &[Product]) -> Result<(), ExecError> {
        let ops: Vec<StreamedOp> = products.iter().map(|(op, _)| *op).collect();
        let groups = run.graph().product_groups(&ops, self.most_in_a_group());
        if groups.is_empty() {
            return run.run(0..run.graph().len());
        }
        for ProductGroup { ops, nodes } in groups {
            self.run_group(run, &products[ops], nodes)?;
        }
        Ok(())
    }

    /// Products in one call, so that others can be read and uploaded meanwhile.
    fn most_in_a_group(&self) -> usize {
        let cells = match &self.home {
            Home::Uploads(ring) => ring.cells(),
            Home::Host | Home::InPlace(_) => self.reads.cells.count(),
        };
        cells.saturating_sub(2).max(1)
    }

    /// Runs `nodes`, among them `products`.
    fn run_group(
        &mut self,
        run: &mut GraphRun<'_>,
        products: &[Product],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        self.reads.io.ensure_wanted()?;
        let first = products.iter().map(|(_, weight)| *weight).find(|weight| !self.is_kept(*weight));
        if let Some(weight) = first.filter(|weight| !self.reads.is_next(*weight)) {
            // A graph that skipped a weight, or cells that nobody had room for.
            self.make_room(run, weight);
        }
        match &mut self.home {
            Home::Host => run_on_host(&mut self.reads, run, products)?,
            Home::Uploads(ring) => ring.run(&mut self.reads, run, products, nodes)?,
            Home::InPlace(ring) => ring.run(&mut self.reads, run, products, nodes)?,
        }
        self.used += products.len() as u64;
        self.reads.poll();
        Ok(())
    }

    /// The next weight in the ring is not the one that is needed: the cycle starts again from there.
    fn make_room(&mut self, run: &mut GraphRun<'_>, weight: usize) {
        run.synchronize();
        self.reset();
        self.reads.restart_at(weight);
    }

    /// Waits for all reads, as long as the disk answers, and empties the ring; nothing is being computed with
    /// it. After a failure, a stop, or a change of order.
    pub fn reset(&mut self) {
        self.settle();
        self.reads.reset();
    }
}

/// The host computes with the cell itself.
fn run_on_host(
    reads: &mut DenseReads,
    run: &mut GraphRun<'_>,
    products: &[Product],
) -> Result<(), ExecError> {
    for (op, weight) in products {
        let cell = reads.landed(*weight)?;
        let bytes = reads.weights[*weight].bytes;
        let binding = reads.cells.slice(cell, bytes).ok_or(StreamError::LostRead)?;
        run.run_elsewhere(*op, binding.memory)?;
        reads.free([cell]);
    }
    Ok(())
}
