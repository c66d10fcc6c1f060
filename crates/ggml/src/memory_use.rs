//! What a context uses of which memory, as llama.cpp accounts it: by buffer type, of which only the name is
//! told.

use crate::device::Device;
use crate::{sys, system};
use std::ffi::CStr;

/// Bytes a context uses, as llama.cpp accounts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights in host memory (ours or llama.cpp's).
    pub model_bytes: u64,
    /// KV cache and recurrent state in host memory.
    pub context_bytes: u64,
    /// Compute buffers in host memory.
    pub compute_bytes: u64,
    /// What is in memory of GPUs, all of them together.
    pub device: DeviceMemoryUse,
}

/// Bytes in memory of GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemoryUse {
    /// Weights.
    pub model_bytes: u64,
    /// KV cache and recurrent state.
    pub context_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
}

impl DeviceMemoryUse {
    /// All of it.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.model_bytes + self.context_bytes + self.compute_bytes
    }
}

impl MemoryUse {
    /// What a context uses.
    ///
    /// # Safety
    /// The context is alive.
    pub(crate) unsafe fn of(context: *const sys::llama_context) -> Self {
        let mut of_gpus = system::gpu_buffer_types();
        // Those of other processes are in no registry.
        let adopted = Device::known().into_iter().filter(|device| !device.is_host());
        of_gpus.extend(adopted.map(Device::buffer_type_name));
        let mut used = Self::default();
        // SAFETY: the caller's promise.
        for entry in unsafe { breakdown(context) } {
            used.add(of_gpus.iter().any(|gpu| gpu.as_c_str() == name_of(&entry)), &entry);
        }
        used
    }

    fn add(&mut self, is_device: bool, entry: &sys::llama_memory_breakdown_entry) {
        let (model, context, compute) = if is_device {
            let device = &mut self.device;
            (&mut device.model_bytes, &mut device.context_bytes, &mut device.compute_bytes)
        } else {
            (&mut self.model_bytes, &mut self.context_bytes, &mut self.compute_bytes)
        };
        *model += entry.model as u64;
        *context += entry.context as u64;
        *compute += entry.compute as u64;
    }
}

impl DeviceMemoryUse {
    /// What a context uses in the memory of one device.
    ///
    /// # Safety
    /// The context is alive.
    pub(crate) unsafe fn of(context: *const sys::llama_context, device: Device) -> Self {
        let wanted = device.buffer_type_name();
        let mut used = MemoryUse::default();
        // SAFETY: the caller's promise.
        for entry in unsafe { breakdown(context) } {
            if name_of(&entry) == wanted.as_c_str() {
                used.add(true, &entry);
            }
        }
        used.device
    }
}

/// What llama.cpp says of each buffer type.
///
/// # Safety
/// The context is alive.
unsafe fn breakdown(context: *const sys::llama_context) -> Vec<sys::llama_memory_breakdown_entry> {
    const MOST: usize = 64;
    // SAFETY: the struct is plain data, for which zeroes are valid.
    let mut entries: [sys::llama_memory_breakdown_entry; MOST] = unsafe { std::mem::zeroed() };
    // SAFETY: the caller's promise; writes at most MOST entries.
    let count = unsafe { sys::llama_memory_breakdown_collect(context, entries.as_mut_ptr(), MOST) };
    entries.into_iter().take(count).collect()
}

fn name_of(entry: &sys::llama_memory_breakdown_entry) -> &CStr {
    // SAFETY: llama.cpp wrote a NUL-terminated name into the entry's array, which lives as long as the entry.
    unsafe { CStr::from_ptr(entry.buft_name.as_ptr()) }
}
