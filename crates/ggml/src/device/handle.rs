//! A decorated device of ggml's, as everything else names it.

use crate::sys::{self, raw};
use crate::system::DeviceKind;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::functions::CpuFunctions;

/// What a decorated device wraps. It lives in the `context` of our device and registry objects, and for ever.
pub(crate) struct Decorated {
    pub(super) inner: sys::ggml_backend_dev_t,
    pub(super) inner_registry: sys::ggml_backend_reg_t,
    pub(super) object: *mut raw::ggml_backend_device,
    pub(super) is_cpu: bool,
    pub(super) is_host: bool,
    /// What the inner registry offers by name.
    pub(super) functions: CpuFunctions,
}
// SAFETY: the pointers are to objects that live for the whole process and are never written after
// `decorated::leak`; ggml itself shares them between threads.
unsafe impl Send for Decorated {}
// SAFETY: as above.
unsafe impl Sync for Decorated {}

impl Decorated {
    /// Our device.
    pub fn handle(&self) -> sys::ggml_backend_dev_t {
        self.object.cast()
    }

    /// Our registry entry.
    pub(super) fn registry(&self) -> sys::ggml_backend_reg_t {
        // SAFETY: the object lives for ever.
        unsafe { (*self.object).reg }
    }

    pub(super) fn inner(&self) -> sys::ggml_backend_dev_t {
        self.inner
    }

    pub(super) fn inner_registry(&self) -> sys::ggml_backend_reg_t {
        self.inner_registry
    }

    pub(super) fn is_cpu(&self) -> bool {
        self.is_cpu
    }

    /// Whether its own memory is host memory.
    pub fn is_host(&self) -> bool {
        self.is_host
    }

    pub fn functions(&self) -> &CpuFunctions {
        &self.functions
    }

    pub(super) fn buffer_type(&self) -> sys::ggml_backend_buffer_type_t {
        // SAFETY: the inner device lives for the whole process.
        unsafe { sys::ggml_backend_dev_buffer_type(self.inner) }
    }
}

/// A device of ggml's that weights can be placed on. Cheap to copy; equal when it is the same device.
#[derive(Clone, Copy)]
pub struct Device(pub(super) &'static Decorated);

impl Device {
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

    /// The largest piece of memory that it gives.
    #[must_use]
    pub fn largest_buffer_bytes(self) -> usize {
        // SAFETY: a buffer type lives for the whole process.
        unsafe { sys::ggml_backend_buft_get_max_size(self.inner_buffer_type()) }
    }

    /// Whether it may be asked to read host memory by itself. AMD's driver for Linux goes through all such
    /// pages at each submission.
    pub(crate) fn imports_host_memory(self) -> bool {
        // SAFETY: the device is alive for the whole process, its layout the one that was linked, and its
        // description a static string.
        let (offers, description) = unsafe {
            let offered = (*self.inner().cast::<raw::ggml_backend_device>()).iface.buffer_from_host_ptr;
            (offered.is_some(), CStr::from_ptr(sys::ggml_backend_dev_description(self.inner())))
        };
        let description = description.to_string_lossy();
        offers && !["AMD", "Radeon"].iter().any(|maker| description.contains(maker))
    }

    /// Whether a copy to any memory of the host may be handed over behind a graph, instead of waiting for the
    /// graph first. CUDA's may; Metal takes whole pages alone, and not all of Vulkan's queues have one.
    pub(crate) fn copies_to_host_behind_graphs(self) -> bool {
        self.function(c"ggml_backend_register_host_buffer").is_some()
    }

    /// Has its driver make what it makes when it is first used.
    pub fn open(self) {
        // SAFETY: the device lives for the whole process; a backend that was made is freed once.
        unsafe {
            let backend = sys::ggml_backend_dev_init(self.inner(), std::ptr::null());
            if !backend.is_null() {
                sys::ggml_backend_free(backend);
            }
        }
    }

    /// A function that its backend has beside those of ggml's interface; `None` without one.
    pub(crate) fn function(self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: device and registry are alive for the whole process; the name is NUL-terminated.
        let found = unsafe {
            let registry = sys::ggml_backend_dev_backend_reg(self.inner());
            sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr())
        };
        (!found.is_null()).then_some(found)
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

    /// Its name, by which llama.cpp accounts for what is in it.
    pub(crate) fn buffer_type_name(self) -> CString {
        // SAFETY: a buffer type lives for the whole process, and its name is a NUL-terminated string.
        unsafe { CStr::from_ptr(sys::ggml_backend_buft_name(self.inner_buffer_type())) }.to_owned()
    }

    /// What that offers.
    pub(crate) fn inner_buffer_type_interface(self) -> raw::ggml_backend_buffer_type_i {
        // SAFETY: a buffer type lives for the whole process, and its layout is the one that was linked.
        unsafe { (*self.inner_buffer_type().cast::<raw::ggml_backend_buffer_type>()).iface }
    }
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
