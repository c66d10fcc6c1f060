//! Memory that kernels read weights from: of the host, or of a device that only its own backend can address.
//!
//! Host memory travels as `&[AtomicU8]`: the engine's readers may write other parts of the same allocation
//! meanwhile. Device memory travels as a region of a [`DeviceBuffer`]: it has no address here, and is written
//! by copies alone.

use crate::device::Device;
use crate::error::{ExecError, LoadError};
use crate::sys;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::AtomicU8;

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

/// Memory of a device, for weights that the engine places there.
#[derive(Debug)]
pub struct DeviceBuffer {
    raw: sys::ggml_backend_buffer_t,
    device: Device,
    bytes: usize,
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
        Ok(Self { raw, device, bytes })
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

    /// Copies plain values to `at` bytes behind the beginning, and waits for that. No kernel reads there
    /// meanwhile.
    pub(crate) fn write<T: Copy>(&mut self, at: usize, values: &[T]) -> Result<(), ExecError> {
        let bytes = size_of_val(values);
        let tensor = self.tensor(at, bytes);
        let mut tensor = tensor.ok_or_else(|| ExecError::Misuse(format!("{bytes} bytes do not fit")))?;
        // SAFETY: the tensor describes bytes inside the live buffer, and the source is read before the call
        // returns.
        unsafe { sys::ggml_backend_tensor_set(&raw mut tensor, values.as_ptr().cast(), 0, bytes) };
        Ok(())
    }

    /// A tensor of `bytes` bytes at `at`; `None` where they reach beyond the end. It is good for as long as
    /// the buffer is.
    pub(crate) fn tensor(&self, at: usize, bytes: usize) -> Option<sys::ggml_tensor> {
        at.checked_add(bytes).filter(|end| *end <= self.bytes)?;
        // SAFETY: zeroes are a valid tensor.
        let mut tensor: sys::ggml_tensor = unsafe { std::mem::zeroed() };
        tensor.type_ = sys::GGML_TYPE_I8;
        tensor.ne = [i64::try_from(bytes).ok()?, 1, 1, 1];
        tensor.nb = [1, bytes, bytes, bytes];
        (tensor.buffer, tensor.data) = self.place(at);
        Some(tensor)
    }

    /// Overwrites all of it with one value, and waits for that. No kernel reads it meanwhile.
    pub fn fill(&mut self, value: u8) {
        // SAFETY: the buffer is alive, and exclusively borrowed.
        unsafe { sys::ggml_backend_buffer_clear(self.raw, value) };
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: made by ggml_backend_buft_alloc_buffer, freed once.
        unsafe { sys::ggml_backend_buffer_free(self.raw) };
    }
}
