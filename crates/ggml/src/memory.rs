//! Memory that kernels read weights from: of the host, or of a device that only its own backend can address.
//!
//! Host memory travels as `&[AtomicU8]`: the engine's readers may write other parts of the same allocation
//! meanwhile. Device memory travels as a region of a [`DeviceBuffer`]: it has no address here, and is written
//! by copies alone, unless it is host memory that the device reads where it is ([`DeviceBuffer::over`]).

#[cfg(target_os = "linux")]
use crate::cuda_pages::CudaPages;
use crate::device::Device;
use crate::error::LoadError;
use crate::sys;
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

/// Host memory that can be kept alive while a device reads it.
pub trait HostMemory: Send + Sync {
    /// All of it; always the same.
    fn bytes(&self) -> &[AtomicU8];
}

/// Memory of one kind.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// Of the host.
    Host(&'a [AtomicU8]),
    /// Of a device.
    Device(Region<'a>),
}

impl<'a> Bytes<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Host(memory) => memory.len(),
            Self::Device(region) => region.range.1,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of them; `None` where it reaches beyond their end.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<Self> {
        match self {
            Self::Host(memory) => Some(Self::Host(memory.get(range)?)),
            Self::Device(region) => Some(Self::Device(region.get(range)?)),
        }
    }
}

impl<'a> From<&'a [AtomicU8]> for Bytes<'a> {
    fn from(memory: &'a [AtomicU8]) -> Self {
        Self::Host(memory)
    }
}

impl<'a> From<Region<'a>> for Bytes<'a> {
    fn from(region: Region<'a>) -> Self {
        Self::Device(region)
    }
}

/// A part of a [`DeviceBuffer`].
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    buffer: &'a DeviceBuffer,
    /// Where it begins in the buffer, and its length.
    range: (usize, usize),
}

impl<'a> Region<'a> {
    fn get(self, range: Range<usize>) -> Option<Self> {
        let (start, length) = self.range;
        let fits = range.start <= range.end && range.end <= length;
        fits.then(|| Self { buffer: self.buffer, range: (start + range.start, range.end - range.start) })
    }

    /// The device that can address it.
    pub(crate) fn device(self) -> Device {
        self.buffer.device
    }

    /// Has a tensor lie here.
    pub(crate) fn place(self, tensor: &mut sys::ggml_tensor) {
        (tensor.buffer, tensor.data) = self.buffer.place(self.range.0);
    }
}

/// Memory that a device computes with, for weights that the engine places there.
pub struct DeviceBuffer {
    raw: sys::ggml_backend_buffer_t,
    device: Device,
    bytes: usize,
    /// What it lies in, where that is the host's.
    _host: Option<Arc<dyn HostMemory>>,
}
// SAFETY: a buffer has no thread affinity, and this owner only hands out its address; ggml's functions that
// write to it are called by who owns the backend or the exclusive borrow that they go through.
unsafe impl Send for DeviceBuffer {}
// SAFETY: as above; shared references read the handle and the size, which never change.
unsafe impl Sync for DeviceBuffer {}

impl DeviceBuffer {
    /// Takes `bytes` of a device's own memory, or of the host's where that is what the device computes with.
    ///
    /// # Errors
    /// [`LoadError::DeviceMemory`] when the device has no more.
    pub fn new(device: Device, bytes: usize) -> Result<Self, LoadError> {
        // SAFETY: the device is alive for the whole process; a null result is checked.
        let raw = unsafe { sys::ggml_backend_buft_alloc_buffer(device.inner_buffer_type(), bytes) };
        if raw.is_null() || bytes == 0 {
            return Err(LoadError::DeviceMemory { device: device.name(), bytes });
        }
        // SAFETY: the buffer was just made. Schedulers and kernels treat weights by their usage.
        unsafe { sys::ggml_backend_buffer_set_usage(raw, sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS) };
        Ok(Self { raw, device, bytes, _host: None })
    }

