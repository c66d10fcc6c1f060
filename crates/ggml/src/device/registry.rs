//! One decorated device for each of ggml's, made when it is first asked for and never freed: ggml keeps
//! devices for the whole process.
//!
//! The CPU's stands in the place of the real one in ggml's registry, because llama.cpp looks for the CPU
//! there. All others are given to llama.cpp by name (`llama_model_params.devices`), and the registry keeps
//! the real ones.

use crate::error::LoadError;
use crate::sys::{self, raw};
use crate::system::{self, DeviceKind};
use std::ffi::CStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use super::cpu;
use super::decorated::Decorated;

/// A device of ggml's that weights can be placed on. Cheap to copy; equal when it is the same device.
#[derive(Clone, Copy)]
pub struct Device(pub(super) &'static Decorated);

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

    /// The GPUs that ggml found, in its order.
    ///
    /// # Errors
    /// [`LoadError::Interface`] when the linked ggml is of another version.
    pub fn gpus() -> Result<Vec<Self>, LoadError> {
        system::init();
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
        let device = Self(Decorated::leak(inner));
        if device.0.is_cpu() {
            cpu::take_the_place_of(device.0);
        }
        all.push(device);
        Ok(device)
    }

    /// Short name, as ggml gives it: `CPU`, `CUDA0`.
    #[must_use]
    pub fn name(self) -> String {
        // SAFETY: the device is alive for the whole process and its name a static string.
        unsafe { CStr::from_ptr(sys::ggml_backend_dev_name(self.0.inner())) }.to_string_lossy().into_owned()
    }

    /// What kind of device it is.
    #[must_use]
    pub fn kind(self) -> DeviceKind {
        // SAFETY: the device is alive for the whole process.
        DeviceKind::of(unsafe { sys::ggml_backend_dev_type(self.0.inner()) })
    }

    /// Whether what it computes with is memory of the host, so that [`crate::Bytes::Host`] can be bound
    /// there.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.0.is_host()
    }

    /// Our device, for llama.cpp.
    pub(crate) fn handle(self) -> sys::ggml_backend_dev_t {
        self.0.handle()
    }

    /// ggml's device.
    pub(crate) fn inner(self) -> sys::ggml_backend_dev_t {
        self.0.inner()
    }

    /// The memory that the device prefers.
    pub(crate) fn inner_buffer_type(self) -> sys::ggml_backend_buffer_type_t {
        self.0.buffer_type()
    }

    /// What that offers.
    pub(crate) fn inner_buffer_type_interface(self) -> raw::ggml_backend_buffer_type_i {
        // SAFETY: a buffer type lives for the whole process, and its layout is the one that was linked.
        unsafe { (*self.inner_buffer_type().cast::<raw::ggml_backend_buffer_type>()).iface }
    }
}

fn find(wanted: impl Fn(&Device) -> bool) -> Option<Device> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|device| wanted(device)).copied()
}

/// Whether our device is in the place of ggml's CPU device in this process.
pub(crate) fn is_cpu_decorated() -> bool {
    find(|device| device.0.is_cpu()).is_some()
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}
impl Eq for Device {}
impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0).hash(state);
    }
}
impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.name())
    }
}
