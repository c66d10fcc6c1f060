//! The ring of dense weights for a device that computes with the host's memory: each cell where it is.
//!
//! Invariant: a cell that the device may be computing with is not given to a read; which ones those are is
//! known by events behind each of them.

use hypura_ggml::{Device, DeviceBuffer, DeviceEvent, ExecError, GraphRun, HostMemory, StreamedOp};
use std::collections::VecDeque;
use std::sync::Arc;

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
        Ok(Self { cells, alignment: device.alignment(), launched: VecDeque::new() })
    }

    /// Has the device compute with the weight in a cell, which has landed.
    pub fn launch(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        ring: &ScratchRing,
        cell: usize,
        bytes: usize,
    ) -> Result<(), ExecError> {
        let place = ring.place(cell, bytes).ok_or(StreamError::LostRead)?;
        let start = cell * ring.cell_bytes();
        let mut shift = place.start - start;
        if !shift.is_multiple_of(self.alignment) {
            ring.arena().copy_within(place.start, start, bytes);
            shift = 0;
        }
        let Cell { buffer, computed } = self.cells.get_mut(cell).ok_or(StreamError::LostRead)?;
        let region = buffer.region(shift..shift + bytes).ok_or(StreamError::LostRead)?;
        self.launched.push_back(cell);
        run.run_elsewhere(op, region.into())?;
        if let Some(computed) = computed {
            computed.record_behind(run);
        }
        Ok(())
    }

    /// Waits until the device computes with so many cells at most; returns those that are free again.
    pub fn finish(&mut self, run: &mut GraphRun<'_>, most: usize) -> Vec<usize> {
        let count = self.launched.len().saturating_sub(most);
        let finished: Vec<usize> = self.launched.drain(..count).collect();
        let Some(last) = finished.last().and_then(|cell| self.cells.get(*cell)) else { return finished };
        match &last.computed {
            Some(computed) => computed.wait(),
            None => run.synchronize(),
        }
        finished
    }

    /// Nothing is being computed any more: all of them are free.
    pub fn settle(&mut self) -> Vec<usize> {
        self.launched.drain(..).collect()
    }
}
