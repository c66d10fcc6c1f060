//! A decorated device: forwards everything to the device of ggml's that it wraps, except what concerns our
//! buffer types.
//!
//! It offers what the inner device offers and nothing else: a function that is missing there is missing here.
//!
//! One lie is told on purpose: `supports_op` says yes to any node with a streamed weight of this device,
//! because the executor will run it on the inner backend with real memory bound.

use crate::buffer::kind::{belongs_to, kind_of};
use crate::buffer::{WeightMemory, is_streamed};
use crate::sys::{self, raw};
use std::ffi::{CStr, c_char, c_void};

use super::backend;
use super::cpu;
use super::functions::CpuFunctions;
use super::handle::{Decorated, Device};

/// Wraps a device of ggml's, which lives for the whole process.
pub(super) fn leak(inner: sys::ggml_backend_dev_t) -> &'static Decorated {
    let registry = Box::into_raw(Box::new(registry_object()));
    // SAFETY: the inner device is alive, its layout the one that was linked; the boxes are leaked on
    // purpose, so that the contexts can be set once all three exist.
    unsafe {
        let inner_registry = sys::ggml_backend_dev_backend_reg(inner);
        let offered = &(*inner.cast::<raw::ggml_backend_device>()).iface;
        let object = Box::into_raw(Box::new(device_object(offered, registry.cast())));
        let decorated = Box::leak(Box::new(Decorated {
            inner,
            inner_registry,
            object,
            is_cpu: sys::ggml_backend_dev_type(inner) == sys::GGML_BACKEND_DEVICE_TYPE_CPU,
            is_host: sys::ggml_backend_buft_is_host(sys::ggml_backend_dev_buffer_type(inner)),
            functions: CpuFunctions::of(inner_registry),
        }));
        let context = std::ptr::from_ref::<Decorated>(decorated).cast_mut().cast::<c_void>();
        (*object).context = context;
        (*registry).context = context;
        decorated
    }
}

fn registry_object() -> raw::ggml_backend_reg {
    raw::ggml_backend_reg {
        api_version: raw::GGML_BACKEND_API_VERSION.cast_signed(),
        iface: raw::ggml_backend_reg_i {
            get_name: Some(registry_name),
            get_device_count: Some(registry_count),
            get_device: Some(registry_device),
            get_proc_address: Some(proc_address),
        },
        context: std::ptr::null_mut(),
    }
}

fn device_object(
    offered: &raw::ggml_backend_device_i,
    registry: sys::ggml_backend_reg_t,
) -> raw::ggml_backend_device {
    raw::ggml_backend_device {
        iface: raw::ggml_backend_device_i {
            get_name: Some(name),
            get_description: Some(description),
            get_memory: Some(memory),
            get_type: Some(kind),
            get_props: Some(properties),
            init_backend: Some(init_backend),
            get_buffer_type: Some(default_buffer_type),
            get_host_buffer_type: offered.get_host_buffer_type.map(|_| host_buffer_type as _),
            buffer_from_host_ptr: offered.buffer_from_host_ptr.map(|_| buffer_from_host_ptr as _),
            supports_op: Some(supports_op),
            supports_buft: Some(supports_buffer_type),
            offload_op: offered.offload_op.map(|_| offload_op as _),
            event_new: offered.event_new.map(|_| event_new as _),
            event_free: offered.event_free.map(|_| event_free as _),
            event_synchronize: offered.event_synchronize.map(|_| event_synchronize as _),
        },
        reg: registry,
        context: std::ptr::null_mut(),
    }
}

/// What a device of ours wraps.
///
/// # Safety
/// `device` is the object of a [`Decorated`].
unsafe fn of(device: sys::ggml_backend_dev_t) -> &'static Decorated {
    // SAFETY: the caller's promise; the context was set by `leak` and lives for ever.
    unsafe { &*(*device.cast::<raw::ggml_backend_device>()).context.cast::<Decorated>() }
}

/// The same for our registry entry.
///
/// # Safety
/// `registry` is the registry object of a [`Decorated`].
unsafe fn of_registry(registry: sys::ggml_backend_reg_t) -> &'static Decorated {
    // SAFETY: as above.
    unsafe { &*(*registry.cast::<raw::ggml_backend_reg>()).context.cast::<Decorated>() }
}

