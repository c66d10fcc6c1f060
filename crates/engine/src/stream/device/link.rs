//! The way between the host's memory and a device's: parts of experts there, back, and within the device.
//!
//! Where something goes, or is, in the device's memory is a buffer and an offset in bytes.

use hypura_core::cache::SlotId;
use hypura_ggml::{DeviceBuffer, ExecError, GraphRun, HostMemory};
use std::sync::Arc;

use crate::stream::expert_slots::ExpertSlots;
use crate::stream::slots::device::{Source, Uploads};
use crate::stream::target::no_slots;

/// A place in a device's memory.
pub(super) type Room<'a> = (&'a Arc<DeviceBuffer>, usize);

/// Copies between the host's slots and cells and a device. Each copy returns its bytes.
pub(super) struct Link {
    uploads: Uploads,
    /// The memory of throwaway cells.
    cells: Arc<dyn HostMemory>,
    /// The memory of the host's slots; `None` without any.
    slots: Option<Arc<dyn HostMemory>>,
    /// Whether the device reads the host's slots by itself: then their pages must stay.
    pub imports: bool,
}

impl Link {
    pub fn new(uploads: Uploads, host: &ExpertSlots) -> Self {
        let (cells, slots) = (Source::of(host.cells.arena()), host.memory().map(Source::of));
        let mut uploader = uploads.lock();
        let imports = slots.as_ref().is_some_and(|slots| uploader.import(slots));
        uploader.import(&cells);
        drop(uploader);
        Self { uploads, cells, slots, imports }
    }

    /// Opens the way back, and says whether the device may write to the host's slots.
    pub fn takes_back(&self) -> bool {
        self.slots.as_ref().is_some_and(|slots| self.uploads.lock().may_download_to(slots))
    }

    /// Has a part of an expert in a cell of the host copied to the device.
    pub fn upload_cell(
        &self,
        slots: &ExpertSlots,
        cell: usize,
        bytes: usize,
        (to, at): Room<'_>,
    ) -> Result<usize, ExecError> {
        let from = slots.cells.place(cell, bytes).ok_or_else(no_slots)?;
        self.uploads.lock().upload(&self.cells, from, to, at)?;
        Ok(bytes)
    }

    /// Has a part of an expert of a layer, in a slot of the host, copied to the device.
    pub fn upload_slot(
        &self,
        slots: &mut ExpertSlots,
        (layer, part): (usize, usize),
        slot: SlotId,
        (to, at): Room<'_>,
    ) -> Result<usize, ExecError> {
        let of = &slots.layout.layers[layer];
        let from = slots.pool(layer).place(slot, &of.parts[part]).ok_or_else(no_slots)?;
        let source = self.slots.as_ref().ok_or_else(no_slots)?;
        let bytes = from.len();
        self.uploads.lock().upload(source, from, to, at)?;
        if let Some(lent) = &mut slots.lent {
            lent.lend(of.class, slot);
        }
        Ok(bytes)
    }

    /// Has a part of an expert of a layer copied from the device to a slot of the host.
    pub fn download(
        &self,
        slots: &ExpertSlots,
        (layer, part): (usize, usize),
        (from, at): Room<'_>,
        slot: SlotId,
    ) -> Result<usize, ExecError> {
        let to = slots.pool(layer).place(slot, &slots.layout.layers[layer].parts[part]);
        let (to, host) = to.zip(self.slots.as_ref()).ok_or_else(no_slots)?;
        let bytes = to.len();
        self.uploads.lock().download(from, at, host, to)?;
        Ok(bytes)
    }

    /// Has bytes copied within the device's memory.
    pub fn copy(&self, from: Room<'_>, to: Room<'_>, bytes: usize) -> Result<(), ExecError> {
        self.uploads.lock().copy((from.0, from.1), (to.0, to.1), bytes)
    }

    /// Whatever is uploaded from now on is copied after all downloads so far.
    pub fn upload_after_downloads(&self) {
        self.uploads.lock().upload_after_downloads();
    }

    /// What is launched from now on finds everything that was copied so far.
    pub fn fence(&self, run: &mut GraphRun<'_>) {
        self.uploads.lock().fence(run);
    }

    /// Whether something was copied, either way, that no fence is behind.
    pub fn is_unfenced(&self) -> bool {
        self.uploads.lock().is_unfenced()
    }

    /// Waits until everything is where it was sent.
    pub fn wait(&self) {
        self.uploads.lock().wait();
    }

    /// Nothing is being computed: waits until everything is where it was sent.
    pub fn settle(&self) {
        self.uploads.lock().settle();
    }

    /// The same way, for who keeps account of the host's slots.
    pub fn uploads(&self) -> Uploads {
        self.uploads.clone()
    }
}
