//! The simulated device itself.

use crate::device::Device;
use crate::error::LoadError;
use crate::sys::{self, raw};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::backend::{self, EventObject, SimEvent};
use super::memory::{self, Pool};
use super::order::Order;
use super::queue::{Cpu, Queue};

/// What a simulated device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimDeviceOptions {
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// Longest delay before a piece of work.
    pub delay: Duration,
    /// Of delays, and of the order of copies.
    pub seed: u64,
    /// Whether it computes with the host's memory where it is, and how large its buffers are then.
    pub imports: Option<usize>,
}

impl Default for SimDeviceOptions {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, delay: Duration::from_micros(50), seed: 1, imports: None }
    }
}

/// A simulated device. It lives for the whole process, as ggml expects of devices.
#[derive(Clone, Copy)]
pub struct SimDevice {
    device: Device,
    state: &'static State,
}

struct State {
    pool: Arc<Pool>,
    buffer_type: *mut raw::ggml_backend_buffer_type,
    cpu: sys::ggml_backend_dev_t,
    options: SimDeviceOptions,
    queues: AtomicUsize,
}
// SAFETY: the pointers are to objects that live for the whole process and are not written after
// `SimDevice::new`.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

impl SimDevice {
    /// Makes a device.
    ///
    /// # Errors
    /// As [`Device::cpu`], with whose kernels it computes.
    pub fn new(options: SimDeviceOptions) -> Result<Self, LoadError> {
        let cpu = Device::cpu()?.inner();
        let pool = Arc::new(Pool::new(options.memory_bytes, options.imports, Arc::default()));
        let registry = Box::into_raw(Box::new(raw::ggml_backend_reg {
            api_version: raw::GGML_BACKEND_API_VERSION.cast_signed(),
            iface: raw::ggml_backend_reg_i {
                get_name: Some(registry_name),
                get_device_count: Some(registry_count),
                get_device: Some(registry_device),
                get_proc_address: None,
            },
            context: std::ptr::null_mut(),
        }));
        let device = Box::into_raw(Box::new(raw::ggml_backend_device {
            iface: interface(options.imports.is_some()),
            reg: registry.cast(),
            context: std::ptr::null_mut(),
        }));
        let none = raw::ggml_backend_buffer_type_i {
            get_name: Some(memory::type_name),
            alloc_buffer: Some(memory::alloc),
            alloc_buffer_n: None,
            get_alignment: Some(memory::alignment),
            get_max_size: Some(memory::largest),
            get_alloc_size: None,
            get_alloc_size_n: None,
            is_host: None,
        };
        let buffer_type = Box::into_raw(Box::new(raw::ggml_backend_buffer_type {
            iface: none,
            device: device.cast(),
            context: Box::into_raw(Box::new(Arc::clone(&pool))).cast(),
        }));
        let queues = AtomicUsize::new(0);
        let state: &'static State = Box::leak(Box::new(State { pool, buffer_type, cpu, options, queues }));
        // SAFETY: both objects were just leaked, and nobody has them yet.
        unsafe {
            (*device).context = std::ptr::from_ref(state).cast_mut().cast::<c_void>();
            (*registry).context = device.cast();
        }
        Ok(Self { device: Device::decorate(device.cast())?, state })
    }

    /// The device, decorated as any other.
    #[must_use]
    pub fn device(self) -> Device {
        self.device
    }

    /// Who used memory that was in use, or memory that is not the device's.
    #[must_use]
    pub fn violations(self) -> Vec<String> {
        self.state.pool.order.violations()
    }

    /// Has one graph fail, the one behind `graphs` others.
    pub fn fail_behind(self, graphs: usize) {
        self.state.pool.order.fail_behind(graphs);
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(self) -> usize {
        self.state.pool.used.load(Ordering::Relaxed)
    }
}

fn interface(imports: bool) -> raw::ggml_backend_device_i {
    raw::ggml_backend_device_i {
        get_name: Some(name),
        get_description: Some(name),
        get_memory: Some(memory_of),
        get_type: Some(kind),
        get_props: Some(properties),
        init_backend: Some(init_backend),
        get_buffer_type: Some(buffer_type),
        get_host_buffer_type: None,
        buffer_from_host_ptr: if imports { Some(import) } else { None },
        supports_op: Some(supports_op),
        supports_buft: Some(supports_buffer_type),
        offload_op: None,
        event_new: Some(event_new),
        event_free: Some(event_free),
        event_synchronize: Some(event_synchronize),
    }
}

/// # Safety
/// `device` is a simulated device.
unsafe fn of(device: sys::ggml_backend_dev_t) -> &'static State {
    // SAFETY: the caller's promise; its state lives for ever.
    unsafe { &*(*device.cast::<raw::ggml_backend_device>()).context.cast::<State>() }
}