/// Functions of a device that are those of the inner device.
macro_rules! forwarded {
    ($($name:ident($($argument:ident: $ty:ty),*) $(-> $result:ty)? = $inner:path;)*) => {$(
        unsafe extern "C" fn $name(device: sys::ggml_backend_dev_t $(, $argument: $ty)*) $(-> $result)? {
            // SAFETY: ggml passes our live device, and arguments that the inner one takes as they are.
            unsafe { $inner(of(device).inner $(, $argument)*) }
        }
    )*};
}
forwarded! {
    name() -> *const c_char = sys::ggml_backend_dev_name;
    description() -> *const c_char = sys::ggml_backend_dev_description;
    memory(free: *mut usize, total: *mut usize) = sys::ggml_backend_dev_memory;
    kind() -> sys::ggml_backend_dev_type = sys::ggml_backend_dev_type;
    properties(props: *mut sys::ggml_backend_dev_props) = sys::ggml_backend_dev_get_props;
    default_buffer_type() -> sys::ggml_backend_buffer_type_t = sys::ggml_backend_dev_buffer_type;
    host_buffer_type() -> sys::ggml_backend_buffer_type_t = sys::ggml_backend_dev_host_buffer_type;
    buffer_from_host_ptr(pointer: *mut c_void, size: usize, max_tensor_size: usize)
        -> sys::ggml_backend_buffer_t = sys::ggml_backend_dev_buffer_from_host_ptr;
    offload_op(op: *const sys::ggml_tensor) -> bool = sys::ggml_backend_dev_offload_op;
    // The event is the inner device's: it needs no wrapper, and ggml frees and awaits it through its own
    // device.
    event_new() -> sys::ggml_backend_event_t = sys::ggml_backend_event_new;
}

unsafe extern "C" fn event_free(_: sys::ggml_backend_dev_t, event: sys::ggml_backend_event_t) {
    // SAFETY: `event_new` made it on the inner device, which it names.
    unsafe { sys::ggml_backend_event_free(event) }
}
unsafe extern "C" fn event_synchronize(_: sys::ggml_backend_dev_t, event: sys::ggml_backend_event_t) {
    // SAFETY: as above.
    unsafe { sys::ggml_backend_event_synchronize(event) }
}
unsafe extern "C" fn init_backend(
    device: sys::ggml_backend_dev_t,
    params: *const c_char,
) -> sys::ggml_backend_t {
    // SAFETY: forwarded to the live inner device; a null result is passed on.
    unsafe {
        let inner = sys::ggml_backend_dev_init(of(device).inner, params);
        if inner.is_null() { inner } else { backend::decorate(Device(of(device)), inner) }
    }
}
unsafe extern "C" fn supports_op(device: sys::ggml_backend_dev_t, op: *const sys::ggml_tensor) -> bool {
    // SAFETY: ggml passes a live node. A streamed weight itself arrives as a leaf (GGML_OP_NONE).
    unsafe {
        for tensor in [op, (*op).src[0].cast_const()] {
            if is_streamed(tensor) {
                return belongs_to(sys::ggml_backend_buffer_get_type((*tensor).buffer), Device(of(device)));
            }
        }
        sys::ggml_backend_dev_supports_op(of(device).inner, op)
    }
}
unsafe extern "C" fn supports_buffer_type(
    device: sys::ggml_backend_dev_t,
    buft: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes our live device and a live buffer type; the inner device lives for the whole
    // process.
    unsafe {
        match kind_of(buft) {
            Some(WeightMemory::Streamed | WeightMemory::Resident) => belongs_to(buft, Device(of(device))),
            None => sys::ggml_backend_dev_supports_buft(of(device).inner, buft),
        }
    }
}

unsafe extern "C" fn registry_name(registry: sys::ggml_backend_reg_t) -> *const c_char {
    // SAFETY: forwarded to the live inner registry.
    unsafe { sys::ggml_backend_reg_name(of_registry(registry).inner_registry) }
}
unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    1
}
unsafe extern "C" fn registry_device(registry: sys::ggml_backend_reg_t, _: usize) -> sys::ggml_backend_dev_t {
    // SAFETY: ggml passes our live registry entry.
    unsafe { of_registry(registry) }.handle()
}
unsafe extern "C" fn proc_address(registry: sys::ggml_backend_reg_t, name: *const c_char) -> *mut c_void {
    if name.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: ggml passes our live registry entry and a NUL-terminated string.
    let (decorated, wanted) = unsafe { (of_registry(registry), CStr::from_ptr(name)) };
    // How an executor gets to its backend: asked of every device (`exec::attach`).
    if wanted == c"ggml_backend_set_abort_callback" {
        return backend::set_abort_callback as *mut c_void;
    }
    // SAFETY: forwarded to the live inner registry with ggml's own string.
    let inner = unsafe { sys::ggml_backend_reg_get_proc_address(decorated.inner_registry, name) };
    // Functions that take a backend must unwrap ours first; the rest may be the inner device's own.
    if inner.is_null() { inner } else { cpu::replacement(decorated, wanted).unwrap_or(inner) }
}