    /// Has a device compute with a part of the host's memory, where it is. What is written to that memory
    /// before a graph is launched, the graph finds; what a launched graph reads must not be written to. The
    /// memory keeps its pages for as long as this lives: none of it may be given back to the system.
    ///
    /// # Errors
    /// [`LoadError::Import`] when the device cannot or will not, or when the range is not there.
    pub fn over(device: Device, host: &Arc<dyn HostMemory>, range: Range<usize>) -> Result<Self, LoadError> {
        let bytes = range.len();
        let refused = || LoadError::Import { device: device.name(), bytes };
        let memory = host.bytes().get(range).filter(|memory| !memory.is_empty()).ok_or_else(refused)?;
        let raw = import(device, memory).ok_or_else(refused)?;
        // SAFETY: as in `new`.
        unsafe { sys::ggml_backend_buffer_set_usage(raw, sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS) };
        Ok(Self { raw, device, bytes, _host: Some(Arc::clone(host)) })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes, which [`Self::new`] refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A part of it; `None` where it reaches beyond the end.
    #[must_use]
    pub fn region(&self, range: Range<usize>) -> Option<Region<'_>> {
        Region { buffer: self, range: (0, self.bytes) }.get(range)
    }

    /// The buffer and the address that a tensor at `at` has.
    pub(crate) fn place(&self, at: usize) -> (sys::ggml_backend_buffer_t, *mut c_void) {
        // SAFETY: the buffer is alive. Addresses of devices are numbers to us: the sum is never followed
        // here.
        (self.raw, unsafe { sys::ggml_backend_buffer_get_base(self.raw) }.wrapping_byte_add(at))
    }

    /// A tensor of `bytes` bytes at `at`; `None` where they reach beyond the end. It is good for as long as
    /// the buffer is.
    pub(crate) fn tensor(&self, at: usize, bytes: usize) -> Option<sys::ggml_tensor> {
        at.checked_add(bytes).filter(|end| *end <= self.bytes)?;
        let (buffer, data) = self.place(at);
        bytes_at(buffer, data, bytes)
    }

    /// Overwrites all of it with one value, and waits for that. No kernel reads it meanwhile.
    pub fn fill(&mut self, value: u8) {
        // SAFETY: the buffer is alive, and exclusively borrowed.
        unsafe { sys::ggml_backend_buffer_clear(self.raw, value) };
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: made by the device, freed once; host memory that it lies in is alive until after that.
        unsafe { sys::ggml_backend_buffer_free(self.raw) };
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeviceBuffer({:?}, {} bytes)", self.device, self.bytes)
    }
}

/// A buffer of a device that is host memory; `None` where the device cannot, or refuses this memory. Whoever
/// owns `memory` keeps it, and its pages, until the buffer is freed.
fn import(device: Device, memory: &[AtomicU8]) -> Option<sys::ggml_backend_buffer_t> {
    if !device.may_import() {
        return None;
    }
    // SAFETY: the device offers the function (`may_import`) and is alive for the whole process; the memory is
    // alive for the call, and its owner keeps it for longer. A refusal is null.
    let raw = unsafe {
        let pointer = memory.as_ptr().cast_mut().cast::<c_void>();
        sys::ggml_backend_dev_buffer_from_host_ptr(device.inner(), pointer, memory.len(), memory.len())
    };
    (!raw.is_null()).then_some(raw)
}

/// A device takes host memory in pieces of this size: some have a limit for one piece.
const IMPORT_BYTES: usize = 256 << 20;

/// Host memory that a device reads by itself.
pub(crate) struct ImportedMemory {
    /// Piece after piece, each of [`IMPORT_BYTES`] but the last.
    pieces: Vec<sys::ggml_backend_buffer_t>,
    bytes: usize,
}
// SAFETY: as for `DeviceBuffer`: buffers have no thread affinity, and this owner only hands out descriptions.
unsafe impl Send for ImportedMemory {}

impl ImportedMemory {
    /// `None` where the device cannot, or refuses this memory. Whoever owns `memory` keeps it, and its pages,
    /// for as long as this lives.
    pub(crate) fn new(device: Device, memory: &[AtomicU8]) -> Option<Self> {
        let mut imported = Self { pieces: Vec::new(), bytes: memory.len() };
        for piece in memory.chunks(IMPORT_BYTES) {
            imported.pieces.push(import(device, piece)?);
        }
        Some(imported)
    }

