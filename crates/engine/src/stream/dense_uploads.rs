//! Dense weights on their way to a device's own memory: a ring of cells there, each filled by an upload
//! behind what computed with it last, and computed with behind a fence. The host does not wait for either; it
//! waits for uploads where the cells that they read are needed for the disk.
//!
//! Invariants: a cell of the host that an upload may still read is lent, and not read into; what is uploaded
//! to a cell of the device waits for the event of whoever computed with it.

use hypura_core::plan::PAGE;
use hypura_ggml::{Bytes, DeviceBuffer, DeviceEvent, ExecError, GraphRun, HostMemory, StreamedOp};
use hypura_storage::{Arena, ArenaError, HugePages, ScopedRead, SourceFile};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::dense_reads::{DenseReads, DenseWeight, Product};
use super::device::DeviceCounts;
use super::slots::ScratchRing;
use super::slots::device::{Source, Uploads};
use crate::error::{LoadError, StreamError};

/// Dense weights that stay in the host's memory, and are uploaded from there.
#[derive(Clone, Default)]
pub(crate) struct KeptWeights {
    memory: Option<Arc<Arena>>,
    /// Where each is, by its index; and what it is.
    places: HashMap<usize, (usize, DenseWeight)>,
}

impl KeptWeights {
    /// Memory for those of `weights` that are `kept`, by their index. Filled by [`Self::reads`].
    ///
    /// # Errors
    /// [`ArenaError`] when the memory is refused.
    pub fn new(weights: &[DenseWeight], kept: &[usize]) -> Result<Self, ArenaError> {
        let (mut end, mut places) = (0, HashMap::new());
        for index in kept {
            let weight = &weights[*index];
            // As far into a page as in the file, so that it is read directly.
            let shift = (weight.offset % PAGE as u64) as usize;
            places.insert(*index, (end + shift, weight.clone()));
            end += (shift + weight.bytes).next_multiple_of(PAGE);
        }
        let memory = if end > 0 { Some(Arena::new(end, HugePages::Try)?) } else { None };
        Ok(Self { memory, places })
    }

    /// What has to be read before anything is computed.
    pub fn reads(&self, files: &[Arc<SourceFile>]) -> Vec<ScopedRead<'_>> {
        let Some(memory) = &self.memory else { return Vec::new() };
        let read = |(at, weight): &(usize, DenseWeight)| {
            let dst = memory.cells().get(*at..*at + weight.bytes)?;
            let file = Arc::clone(files.get(weight.shard)?);
            Some(ScopedRead { file, offset: weight.offset, dst })
        };
        self.places.values().filter_map(read).collect()
    }
}

/// The ring of a device, and where its weights come from.
pub(super) struct UploadRing {
    uploads: Uploads,
    cells: Vec<DeviceCell>,
    /// The next of them.
    next: usize,
    /// The host's cells.
    ring: Arc<dyn HostMemory>,
    /// Cells of the host that uploads may still read.
    lent: Vec<usize>,
    kept: KeptWeights,
    kept_memory: Option<Arc<dyn HostMemory>>,
    /// What kernels find that read a little beyond a weight: it must be a number.
    zeros: Arc<dyn HostMemory>,
    pub counts: DeviceCounts,
}

struct DeviceCell {
    buffer: Arc<DeviceBuffer>,
    /// Behind what computes with it; `None` where the device has no events.
    computed: Option<DeviceEvent>,
}

impl UploadRing {
    /// `cells` cells where `uploads` leads to, as large as those of the host's ring and a page.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when the device has no memory left.
    pub fn new(
        uploads: Uploads,
        ring: &ScratchRing,
        cells: usize,
        kept: KeptWeights,
    ) -> Result<Self, LoadError> {
        let cell = |_| {
            let buffer = uploads.buffer(ring.cell_bytes() + PAGE)?;
            Ok::<_, LoadError>(DeviceCell { buffer, computed: DeviceEvent::new(uploads.device) })
        };
        let cells = (0..cells.max(1)).map(cell).collect::<Result<_, _>>()?;
        let zeros = Arena::new(PAGE, HugePages::No)?;
        zeros.fill(0..PAGE, 0);
        let (ring, zeros) = (Source::of(ring.arena()), Source::of(&zeros));
        let kept_memory = kept.memory.as_ref().map(Source::of);
        let mut uploader = uploads.lock();
        for memory in [&ring, &zeros].into_iter().chain(&kept_memory) {
            // Whatever cannot be read directly goes by a copy of the driver's.
            uploader.import(memory);
        }
        drop(uploader);
        let (lent, counts) = (Vec::new(), DeviceCounts::default());
        Ok(Self { uploads, cells, next: 0, ring, lent, kept, kept_memory, zeros, counts })
    }

