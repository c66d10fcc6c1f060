//! The log of llama.cpp's `common` library.

use crate::sys;
use std::sync::Once;

/// Silences the log of llama.cpp's `common` library (its own, beside ggml's): it quotes prompts and answers.
pub(super) fn quiet() {
    static ONCE: Once = Once::new();
    // SAFETY: sets a number; `Once` keeps two threads from doing so together.
    ONCE.call_once(|| unsafe { sys::common_shim_log_set_verbosity(-1) });
}
