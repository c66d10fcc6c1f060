//! Bytes on their way to a device, beside what it computes.
//!
//! Uploads go through a backend of their own, so that they neither wait for graphs nor hold them up. Nothing
//! may compute with what was uploaded before [`Uploader::fence`] has put the one behind the other, and
//! nothing may overwrite the source before [`Uploader::wait`] has returned. Sources and targets are kept
//! alive until then.
//!
//! A source that a device can read by itself, or whose pages are pinned ([`Uploader::import`]), is copied
//! from where it is; any other goes through memory of the backend's own, at the price of a second copy, which
//! the host waits for.

use crate::device::Device;
use crate::error::{ExecError, LoadError};
use crate::memory::{DeviceBuffer, HostMemory, ImportedMemory, PinnedMemory};
use crate::sys;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use super::event::DeviceEvent;
use super::run::GraphRun;

/// Uploads to one device.
pub struct Uploader {
    backend: sys::ggml_backend_t,
    /// `None` where the device has no events.
    event: Option<DeviceEvent>,
    /// What uploads read and write that may not be finished.
    kept: Vec<(Arc<dyn HostMemory>, Arc<DeviceBuffer>)>,
    /// Something was uploaded since the last fence.
    unfenced: bool,
    /// Host memory that the device reads by itself, with who keeps it alive.
    imported: Vec<(Arc<dyn HostMemory>, ImportedMemory)>,
    /// Host memory whose pages stay, with who keeps it alive.
    pinned: Vec<(Arc<dyn HostMemory>, PinnedMemory)>,
}
// SAFETY: a backend has no thread affinity; `&mut self` keeps them to one thread at a time.
unsafe impl Send for Uploader {}

impl Uploader {
    /// Opens a way to a device.
    ///
    /// # Errors
    /// [`LoadError::Device`] when the device makes no backend.
    pub fn new(device: Device) -> Result<Self, LoadError> {
        // SAFETY: the device lives for the whole process; a null backend is checked.
        let backend = unsafe { sys::ggml_backend_dev_init(device.inner(), std::ptr::null()) };
        let event = DeviceEvent::new(device);
        let (kept, imported, pinned) = (Vec::new(), Vec::new(), Vec::new());
        let uploader = Self { backend, event, kept, unfenced: false, imported, pinned };
        if backend.is_null() { Err(LoadError::Device(device.name())) } else { Ok(uploader) }
    }

    /// Has the device read host memory by itself, or copy from it without a detour, where it can; says
    /// whether it does. The memory keeps its pages for as long as this lives: none of it may be given back to
    /// the system.
    pub fn import(&mut self, device: Device, source: &Arc<dyn HostMemory>) -> bool {
        if self.imported_of(source.bytes()).is_some() {
            return true;
        }
        if let Some(memory) = ImportedMemory::new(device, source.bytes()) {
            self.imported.push((Arc::clone(source), memory));
            return true;
        }
        let pinned = PinnedMemory::new(device, source.bytes());
        let is_pinned = pinned.is_some();
        self.pinned.extend(pinned.map(|memory| (Arc::clone(source), memory)));
        is_pinned
    }

    fn imported_of(&self, bytes: &[AtomicU8]) -> Option<&ImportedMemory> {
        let (_, memory) =
            self.imported.iter().find(|(source, _)| source.bytes().as_ptr() == bytes.as_ptr())?;
        Some(memory)
    }

    /// Has `range` of `source` copied to `at` of `target`. The source must not change, and nothing may use
    /// the target, until that is done.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when one of them is too short.
    pub fn upload(
        &mut self,
        source: &Arc<dyn HostMemory>,
        range: Range<usize>,
        target: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        let short = || ExecError::Misuse(format!("{range:?} does not fit at {at} of {}", target.len()));
        let bytes = source.bytes().get(range.clone()).ok_or_else(short)?;
        if at.checked_add(bytes.len()).is_none_or(|end| end > target.len()) {
            return Err(short());
        }
        let pieces = self.imported_of(source.bytes()).and_then(|memory| memory.pieces(range.clone()));
        let mut done = 0;
        for mut piece in pieces.unwrap_or_default() {
            let length = piece.nb[1];
            let mut to = target.tensor(at + done, length).ok_or_else(short)?;
            // SAFETY: the backend is alive; both tensors describe bytes inside live buffers of its device, as
            // many of each. Source and target are kept until `wait`; descriptions are read during the call
            // alone.
            unsafe {
                sys::ggml_backend_tensor_copy_async(self.backend, self.backend, &raw mut piece, &raw mut to);
            }
            done += length;
        }
        if done < bytes.len() {
            let mut tensor = target.tensor(at, bytes.len()).ok_or_else(short)?;
            // SAFETY: the backend is alive; the tensor describes bytes inside the target. Source and target
            // are kept until `wait`, and the description is read during the call alone.
            unsafe {
                let from = bytes.as_ptr().cast();
                sys::ggml_backend_tensor_set_async(self.backend, &raw mut tensor, from, 0, bytes.len());
            }
        }
        self.keep(source, target);
        self.unfenced = true;
        Ok(())
    }

    /// Keeps them alive until [`Self::wait`].
    fn keep(&mut self, source: &Arc<dyn HostMemory>, target: &Arc<DeviceBuffer>) {
        let is_kept = |(from, to): &(Arc<dyn HostMemory>, Arc<DeviceBuffer>)| {
            Arc::ptr_eq(from, source) && Arc::ptr_eq(to, target)
        };
        if !self.kept.iter().any(is_kept) {
            self.kept.push((Arc::clone(source), Arc::clone(target)));
        }
    }

    /// What `run` computes from now on finds everything that was uploaded so far.
    pub fn fence(&mut self, run: &mut GraphRun<'_>) {
        if !std::mem::take(&mut self.unfenced) {
            return;
        }
        match &mut self.event {
            Some(event) => {
                event.record(self.backend);
                event.hold(run.inner());
            }
            None => self.wait(),
        }
    }

    /// What is uploaded from now on waits for an event, which the host does not.
    pub fn hold(&mut self, event: &DeviceEvent) {
        event.hold(self.backend);
    }

    /// Whether something was uploaded that no fence is behind yet: it may arrive before or after whatever is
    /// uploaded next.
    #[must_use]
    pub fn is_unfenced(&self) -> bool {
        self.unfenced
    }

    /// Waits until everything is uploaded.
    pub fn wait(&mut self) {
        // SAFETY: the backend is alive.
        unsafe { sys::ggml_backend_synchronize(self.backend) };
        self.kept.clear();
        self.unfenced = false;
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        if self.backend.is_null() {
            return;
        }
        self.wait();
        // SAFETY: made by `new` and freed once; nothing is under way.
        unsafe { sys::ggml_backend_free(self.backend) };
    }
}
