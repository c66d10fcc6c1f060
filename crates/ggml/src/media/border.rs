//! What every call across the border needs.

use crate::log;
use std::ffi::CString;
use std::path::Path;
use std::sync::Once;

use super::error::MediaError;
use super::ffi;

/// Routes mtmd's log to ours (once).
pub(super) fn init() {
    static LOG: Once = Once::new();
    crate::system::init();
    LOG.call_once(|| {
        // SAFETY: the callback lives for ever and ignores its user data.
        unsafe { ffi::hypura_media_log(Some(log::on_log)) };
    });
}

pub(super) fn c_path(path: &Path) -> Result<CString, MediaError> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| MediaError::Projector("its path contains a NUL byte".to_owned()))
}

pub(super) fn c_threads(threads: u32) -> i32 {
    i32::try_from(threads.max(1)).unwrap_or(i32::MAX)
}
