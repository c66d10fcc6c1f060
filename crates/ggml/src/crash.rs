//! What becomes of a process that C++ ends: one line and an exit code, not a dump or a signal.
//!
//! llama.cpp asserts, throws and overflows its stack on files and texts that nobody foresaw. A process that
//! only works for one model may say so and go: whoever waits for it does the rest.

use std::ffi::{CString, c_char, c_int};

unsafe extern "C" {
    fn hypura_crash_install(words: *const c_char, code: c_int);
    fn hypura_crash(what: *const c_char);
}

/// From now on a failed assertion of ggml, an uncaught C++ exception, a segmentation fault and their kin end
/// the process with `exit_code`, after one line on its standard error: `words` and what happened. `words` of
/// more than 500 bytes are cut.
pub fn install(words: &str, exit_code: u8) {
    let words = c_string(words);
    // SAFETY: the string is NUL-terminated and copied; the handlers that are installed live for ever and use
    // nothing but static memory.
    unsafe { hypura_crash_install(words.as_ptr(), c_int::from(exit_code)) };
}

/// Ends the process at once, as [`install`] says: for what happened outside of C++. No destructor runs, so
/// that it ends whatever other threads do.
pub fn end(what: &str) -> ! {
    let what = c_string(what);
    // SAFETY: the string is NUL-terminated and lives for the call, which does not come back.
    unsafe { hypura_crash(what.as_ptr()) };
    std::process::abort()
}

fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    // There is no NUL left that could be in the way.
    CString::new(bytes).unwrap_or_default()
}