    /// Tensors that are a part of it, one behind the other; `None` where it reaches beyond the end.
    pub(crate) fn pieces(&self, range: Range<usize>) -> Option<Vec<sys::ggml_tensor>> {
        if range.start > range.end || range.end > self.bytes {
            return None;
        }
        let mut tensors = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (piece, offset) = (at / IMPORT_BYTES, at % IMPORT_BYTES);
            let length = (IMPORT_BYTES - offset).min(range.end - at);
            let buffer = *self.pieces.get(piece)?;
            // SAFETY: the buffer is alive. Addresses of devices are numbers to us: the sum is never followed.
            let data = unsafe { sys::ggml_backend_buffer_get_base(buffer) }.wrapping_byte_add(offset);
            tensors.push(bytes_at(buffer, data, length)?);
            at += length;
        }
        Some(tensors)
    }
}

impl Drop for ImportedMemory {
    fn drop(&mut self) {
        for piece in &self.pieces {
            // SAFETY: made by the device and freed once; nothing reads it any more (`Uploader` waits first).
            unsafe { sys::ggml_backend_buffer_free(*piece) };
        }
    }
}

/// Host memory that a device copies from without a detour, and perhaps to: its pages stay where they are.
pub(crate) enum PinnedMemory {
    /// By CUDA's driver: for copies both ways.
    #[cfg(target_os = "linux")]
    Cuda {
        /// Gives them back when it is dropped.
        _pages: CudaPages,
    },
    /// By ggml's backend: for copies to the device.
    ToDevice {
        /// As above.
        _pages: PinnedPages,
    },
}

/// Pages that a backend pinned.
pub(crate) struct PinnedPages {
    base: *mut c_void,
    unpin: unsafe extern "C" fn(*mut c_void),
}
// SAFETY: the address is only given back to who pinned it, which has no thread affinity.
unsafe impl Send for PinnedPages {}

impl PinnedMemory {
    /// `None` where the device's backend has no such thing (CUDA has), or refuses. Whoever owns `memory`
    /// keeps it, and its pages, for as long as this lives.
    pub(crate) fn new(device: Device, memory: &[AtomicU8]) -> Option<Self> {
        type Pin = unsafe extern "C" fn(*mut c_void, usize) -> bool;
        type Unpin = unsafe extern "C" fn(*mut c_void);
        let pin = device.function(c"ggml_backend_register_host_buffer")?;
        let unpin = device.function(c"ggml_backend_unregister_host_buffer")?;
        #[cfg(target_os = "linux")]
        if let Some(pages) = CudaPages::new(memory) {
            return Some(Self::Cuda { _pages: pages });
        }
        // SAFETY: backends offer functions of these types under these names.
        let (pin, unpin) = unsafe {
            (std::mem::transmute::<*mut c_void, Pin>(pin), std::mem::transmute::<*mut c_void, Unpin>(unpin))
        };
        let base = memory.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the memory is alive, and its owner keeps it until this is dropped.
        unsafe { pin(base, memory.len()) }.then_some(Self::ToDevice { _pages: PinnedPages { base, unpin } })
    }

    /// Whether the device may copy to it.
    pub(crate) fn is_for_both_ways(&self) -> bool {
        !matches!(self, Self::ToDevice { .. })
    }
}

impl Drop for PinnedPages {
    fn drop(&mut self) {
        // SAFETY: pinned by `PinnedMemory::new`, and nothing copies from it any more (`Uploader` waits
        // first).
        unsafe { (self.unpin)(self.base) };
    }
}

/// A tensor of so many bytes.
fn bytes_at(buffer: sys::ggml_backend_buffer_t, data: *mut c_void, bytes: usize) -> Option<sys::ggml_tensor> {
    // SAFETY: zeroes are a valid tensor.
    let mut tensor: sys::ggml_tensor = unsafe { std::mem::zeroed() };
    tensor.type_ = sys::GGML_TYPE_I8;
    tensor.ne = [i64::try_from(bytes).ok()?, 1, 1, 1];
    tensor.nb = [1, bytes, bytes, bytes];
    (tensor.buffer, tensor.data) = (buffer, data);
    Some(tensor)
}
