//! llama.cpp's log: kept quiet, with the last error lines at hand for our own messages.

use crate::sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

static INSTALL: Once = Once::new();

thread_local! {
    // llama.cpp logs on the thread that called it, so each caller finds its own lines.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
    // Where lines that count tensors go, while this thread quantises.
    static TENSORS: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
}

/// Does `work`; lines of llama.cpp's quantiser that count tensors are told to `tensors`, packed.
pub(crate) fn with_tensors<T>(tensors: &Arc<AtomicU64>, work: impl FnOnce() -> T) -> T {
    TENSORS.with_borrow_mut(|slot| *slot = Some(Arc::clone(tensors)));
    let done = work();
    TENSORS.with_borrow_mut(|slot| *slot = None);
    done
}

/// How many of how many, in one number.
fn packed(begun: u32, all: u32) -> u64 {
    u64::from(begun) << 32 | u64::from(all)
}

pub(crate) fn unpacked(packed: u64) -> (u64, u64) {
    (packed >> 32, packed & u64::from(u32::MAX))
}

/// `[  12/ 291] …`
fn count_of(line: &str) -> Option<(u32, u32)> {
    let (count, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let (begun, all) = count.split_once('/')?;
    Some((begun.trim().parse().ok()?, all.trim().parse().ok()?))
}

/// Routes llama.cpp's log here (once).
pub(crate) fn install() {
    INSTALL.call_once(|| {
        // SAFETY: `on_log` has the type of ggml_log_callback, lives for ever and ignores its user data.
        unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
    });
}

/// Forgets the errors of earlier calls on this thread.
pub(crate) fn clear() {
    LAST.with_borrow_mut(String::clear);
}

/// The error lines since [`clear`], joined by semicolons; never empty.
pub(crate) fn take() -> String {
    reason(&LAST.with_borrow_mut(std::mem::take))
}

/// The error lines of a log, the cause first, each once.
fn reason(log: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in log.lines().map(|line| strip_function(line.trim())).filter(|line| !line.is_empty()) {
        // llama.cpp says at each level what it heard from the one below.
        if !lines.iter().any(|known| line.contains(known) || known.contains(line)) {
            lines.push(line);
        }
    }
    if lines.is_empty() { "no reason given".to_owned() } else { lines.join("; ") }
}

/// Drops llama.cpp's leading `function: ` from a message.
fn strip_function(line: &str) -> &str {
    match line.split_once(": ") {
        Some((name, rest)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => rest,
        _ => line,
    }
}

pub(crate) unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let _ = crate::guard::catch(|| {
        if level == sys::GGML_LOG_LEVEL_ERROR {
            LAST.with_borrow_mut(|last| last.push_str(&text));
        }
        TENSORS.with_borrow(|tensors| {
            if let Some((tensors, (begun, all))) = tensors.as_ref().zip(count_of(&text)) {
                tensors.store(packed(begun, all), Ordering::Relaxed);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::{count_of, packed, reason, strip_function, unpacked};

    #[test]
    fn tensors_are_counted() {
        assert_eq!(count_of("[  12/ 291]   blk.0.attn_q.weight - [64], type = f16"), Some((12, 291)));
        assert_eq!(count_of("size = 12/291"), None);
        assert_eq!(unpacked(packed(3, 291)), (3, 291));
    }

    #[test]
    fn every_line_of_the_reason_is_told_once() {
        let log = "llama_model_load: error loading model: no tensor a\n\nllama_model_load: no tensor a\n\
                   llama_model_load_from_file_impl: failed to load model\n";
        assert_eq!(reason(log), "error loading model: no tensor a; failed to load model");
        assert_eq!(reason("\n"), "no reason given");
    }

    #[test]
    fn the_function_name_is_dropped() {
        assert_eq!(strip_function("llama_model_load: error loading model: x"), "error loading model: x");
        assert_eq!(strip_function("tensor 'a' b: c"), "tensor 'a' b: c");
    }
}
