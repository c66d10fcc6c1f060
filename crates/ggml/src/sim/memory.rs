//! Buffers of the simulated device: host memory behind addresses that nobody may follow.

use crate::sys::{self, raw};
use std::ffi::{c_char, c_void};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::order::Order;

/// Addresses begin here: not canonical on any processor that this runs on, so that following one faults.
const FIRST_ADDRESS: usize = 1 << 56;

/// Alignment of tensors, and of buffers.
pub(super) const ALIGNMENT: usize = 128;

/// Host memory is imported in pages of this size.
const HOST_PAGE: usize = 4096;

/// What memory holds before it is written to.
const POISON: u8 = 0xff;

/// The memory of a device.
pub(super) struct Pool {
    next_address: AtomicUsize,
    pub total: usize,
    /// The largest buffer.
    pub largest: usize,
    pub used: AtomicUsize,
    pub order: Arc<Order>,
}

impl Pool {
    pub fn new(total: usize, largest: Option<usize>, order: Arc<Order>) -> Self {
        let next_address = AtomicUsize::new(FIRST_ADDRESS);
        let largest = largest.unwrap_or(usize::MAX);
        Self { next_address, total, largest, used: AtomicUsize::new(0), order }
    }
}

/// One buffer.
pub(super) struct SimBuffer {
    pool: Arc<Pool>,
    /// What ggml believes its address to be.
    base: usize,
    size: usize,
    memory: Memory,
}

/// Where the bytes of a buffer really are.
enum Memory {
    /// Queues write to it while others look at other parts.
    Own(Box<[Line]>),
    /// The host's, which whoever had it imported keeps.
    Host(*mut u8),
}

/// As much memory as tensors are aligned to.
#[repr(align(128))]
struct Line {
    #[expect(dead_code, reason = "read and written through the address of the whole")]
    bytes: [AtomicU8; ALIGNMENT],
}

impl Line {
    fn poisoned() -> Self {
        Self { bytes: std::array::from_fn(|_| AtomicU8::new(POISON)) }
    }
}

impl SimBuffer {
    fn start(&self) -> *mut u8 {
        match &self.memory {
            // Atomics may change behind a shared reference.
            Memory::Own(lines) => lines.as_ptr().cast_mut().cast(),
            Memory::Host(address) => *address,
        }
    }
}

/// The buffer that a tensor lies in, where it is one of a simulated device.
///
/// # Safety
/// `tensor` is alive, and so is the buffer that it names.
unsafe fn buffer_of<'a>(tensor: *const sys::ggml_tensor) -> Option<&'a SimBuffer> {
    // SAFETY: the caller's promise; a buffer with our function has our context.
    unsafe {
        let viewed = (*tensor).view_src;
        let buffer = if viewed.is_null() { (*tensor).buffer } else { (*viewed).buffer };
        let buffer = buffer.cast::<raw::ggml_backend_buffer>();
        let ours = !buffer.is_null()
            && (*buffer)
                .iface
                .get_base
                .is_some_and(|function| function as usize == base as *const () as usize);
        ours.then(|| &*(*buffer).context.cast::<SimBuffer>())
    }
}

/// Where the bytes of a tensor really are; `None` where they are not memory of a simulated device, or beyond
/// its buffer.
///
/// # Safety
/// As [`buffer_of`].
pub(super) unsafe fn host_address(tensor: *const sys::ggml_tensor) -> Option<*mut u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let buffer = buffer_of(tensor)?;
        let at = ((*tensor).data as usize).checked_sub(buffer.base)?;
        let end = at.checked_add(sys::ggml_nbytes(tensor))?;
        (end <= buffer.size).then(|| buffer.start().add(at))
    }
}

/// The addresses of a part of a tensor, as the device counts them.
///
/// # Safety
/// `tensor` is alive.
pub(super) unsafe fn span(tensor: *const sys::ggml_tensor, offset: usize, size: usize) -> Range<usize> {
    // SAFETY: the caller's promise.
    let start = unsafe { (*tensor).data } as usize + offset;
    start..start + size
}

pub(super) unsafe extern "C" fn type_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"SIM".as_ptr()
}
pub(super) unsafe extern "C" fn alignment(_: sys::ggml_backend_buffer_type_t) -> usize {
    ALIGNMENT
}

/// `get_max_size`; the context of the type is its device's pool.
pub(super) unsafe extern "C" fn largest(buft: sys::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: ggml passes our live buffer type, whose context is a pool that lives for ever.
    unsafe { &*(*buft.cast::<raw::ggml_backend_buffer_type>()).context.cast::<Arc<Pool>>() }.largest
}

/// `alloc_buffer`; the context of the type is its device's pool.
pub(super) unsafe extern "C" fn alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: ggml passes our live buffer type, whose context is a pool that lives for ever.
    let pool = unsafe { &*(*buft.cast::<raw::ggml_backend_buffer_type>()).context.cast::<Arc<Pool>>() };
    if pool.used.fetch_add(size, Ordering::Relaxed) + size > pool.total {
        pool.used.fetch_sub(size, Ordering::Relaxed);
        return std::ptr::null_mut();
    }
    let room = size.next_multiple_of(ALIGNMENT) + ALIGNMENT;
    let buffer = SimBuffer {
        pool: Arc::clone(pool),
        base: pool.next_address.fetch_add(room, Ordering::Relaxed),
        size,
        memory: Memory::Own((0..room / ALIGNMENT).map(|_| Line::poisoned()).collect()),
    };
    // SAFETY: `buft` is ggml's own argument.
    unsafe { wrap(buft, buffer) }
}