unsafe extern "C" fn name(_: sys::ggml_backend_dev_t) -> *const c_char {
    c"SIM".as_ptr()
}
unsafe extern "C" fn memory_of(device: sys::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // SAFETY: ggml passes our device and pointers to write to.
    unsafe {
        let pool = &of(device).pool;
        *total = pool.total;
        *free = pool.total.saturating_sub(pool.used.load(Ordering::Relaxed));
    }
}
unsafe extern "C" fn kind(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_GPU
}
unsafe extern "C" fn properties(device: sys::ggml_backend_dev_t, props: *mut sys::ggml_backend_dev_props) {
    // SAFETY: ggml passes our device and a struct to fill.
    unsafe {
        (*props).name = c"SIM".as_ptr();
        (*props).description = c"SIM".as_ptr();
        (*props).device_id = std::ptr::null();
        (*props).type_ = sys::GGML_BACKEND_DEVICE_TYPE_GPU;
        memory_of(device, &raw mut (*props).memory_free, &raw mut (*props).memory_total);
        (*props).caps = sys::ggml_backend_dev_caps {
            async_: true,
            host_buffer: false,
            buffer_from_host_ptr: false,
            events: true,
            mmap_support: true,
        };
    }
}
unsafe extern "C" fn init_backend(device: sys::ggml_backend_dev_t, _: *const c_char) -> sys::ggml_backend_t {
    // SAFETY: ggml passes our device.
    let state = unsafe { of(device) };
    let id = state.queues.fetch_add(1, Ordering::Relaxed);
    let SimDeviceOptions { delay, seed, .. } = state.options;
    let order: Arc<Order> = Arc::clone(&state.pool.order);
    backend::wrap(device, Queue::new(id, order, delay, seed.wrapping_add(id as u64), Cpu(state.cpu)))
}
unsafe extern "C" fn buffer_type(device: sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: ggml passes our device.
    unsafe { of(device) }.buffer_type.cast()
}
unsafe extern "C" fn import(
    device: sys::ggml_backend_dev_t,
    pointer: *mut c_void,
    size: usize,
    _largest_tensor: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: ggml passes our device.
    let buffer_type = unsafe { of(device) }.buffer_type;
    // SAFETY: the memory is the caller's, who keeps it until the buffer is freed.
    unsafe { memory::import(buffer_type.cast(), pointer, size) }
}
unsafe extern "C" fn supports_op(device: sys::ggml_backend_dev_t, op: *const sys::ggml_tensor) -> bool {
    // SAFETY: ggml passes our device and a live node; the CPU's device lives for the whole process.
    unsafe { sys::ggml_backend_dev_supports_op(of(device).cpu, op) }
}
unsafe extern "C" fn supports_buffer_type(
    device: sys::ggml_backend_dev_t,
    buft: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes our device.
    std::ptr::eq(buft.cast_const().cast(), unsafe { of(device) }.buffer_type.cast_const())
}
unsafe extern "C" fn event_new(device: sys::ggml_backend_dev_t) -> sys::ggml_backend_event_t {
    let context = Box::into_raw(Box::<SimEvent>::default()).cast();
    Box::into_raw(Box::new(EventObject { device: device.cast(), context })).cast()
}
unsafe extern "C" fn event_free(_: sys::ggml_backend_dev_t, event: sys::ggml_backend_event_t) {
    // SAFETY: ggml frees an event once; both boxes were made by `event_new`.
    unsafe {
        let event = Box::from_raw(event.cast::<EventObject>());
        drop(Box::from_raw(event.context.cast::<SimEvent>()));
    }
}
unsafe extern "C" fn event_synchronize(_: sys::ggml_backend_dev_t, event: sys::ggml_backend_event_t) {
    // SAFETY: ggml passes a live event of ours.
    unsafe { &*(*event.cast::<EventObject>()).context.cast::<SimEvent>() }.synchronize();
}

unsafe extern "C" fn registry_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    c"SIM".as_ptr()
}
unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    1
}
unsafe extern "C" fn registry_device(registry: sys::ggml_backend_reg_t, _: usize) -> sys::ggml_backend_dev_t {
    // SAFETY: ggml passes our registry entry, whose context is the device.
    unsafe { (*registry.cast::<raw::ggml_backend_reg>()).context.cast() }
}
