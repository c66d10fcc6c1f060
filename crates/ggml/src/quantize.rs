//! llama.cpp's quantiser: a GGUF in another type.
//!
//! It reads and writes files itself, on the thread that calls it, and tells how far it is by its log alone.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::{log, sys};

/// Between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Rows of tensors in memory at once, in bytes.
const MOST_BUFFER_BYTES: usize = 512 << 20;

/// Names of quantisations, as people and Ollama write them, and llama.cpp's numbers of them.
const KINDS: [(&str, sys::llama_ftype); 27] = [
    ("F32", sys::LLAMA_FTYPE_ALL_F32),
    ("F16", sys::LLAMA_FTYPE_MOSTLY_F16),
    ("BF16", sys::LLAMA_FTYPE_MOSTLY_BF16),
    ("Q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
    ("Q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1),
    ("Q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
    ("Q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1),
    ("Q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    ("Q2_K", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
    ("Q2_K_S", sys::LLAMA_FTYPE_MOSTLY_Q2_K_S),
    ("Q3_K", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    ("Q3_K_S", sys::LLAMA_FTYPE_MOSTLY_Q3_K_S),
    ("Q3_K_M", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    ("Q3_K_L", sys::LLAMA_FTYPE_MOSTLY_Q3_K_L),
    ("Q4_K", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    ("Q4_K_S", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
    ("Q4_K_M", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    ("Q5_K", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    ("Q5_K_S", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S),
    ("Q5_K_M", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    ("Q6_K", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
    ("IQ3_S", sys::LLAMA_FTYPE_MOSTLY_IQ3_S),
    ("IQ3_M", sys::LLAMA_FTYPE_MOSTLY_IQ3_M),
    ("IQ4_NL", sys::LLAMA_FTYPE_MOSTLY_IQ4_NL),
    ("IQ4_XS", sys::LLAMA_FTYPE_MOSTLY_IQ4_XS),
    ("TQ1_0", sys::LLAMA_FTYPE_MOSTLY_TQ1_0),
    ("TQ2_0", sys::LLAMA_FTYPE_MOSTLY_TQ2_0),
];

/// Why a model was not quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// No such quantisation, or one that needs an importance matrix.
    #[error("unsupported quantization type {0}: there are {names}", names = names())]
    Kind(String),
    /// A path with a NUL byte.
    #[error("a path contains a NUL byte")]
    Path,
    /// llama.cpp refused; the text is its own.
    #[error("llama.cpp cannot quantize it: {0}")]
    Refused(String),
}

/// Whether llama.cpp's quantiser knows a quantisation of this name, in any case.
#[must_use]
pub fn is_quantization(kind: &str) -> bool {
    ftype(kind).is_some()
}

fn ftype(kind: &str) -> Option<sys::llama_ftype> {
    KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)).map(|(_, ftype)| *ftype)
}

fn names() -> String {
    KINDS.map(|(name, _)| name).join(", ")
}

/// Writes the model of `input` (of several shards: the first) to `output` in the quantisation `kind`, on
/// `threads` threads. `watch` is told how many tensors of how many were begun.
///
/// # Errors
/// [`QuantizeError`]. Then `output` may be there in part.
pub fn quantize(
    input: &Path,
    output: &Path,
    kind: &str,
    threads: u32,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<(), QuantizeError> {
    let ftype = ftype(kind).ok_or_else(|| QuantizeError::Kind(kind.to_owned()))?;
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| QuantizeError::Path);
    let (input, output) = (path(input)?, path(output)?);
    crate::system::init();
    let progress: Arc<AtomicU64> = Arc::default();
    thread::scope(|scope| {
        let work = scope.spawn(|| {
            log::clear();
            log::with_tensors(&progress, || call(&input, &output, ftype, threads))
        });
        while !work.is_finished() {
            thread::sleep(REPORT_EVERY);
            let (begun, all) = log::unpacked(progress.load(Ordering::Relaxed));
            if all > 0 {
                watch(begun, all);
            }
        }
        work.join().unwrap_or_else(|_| Err(QuantizeError::Refused("its thread died".to_owned())))
    })
}

fn call(
    input: &CString,
    output: &CString,
    ftype: sys::llama_ftype,
    threads: u32,
) -> Result<(), QuantizeError> {
    // SAFETY: the function takes nothing and returns plain data.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.nthread = i32::try_from(threads).unwrap_or(i32::MAX);
    params.ftype = ftype;
    // What is quantised already would only get worse: llama.cpp refuses it.
    params.allow_requantize = false;
    params.max_buf_size = MOST_BUFFER_BYTES;
    // SAFETY: both strings end with NUL and live for the call, `params` too, whose pointers are null as the
    // defaults leave them. Exceptions are caught inside.
    let failed = unsafe { sys::llama_model_quantize(input.as_ptr(), output.as_ptr(), &raw const params) };
    if failed == 0 { Ok(()) } else { Err(QuantizeError::Refused(log::take())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisations_are_known_in_any_case() {
        assert!(is_quantization("q4_K_m") && is_quantization("BF16"));
        // These need an importance matrix.
        assert!(!is_quantization("IQ2_XXS") && !is_quantization(""));
    }
}
