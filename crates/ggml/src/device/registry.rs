//! One decorated device for each of ggml's, made when it is first asked for and never freed: ggml keeps
//! devices for the whole process.
//!
//! The CPU's stands in the place of the real one in ggml's registry, because llama.cpp looks for the CPU
//! there. All others are given to llama.cpp by name (`llama_model_params.devices`), and the registry keeps
//! the real ones.

use crate::error::LoadError;
use crate::libraries;
use crate::sys::{self, raw};
use crate::system;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use super::cpu;
use super::decorated;
use super::handle::Device;

static ALL: Mutex<Vec<Device>> = Mutex::new(Vec::new());

impl Device {
    /// The CPU.
    ///
    /// # Errors
    /// [`LoadError::NoCpu`]; [`LoadError::Interface`] when the linked ggml is of another version.
    pub fn cpu() -> Result<Self, LoadError> {
        system::init();
        if let Some(known) = find(|device| device.0.is_cpu()) {
            return Ok(known);
        }
        // SAFETY: a plain query of ggml's registry.
        let inner = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
        if inner.is_null() {
            return Err(LoadError::NoCpu);
        }
        Self::decorate(inner)
    }

    /// Whether ggml's CPU device has been decorated: once it was, everything in this process goes through
    /// ours.
    #[must_use]
    pub fn is_cpu_decorated() -> bool {
        find(|device| device.0.is_cpu()).is_some()
    }

    /// The GPUs that ggml found, in its order.
    ///
    /// # Errors
    /// [`LoadError::Interface`] when the linked ggml is of another version.
    pub fn gpus() -> Result<Vec<Self>, LoadError> {
        system::init();
        libraries::load();
        // SAFETY: plain queries of ggml's registry.
        let all = unsafe { (0..sys::ggml_backend_dev_count()).map(|index| sys::ggml_backend_dev_get(index)) };
        all.filter(|device| {
            // SAFETY: a device of the registry is alive for the whole process.
            let kind = unsafe { sys::ggml_backend_dev_type(*device) };
            matches!(kind, sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU)
        })
        .map(Self::decorate)
        .collect()
    }

    /// A device that is in no registry of ggml's: one of another process.
    ///
    /// # Errors
    /// [`LoadError::Interface`] when it is of another version of ggml.
    ///
    /// # Safety
    /// `device` is a `ggml_backend_dev_t` that lives for the whole process, as does its registry entry.
    pub unsafe fn adopt(device: *mut c_void) -> Result<Self, LoadError> {
        Self::decorate(device.cast())
    }

    /// All that were decorated so far.
    pub(crate) fn known() -> Vec<Self> {
        ALL.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The decorated device of a device of ggml's, made the first time.
    pub(crate) fn decorate(inner: sys::ggml_backend_dev_t) -> Result<Self, LoadError> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|device| device.0.inner() == inner || device.handle() == inner) {
            return Ok(*known);
        }
        // SAFETY: a device of ggml's is alive for the whole process, and so is its registry entry.
        let found = unsafe {
            (*sys::ggml_backend_dev_backend_reg(inner).cast::<raw::ggml_backend_reg>()).api_version
        };
        // Static registration does not check the version.
        if u32::try_from(found) != Ok(sys::API_VERSION) {
            return Err(LoadError::Interface { found: found.unsigned_abs(), expected: sys::API_VERSION });
        }
        let device = Self(decorated::leak(inner));
        if device.0.is_cpu() {
            cpu::take_the_place_of(device.0);
        }
        all.push(device);
        Ok(device)
    }
}

fn find(wanted: impl Fn(&Device) -> bool) -> Option<Device> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|device| wanted(device)).copied()
}
