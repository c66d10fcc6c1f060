//! Buffers that own nothing: their base is an address that is never read.
//!
//! llama.cpp fills them while it loads, which does nothing. Nobody may read them: where ggml does (to copy a
//! weight to another backend), it gets a pattern that no result survives, and the decode fails with the name
//! of the weight.

use crate::guard;
use crate::sys::{self, raw};
use std::ffi::{CStr, c_void};

use super::context::context_of;

/// Never dereferenced; ggml only wants it not to be null, and aligned.
const NOWHERE: *mut c_void = std::ptr::without_provenance_mut(0x10_0000);

/// NaN or a huge number in every type of weight.
const POISON: u8 = 0xff;

pub(super) unsafe extern "C" fn alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let interface = raw::ggml_backend_buffer_i {
        free_buffer: None,
        get_base: Some(nowhere),
        init_tensor: None,
        memset_tensor: None,
        set_tensor: Some(ignore_set),
        get_tensor: Some(refuse_get),
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: Some(ignore_clear),
        reset: None,
        set_tensor_n: None,
        get_tensor_n: None,
        cpy_tensor_n: None,
    };
    // SAFETY: the interface is complete for a buffer that is never read, and `buft` is ggml's own argument.
    unsafe { raw::ggml_backend_buffer_init(buft.cast(), interface, std::ptr::null_mut(), size).cast() }
}

unsafe extern "C" fn nowhere(_: sys::ggml_backend_buffer_t) -> *mut c_void {
    NOWHERE
}
unsafe extern "C" fn ignore_set(
    _: sys::ggml_backend_buffer_t,
    _: *mut sys::ggml_tensor,
    _: *const c_void,
    _: usize,
    _: usize,
) {
}
unsafe extern "C" fn refuse_get(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    _: usize,
    size: usize,
) {
    // SAFETY: ggml passes a destination of `size` bytes.
    unsafe { std::ptr::write_bytes(data.cast::<u8>(), POISON, size) };
    let _ = guard::catch(|| {
        // SAFETY: the buffer is ours and alive, so that its type is; the tensor is alive and its name
        // NUL-terminated.
        unsafe {
            let name = CStr::from_ptr((*tensor).name.as_ptr()).to_string_lossy().into_owned();
            context_of(sys::ggml_backend_buffer_get_type(buffer)).notes.misread(name);
        }
    });
}
unsafe extern "C" fn ignore_clear(_: sys::ggml_backend_buffer_t, _: u8) {}

#[cfg(test)]
mod tests {
    use crate::buffer::{BufferTypes, WeightMemory};
    use crate::device::Device;
    use crate::sys;

    #[test]
    fn a_streamed_weight_that_is_read_gives_poison_and_its_name() {
        let mut types = BufferTypes::default();
        let kind = types.handle(WeightMemory::Streamed, Device::cpu().unwrap());
        let mut read = [0_u8; 16];
        // SAFETY: all objects are alive until they are freed at the end, the buffer before its type; the name
        // is NUL-terminated, and the tensor has the 16 bytes that are written and read.
        unsafe {
            let sizes = sys::ggml_init_params {
                mem_size: sys::ggml_tensor_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            };
            let context = sys::ggml_init(sizes);
            let tensor = sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, 4);
            sys::ggml_set_name(tensor, c"blk.0.w".as_ptr());
            let buffer = sys::ggml_backend_buft_alloc_buffer(kind, 4096);
            let base = sys::ggml_backend_buffer_get_base(buffer);
            sys::ggml_backend_tensor_alloc(buffer, tensor, base);
            sys::ggml_backend_tensor_set(tensor, read.as_ptr().cast(), 0, read.len());
            assert_eq!(types.notes().take_misread(), None, "loading writes, and that is nothing");
            sys::ggml_backend_tensor_get(tensor, read.as_mut_ptr().cast(), 0, read.len());
            sys::ggml_backend_buffer_free(buffer);
            sys::ggml_free(context);
        }
        assert_eq!(read, [super::POISON; 16]);
        assert_eq!(types.notes().take_misread().as_deref(), Some("blk.0.w"));
    }
}
