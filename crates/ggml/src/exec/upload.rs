//! Bytes on their way to a device, and back, beside what it computes.
//!
//! Copies go through backends of their own, one for each direction, so that they neither wait for graphs nor
//! hold them up, nor each other. Some devices do the copies of a backend in any order. Nothing may compute
//! with what was uploaded before [`Uploader::fence`] has put the one behind the other, and nothing may
//! overwrite a source, or use what was downloaded, before [`Uploader::wait`] has returned or something that
//! was launched behind a later fence is done. Sources and targets are kept alive until then.
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

/// Uploads to one device, and downloads from it.
pub struct Uploader {
    device: Device,
    backend: sys::ggml_backend_t,
    /// `None` where the device has no events.
    event: Option<DeviceEvent>,
    /// The way back, since it was first used.
    back: Option<WayBack>,
    /// What copies read and write that may not be finished.
    kept: Vec<(Arc<dyn HostMemory>, Arc<DeviceBuffer>)>,
    /// Something was handed over since the last fence.
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
        let uploader = Self { device, backend, event, back: None, kept, unfenced: false, imported, pinned };
        if backend.is_null() { Err(LoadError::Device(device.name())) } else { Ok(uploader) }
    }

    /// Has the device read host memory by itself, or copy from it without a detour, where it can; says
    /// whether it does. The memory keeps its pages for as long as this lives: none of it may be given back to
    /// the system.
    pub fn import(&mut self, source: &Arc<dyn HostMemory>) -> bool {
        if self.imported_of(source.bytes()).is_some() {
            return true;
        }
        if let Some(memory) = ImportedMemory::new(self.device, source.bytes()) {
            self.imported.push((Arc::clone(source), memory));
            return true;
        }
        let pinned = PinnedMemory::new(self.device, source.bytes());
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
        let mut done = 0;
        for piece in self.pieces(source, range.clone()) {
            let (length, mut piece) = (piece.nb[1], piece);
            let mut to = target.tensor(at + done, length).ok_or_else(short)?;
            // SAFETY: both tensors describe bytes inside live buffers of the backend's device, as many of
            // each. Source and target are kept until `wait`.
            unsafe { copy_tensor(self.backend, &mut piece, &mut to) };
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

    /// Opens the way back, and says whether [`Self::download`] may copy to host memory.
    pub fn may_download_to(&mut self, target: &Arc<dyn HostMemory>) -> bool {
        let bytes = target.bytes();
        if self.imported_of(bytes).is_none() && !self.is_pinned_for_both_ways(bytes) {
            return false;
        }
        // Only events can order the two ways without the host.
        if self.event.is_some() && self.back.is_none() {
            self.back = WayBack::new(self.device);
        }
        self.back.is_some()
    }

    /// Has the bytes of `source` from `at` on copied to `range` of `target`, where that may be
    /// ([`Self::may_download_to`]): a copy into any other memory would be finished by [`Self::wait`] alone.
    /// The source holds what was uploaded before the last fence. Nothing may read or write the target until
    /// that is done.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when one of them is too short, or the target is no such memory.
    pub fn download(
        &mut self,
        source: &Arc<DeviceBuffer>,
        at: usize,
        target: &Arc<dyn HostMemory>,
        range: Range<usize>,
    ) -> Result<(), ExecError> {
        let short = || ExecError::Misuse(format!("{at} of {} does not fill {range:?}", source.len()));
        let bytes = target.bytes().get(range.clone()).ok_or_else(short)?;
        let pieces = self.pieces(target, range.clone());
        let is_pinned = self.is_pinned_for_both_ways(target.bytes());
        let back = self.back.as_mut().zip(self.event.as_ref());
        let (back, event) = back.filter(|_| is_pinned || !pieces.is_empty()).ok_or_else(no_way_back)?;
        event.hold(back.backend);
        let mut done = 0;
        for piece in pieces {
            let (length, mut piece) = (piece.nb[1], piece);
            let mut from = source.tensor(at + done, length).ok_or_else(short)?;
            // SAFETY: as in `upload`.
            unsafe { copy_tensor(back.backend, &mut from, &mut piece) };
            done += length;
        }
        if done < bytes.len() {
            let mut from = source.tensor(at, bytes.len()).ok_or_else(short)?;
            // SAFETY: the backend is alive; the tensor describes bytes inside the source, and there are as
            // many in the target, which is shared memory of cells that may be written through a shared
            // reference. Source and target are kept until `wait`; the description is read during the call
            // alone.
            unsafe {
                let to = bytes.as_ptr().cast_mut().cast();
                sys::ggml_backend_tensor_get_async(back.backend, &raw mut from, to, 0, bytes.len());
            }
        }
        back.unfenced = true;
        self.keep(target, source);
        Ok(())
    }

    /// Whatever is uploaded from now on is copied after all downloads so far.
    pub fn upload_after_downloads(&mut self) {
        if let Some(back) = &mut self.back {
            back.event.record(back.backend);
            back.event.hold(self.backend);
        }
    }

    /// A part of imported memory as tensors, one behind the other; none where it was not imported.
    fn pieces(&self, memory: &Arc<dyn HostMemory>, range: Range<usize>) -> Vec<sys::ggml_tensor> {
        self.imported_of(memory.bytes()).and_then(|memory| memory.pieces(range)).unwrap_or_default()
    }

    /// Has `bytes` bytes of the device copied within its memory. Both buffers have to live, and the source
    /// must not change, until that is done.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when one of them is too short.
    pub fn copy(
        &mut self,
        source: (&DeviceBuffer, usize),
        target: (&DeviceBuffer, usize),
        bytes: usize,
    ) -> Result<(), ExecError> {
        let short = || ExecError::Misuse(format!("{bytes} bytes do not fit"));
        let mut from = source.0.tensor(source.1, bytes).ok_or_else(short)?;
        let mut to = target.0.tensor(target.1, bytes).ok_or_else(short)?;
        // SAFETY: both tensors describe bytes inside live buffers of the backend's device, as many of each;
        // the caller keeps them.
        unsafe { copy_tensor(self.backend, &mut from, &mut to) };
        self.unfenced = true;
        Ok(())
    }

    fn is_pinned_for_both_ways(&self, bytes: &[AtomicU8]) -> bool {
        let is_it = |(source, pages): &(Arc<dyn HostMemory>, PinnedMemory)| {
            source.bytes().as_ptr() == bytes.as_ptr() && pages.is_for_both_ways()
        };
        self.pinned.iter().any(is_it)
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

    /// What `run` computes from now on finds everything that was copied so far, either way.
    pub fn fence(&mut self, run: &mut GraphRun<'_>) {
        if let Some(back) = self.back.as_mut().filter(|back| back.unfenced) {
            back.unfenced = false;
            back.event.record(back.backend);
            back.event.hold(run.inner());
        }
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

    /// Whether something was copied, either way, that no fence is behind yet.
    #[must_use]
    pub fn is_unfenced(&self) -> bool {
        self.unfenced || self.back.as_ref().is_some_and(|back| back.unfenced)
    }

    /// Waits until everything is where it was sent.
    pub fn wait(&mut self) {
        // SAFETY: the backend is alive.
        unsafe { sys::ggml_backend_synchronize(self.backend) };
        if let Some(back) = &mut self.back {
            // SAFETY: the backend is alive.
            unsafe { sys::ggml_backend_synchronize(back.backend) };
            back.unfenced = false;
        }
        self.kept.clear();
        self.unfenced = false;
    }

    /// Nothing is being computed, and all that was copied has been: what devices keep of events goes. Some
    /// take another one for each record, and free those that were recorded before when the host waits.
    pub fn settle(&mut self) {
        self.wait();
        let back = self.back.as_ref().map(|back| &back.event);
        self.event.iter().chain(back).for_each(DeviceEvent::wait);
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

/// The backend of downloads.
struct WayBack {
    backend: sys::ggml_backend_t,
    event: DeviceEvent,
    /// Something was downloaded since the last fence.
    unfenced: bool,
}

impl WayBack {
    /// `None` where the device has no events, or makes no backend.
    fn new(device: Device) -> Option<Self> {
        let event = DeviceEvent::new(device)?;
        // SAFETY: the device lives for the whole process; a null backend is checked.
        let backend = unsafe { sys::ggml_backend_dev_init(device.inner(), std::ptr::null()) };
        (!backend.is_null()).then_some(Self { backend, event, unfenced: false })
    }
}

impl Drop for WayBack {
    fn drop(&mut self) {
        // SAFETY: made by `new` and freed once; `Uploader` has waited for what was under way.
        unsafe { sys::ggml_backend_free(self.backend) };
    }
}

fn no_way_back() -> ExecError {
    ExecError::Misuse("a copy into memory that a device may not copy to".to_owned())
}

/// Has one tensor copied to another by a backend.
///
/// # Safety
/// The backend is alive; both tensors describe as many bytes of live buffers of its device, which live until
/// that is done. The descriptions are read during the call alone.
unsafe fn copy_tensor(backend: sys::ggml_backend_t, from: &mut sys::ggml_tensor, to: &mut sys::ggml_tensor) {
    // SAFETY: the caller's promise.
    unsafe { sys::ggml_backend_tensor_copy_async(backend, backend, from, to) };
}
