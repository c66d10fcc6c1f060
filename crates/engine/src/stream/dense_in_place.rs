//! The ring of dense weights for a device that computes with the host's memory: each cell where it is.
//!
//! Invariant: a cell that the device may be computing with is not given to a read; which ones those are is
//! known by events behind each of them.

use hypura_ggml::{Bytes, Device, DeviceBuffer, DeviceEvent, ExecError, GraphRun, HostMemory, StreamedOp};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::dense_reads::{DenseReads, Product};
use super::device::DeviceCounts;
use super::slots::ScratchRing;
use super::slots::device::Source;
use crate::error::{LoadError, StreamError};

/// The cells of a ring as a device sees them.
pub(super) struct InPlaceRing {
    cells: Vec<Cell>,
    /// Weights begin at a multiple of this.
    alignment: usize,
    /// Cells that the device may be computing with, in order.
    launched: VecDeque<usize>,
    pub counts: DeviceCounts,
}

struct Cell {
    buffer: DeviceBuffer,
    /// Behind what computes with it; `None` where the device has no events.
    computed: Option<DeviceEvent>,
}

impl InPlaceRing {
    /// # Errors
    /// [`LoadError::Ggml`] when the device refuses.
    pub fn new(device: Device, ring: &ScratchRing) -> Result<Self, LoadError> {
        let memory: Arc<dyn HostMemory> = Source::of(ring.arena());
        let cell = |cell: usize| {
            let start = cell * ring.cell_bytes();
            let buffer = DeviceBuffer::over(device, &memory, start..start + ring.cell_bytes())?;
            Ok::<_, LoadError>(Cell { buffer, computed: DeviceEvent::new(device) })
        };
        let cells = (0..ring.count()).map(cell).collect::<Result<_, _>>()?;
        let (launched, counts) = (VecDeque::new(), DeviceCounts::default());
        Ok(Self { cells, alignment: device.alignment(), launched, counts })
    }

    /// Has the device compute `nodes`, among them `products`, with weights in the cells that they land in.
    pub fn run(
        &mut self,
        reads: &mut DenseReads,
        run: &mut GraphRun<'_>,
        products: &[Product],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        // The others land and are read meanwhile.
        let most = reads.cells.count().saturating_sub(products.len() + 1);
        reads.free(self.finish(run, most));
        let mut placed = Vec::with_capacity(products.len());
        for (op, weight) in products {
            let cell = reads.landed(*weight)?;
            placed.push((*op, cell, self.align(reads, *weight, cell)?));
        }
        let region = |(op, cell, range): &(StreamedOp, usize, Range<usize>)| {
            let cell = self.cells.get(*cell).ok_or(StreamError::LostRead)?;
            Ok((*op, cell.buffer.region(range.clone()).ok_or(StreamError::LostRead)?.into()))
        };
        let bound: Vec<(StreamedOp, Bytes<'_>)> =
            placed.iter().map(region).collect::<Result<_, ExecError>>()?;
        let begun = Instant::now();
        let outcome = run.run_products(&bound, nodes);
        self.counts.launch += begun.elapsed();
        for (_, cell, _) in placed {
            self.launched.push_back(cell);
            if let Some(computed) = &mut self.cells[cell].computed {
                computed.record_behind(run);
            }
        }
        outcome
    }

    /// Where a weight begins and ends in its cell; it is moved where the device could not compute with it.
    fn align(&self, reads: &DenseReads, weight: usize, cell: usize) -> Result<Range<usize>, ExecError> {
        let (place, start) = (reads.place(weight, cell)?, cell * reads.cells.cell_bytes());
        let shift = place.start - start;
        if shift.is_multiple_of(self.alignment) {
            return Ok(shift..shift + place.len());
        }
        reads.cells.arena().copy_within(place.start, start, place.len());
        Ok(0..place.len())
    }

    /// Waits until the device computes with so many cells at most; returns those that are free again.
    fn finish(&mut self, run: &mut GraphRun<'_>, most: usize) -> Vec<usize> {
        let count = self.launched.len().saturating_sub(most);
        let finished: Vec<usize> = self.launched.drain(..count).collect();
        let Some(last) = finished.last().and_then(|cell| self.cells.get(*cell)) else { return finished };
        let begun = Instant::now();
        match &last.computed {
            Some(computed) => computed.wait(),
            None => run.synchronize(),
        }
        self.counts.note_wait(begun.elapsed());
        finished
    }

    /// Nothing is being computed any more: all of them are free.
    pub fn settle(&mut self) -> Vec<usize> {
        self.cells.iter().filter_map(|cell| cell.computed.as_ref()).for_each(DeviceEvent::wait);
        self.launched.drain(..).collect()
    }
}