    /// How many cells the device has.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Whether a weight comes from the host's memory.
    pub fn is_kept(&self, weight: usize) -> bool {
        self.kept.places.contains_key(&weight)
    }

    /// Has the device compute `nodes`, among them `products`, with weights that are uploaded first.
    pub fn run(
        &mut self,
        reads: &mut DenseReads,
        run: &mut GraphRun<'_>,
        products: &[Product],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        let mut placed = Vec::with_capacity(products.len());
        for (op, weight) in products {
            let cell = self.bring(reads, run, *weight)?;
            placed.push((*op, cell, reads.weights[*weight].bytes));
        }
        self.uploads.lock().fence(run);
        let region = |(op, cell, bytes): &(StreamedOp, usize, usize)| {
            let region = self.cells[*cell].buffer.region(0..*bytes).ok_or(StreamError::LostRead)?;
            Ok((*op, region.into()))
        };
        let bound: Vec<(StreamedOp, Bytes<'_>)> =
            placed.iter().map(region).collect::<Result<_, ExecError>>()?;
        let begun = Instant::now();
        let outcome = run.run_products(&bound, nodes);
        self.counts.launch += begun.elapsed();
        for (_, cell, _) in placed {
            if let Some(computed) = &mut self.cells[cell].computed {
                computed.record_behind(run);
            }
        }
        outcome
    }

    /// Uploads a weight, once it is in the host's memory; returns its cell.
    fn bring(
        &mut self,
        reads: &mut DenseReads,
        run: &mut GraphRun<'_>,
        weight: usize,
    ) -> Result<usize, ExecError> {
        let bytes = reads.weights[weight].bytes;
        if let (Some((at, _)), Some(memory)) = (self.kept.places.get(&weight), &self.kept_memory) {
            return self.upload(run, &Arc::clone(memory), *at..*at + bytes);
        }
        // Two cells at least are for the disk.
        if !self.lent.is_empty() && self.lent.len() + 3 > reads.cells.count() {
            let begun = Instant::now();
            reads.free(self.finish_uploads());
            self.counts.note_wait(begun.elapsed());
        }
        let cell = reads.landed(weight)?;
        let place = reads.place(weight, cell)?;
        self.lent.push(cell);
        self.upload(run, &Arc::clone(&self.ring), place)
    }

    fn upload(
        &mut self,
        run: &mut GraphRun<'_>,
        source: &Arc<dyn HostMemory>,
        place: Range<usize>,
    ) -> Result<usize, ExecError> {
        let (cell, bytes) = (self.next, place.len());
        self.next = (self.next + 1) % self.cells.len();
        let DeviceCell { buffer, computed } = &self.cells[cell];
        let begun = Instant::now();
        let mut uploader = self.uploads.lock();
        match computed {
            Some(computed) => uploader.hold(computed),
            None => run.synchronize(),
        }
        uploader.upload(source, place, buffer, 0)?;
        uploader.upload(&self.zeros, 0..PAGE, buffer, bytes)?;
        drop(uploader);
        self.counts.note_upload(bytes, begun.elapsed());
        Ok(cell)
    }

    /// Waits until everything is uploaded; returns the cells of the host that are free again.
    fn finish_uploads(&mut self) -> Vec<usize> {
        self.uploads.lock().wait();
        std::mem::take(&mut self.lent)
    }

    /// Nothing is being computed any more: waits for uploads, and returns the cells of the host that are free
    /// again.
    pub fn settle(&mut self) -> Vec<usize> {
        self.uploads.lock().settle();
        self.cells.iter().filter_map(|cell| cell.computed.as_ref()).for_each(DeviceEvent::wait);
        std::mem::take(&mut self.lent)
    }
}