/// `buffer_from_host_ptr`: as Vulkan, it wants whole pages, and refuses more than its
/// largest buffer.
///
/// # Safety
/// `buft` is the live buffer type of a simulated device, whose context is a pool that lives for ever; `size`
/// bytes at `pointer` are alive until the buffer is freed.
pub(super) unsafe fn import(
    buft: sys::ggml_backend_buffer_type_t,
    pointer: *mut c_void,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    if !size.is_multiple_of(HOST_PAGE) || !(pointer as usize).is_multiple_of(HOST_PAGE) {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    let pool = unsafe { &*(*buft.cast::<raw::ggml_backend_buffer_type>()).context.cast::<Arc<Pool>>() };
    if size > pool.largest {
        return std::ptr::null_mut();
    }
    // It is no memory of the pool's, but is there until it is freed.
    pool.used.fetch_add(size, Ordering::Relaxed);
    let base = pool.next_address.fetch_add(size.next_multiple_of(ALIGNMENT) + ALIGNMENT, Ordering::Relaxed);
    let memory = Memory::Host(pointer.cast());
    // SAFETY: the caller's promise.
    unsafe { wrap(buft, SimBuffer { pool: Arc::clone(pool), base, size, memory }) }
}

/// A buffer of ggml's.
///
/// # Safety
/// `buft` is alive.
unsafe fn wrap(buft: sys::ggml_backend_buffer_type_t, buffer: SimBuffer) -> sys::ggml_backend_buffer_t {
    let size = buffer.size;
    let interface = raw::ggml_backend_buffer_i {
        free_buffer: Some(free),
        get_base: Some(base),
        init_tensor: None,
        memset_tensor: Some(memset),
        set_tensor: Some(set),
        get_tensor: Some(get),
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: Some(copy),
        clear: Some(clear),
        reset: None,
        set_tensor_n: None,
        get_tensor_n: None,
        cpy_tensor_n: None,
    };
    let context = Box::into_raw(Box::new(buffer)).cast::<c_void>();
    // SAFETY: the interface fits the context; the caller vouches for `buft`.
    unsafe { raw::ggml_backend_buffer_init(buft.cast(), interface, context, size).cast() }
}

/// # Safety
/// `buffer` is a live buffer of ours.
unsafe fn of<'a>(buffer: sys::ggml_backend_buffer_t) -> &'a SimBuffer {
    // SAFETY: the caller's promise.
    unsafe { &*(*buffer.cast::<raw::ggml_backend_buffer>()).context.cast::<SimBuffer>() }
}

unsafe extern "C" fn free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: ggml frees a buffer once; the context was boxed by `alloc`.
    let buffer =
        unsafe { Box::from_raw((*buffer.cast::<raw::ggml_backend_buffer>()).context.cast::<SimBuffer>()) };
    buffer.pool.used.fetch_sub(buffer.size, Ordering::Relaxed);
    buffer.pool.order.host_access(&(buffer.base..buffer.base + buffer.size), true, "a buffer is freed");
}
unsafe extern "C" fn base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: ggml passes a live buffer of ours.
    std::ptr::without_provenance_mut(unsafe { of(buffer) }.base)
}
unsafe extern "C" fn memset(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    value: u8,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml passes a live buffer of ours, a live tensor in it, and a range that it checked.
    unsafe {
        of(buffer).pool.order.host_access(&span(tensor, offset, size), true, "memset_tensor");
        if let Some(address) = host_address(tensor) {
            std::ptr::write_bytes(address.add(offset), value, size);
        }
    }
}
unsafe extern "C" fn set(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as above; `data` holds `size` bytes.
    unsafe {
        of(buffer).pool.order.host_access(&span(tensor, offset, size), true, "set_tensor");
        if let Some(address) = host_address(tensor) {
            std::ptr::copy_nonoverlapping(data.cast::<u8>(), address.add(offset), size);
        }
    }
}
unsafe extern "C" fn get(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as above; `data` has room for `size` bytes.
    unsafe {
        of(buffer).pool.order.host_access(&span(tensor, offset, size), false, "get_tensor");
        if let Some(address) = host_address(tensor) {
            std::ptr::copy_nonoverlapping(address.add(offset), data.cast::<u8>(), size);
        }
    }
}
unsafe extern "C" fn copy(
    buffer: sys::ggml_backend_buffer_t,
    source: *const sys::ggml_tensor,
    target: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes live tensors of one size, the target in a live buffer of ours.
    unsafe {
        let (Some(from), Some(to)) = (host_address(source), host_address(target)) else { return false };
        let size = sys::ggml_nbytes(source);
        let order = &of(buffer).pool.order;
        order.host_access(&span(source, 0, size), false, "cpy_tensor");
        order.host_access(&span(target, 0, size), true, "cpy_tensor");
        std::ptr::copy(from, to, size);
    }
    true
}
unsafe extern "C" fn clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: ggml passes a live buffer of ours, which nobody else uses.
    unsafe {
        let buffer = of(buffer);
        buffer.pool.order.host_access(&(buffer.base..buffer.base + buffer.size), true, "clear");
        std::ptr::write_bytes(buffer.start(), value, buffer.size);
    }
}
