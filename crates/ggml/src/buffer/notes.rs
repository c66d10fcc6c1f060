//! What llama.cpp did with the buffers of one load: tensors that want their bytes, and what went wrong in
//! callbacks, which cannot say so.

use crate::sys;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU8;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of one load.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    wanted: Mutex<Vec<Wanted>>,
    failure: Mutex<Option<String>>,
    misread: Mutex<Option<String>>,
}

impl Notes {
    /// A resident tensor wants its bytes.
    pub fn want(&self, tensor: Wanted) {
        lock(&self.wanted).push(tensor);
    }

    /// Takes what was wanted.
    pub fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut lock(&self.wanted))
    }

    /// Something went wrong in a callback, which cannot say so.
    pub fn fail(&self, reason: String) {
        lock(&self.failure).get_or_insert(reason);
    }

    /// Takes what went wrong while loading.
    pub fn take_failure(&self) -> Option<String> {
        lock(&self.failure).take()
    }

    /// A streamed weight was read as if it were in memory.
    pub fn misread(&self, tensor: String) {
        lock(&self.misread).get_or_insert(tensor);
    }

    /// Takes the name of a streamed weight that was read as if it were in memory.
    pub fn take_misread(&self) -> Option<String> {
        lock(&self.misread).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A resident weight that waits for its bytes.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub name: String,
    pub(super) tensor: *mut sys::ggml_tensor,
    pub(super) is_host: bool,
    pub(super) offset: usize,
    pub bytes: usize,
}
// SAFETY: the tensor belongs to a model that is built by one thread and owned by one `PendingModel`, with
// which this moves.
unsafe impl Send for Wanted {}

impl Wanted {
    /// The memory to fill.
    ///
    /// # Safety
    /// The model that owns the tensor is alive for `'a`.
    pub(crate) unsafe fn memory<'a>(&self) -> TensorMemory<'a> {
        if !self.is_host {
            let (tensor, offset, bytes) = (self.tensor, self.offset, self.bytes);
            return TensorMemory::Device(DeviceTensor { tensor, offset, bytes, model: PhantomData });
        }
        // SAFETY: ggml checked that `offset + bytes` lies inside the tensor, whose buffer is host memory that
        // the caller keeps alive; AtomicU8 has the layout of u8 and allows the reader to write while we hold
        // the reference.
        TensorMemory::Host(unsafe {
            let start = (*self.tensor).data.cast::<u8>().add(self.offset);
            std::slice::from_raw_parts(start.cast::<AtomicU8>(), self.bytes)
        })
    }
}

/// Where the bytes of a resident weight go.
#[derive(Clone, Copy, Debug)]
pub enum TensorMemory<'a> {
    /// Straight into host memory.
    Host(&'a [AtomicU8]),
    /// To a device, by copies.
    Device(DeviceTensor<'a>),
}

/// A resident weight in memory that only its device addresses.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTensor<'a> {
    tensor: *mut sys::ggml_tensor,
    offset: usize,
    bytes: usize,
    model: PhantomData<&'a ()>,
}

impl DeviceTensor<'_> {
    /// Copies bytes to `at` bytes behind its beginning, and waits for that. False where they reach beyond its
    /// end.
    pub fn write(&self, at: usize, bytes: &[AtomicU8]) -> bool {
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.bytes) {
            return false;
        }
        // SAFETY: the model is alive (`Wanted::memory`) and nobody computes with it yet; the range was
        // checked, and the bytes are host memory that the device's own function has read when it returns.
        unsafe {
            let from = bytes.as_ptr().cast::<c_void>();
            sys::ggml_backend_tensor_set(self.tensor, from, self.offset + at, bytes.len());
        }
        true
    }
}
