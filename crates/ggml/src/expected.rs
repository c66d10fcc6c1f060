//! The tensors that llama.cpp expects of a model, asked by the model's metadata alone: for tests of
//! architectures that nobody wrote a list of tensors for.

use crate::error::LoadError;
use crate::{guard, log, sys};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

/// `gguf_init_params` of `gguf.h`.
#[repr(C)]
struct GgufInitParams {
    no_alloc: bool,
    ctx: *mut *mut sys::ggml_context,
}

// Of `gguf.h`, which the sys crate does not bind.
unsafe extern "C" {
    fn gguf_init_from_file(path: *const c_char, params: GgufInitParams) -> *mut sys::gguf_context;
    fn gguf_free(file: *mut sys::gguf_context);
}

/// A tensor of a model, as llama.cpp wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Name in the GGUF.
    pub name: String,
    /// Innermost dimension first, without trailing ones.
    pub shape: Vec<u64>,
}

/// The tensors, in the order in which llama.cpp would fill them, of a model with the metadata of the GGUF at
/// `metadata`, whose own tensors do not matter. Such as a model may have are among them. llama.cpp builds the
/// model for that, with floats for weights: it should be a small one.
///
/// # Errors
/// [`LoadError`] with llama.cpp's reason.
pub fn expected_tensors(metadata: &Path) -> Result<Vec<ExpectedTensor>, LoadError> {
    crate::system::init();
    let refused = |reason| LoadError::Refused { path: metadata.to_path_buf(), reason };
    let path = CString::new(metadata.as_os_str().as_encoded_bytes())
        .map_err(|_| LoadError::Path(metadata.to_path_buf()))?;
    let mut tensors: Vec<ExpectedTensor> = Vec::new();
    log::clear();
    // SAFETY: the path is NUL-terminated. llama.cpp copies what it keeps of the metadata, which is freed
    // after the call; devices and list live for the call, and `note` is called during it alone, on this
    // thread. The model is freed at once.
    let built = unsafe {
        let params = GgufInitParams { no_alloc: true, ctx: std::ptr::null_mut() };
        let file = gguf_init_from_file(path.as_ptr(), params);
        if file.is_null() {
            return Err(refused(log::take()));
        }
        let mut params = sys::llama_model_default_params();
        let mut devices = [std::ptr::null_mut()];
        (params.devices, params.n_gpu_layers) = (devices.as_mut_ptr(), 0);
        let list = (&raw mut tensors).cast::<c_void>();
        let model = sys::llama_model_init_from_user(file, Some(note), list, params);
        gguf_free(file);
        sys::llama_model_free(model);
        !model.is_null()
    };
    if built { Ok(tensors) } else { Err(refused(log::take())) }
}

/// llama.cpp's `llama_model_set_tensor_data_t`: writes a tensor down instead of filling it.
unsafe extern "C" fn note(tensor: *mut sys::ggml_tensor, list: *mut c_void) {
    // A tensor that was not noted is missing from the file: llama.cpp then says so.
    let _ = guard::catch(|| {
        // SAFETY: llama.cpp passes a live tensor with a NUL-terminated name, and the list of the call in
        // progress, which nobody else uses meanwhile.
        let (tensor, list) = unsafe { (&*tensor, &mut *list.cast::<Vec<ExpectedTensor>>()) };
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(tensor.name.as_ptr()) }.to_string_lossy().into_owned();
        let used = tensor.ne.iter().rposition(|length| *length != 1).map_or(1, |last| last + 1);
        let shape = tensor.ne[..used].iter().map(|length| length.unsigned_abs()).collect();
        if list.iter().all(|known| known.name != name) {
            list.push(ExpectedTensor { name, shape });
        }
    });
}
