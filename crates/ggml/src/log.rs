//! llama.cpp's log: kept quiet, with the last error lines at hand for our own messages.

use crate::sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

static INSTALL: Once = Once::new();

thread_local! {
    // llama.cpp logs on the thread that called it, so each caller finds its own lines.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
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
    });
}

#[cfg(test)]
mod tests {
    use super::{reason, strip_function};

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
