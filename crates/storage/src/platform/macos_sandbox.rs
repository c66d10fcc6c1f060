//! macOS: what a process gives up for good, as a sandbox profile says.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;

// Of libSystem: sandbox.h. The header calls them deprecated in favour of entitlements, which programs that
// are not signed do not have; browsers use them.
unsafe extern "C" {
    fn sandbox_init(profile: *const c_char, flags: u64, error: *mut *mut c_char) -> c_int;
    fn sandbox_free_error(error: *mut c_char);
}

/// Applies a profile that is text, not the name of one: flags are 0 for that.
pub(crate) fn enter_sandbox(profile: &str) -> io::Result<()> {
    let profile = CString::new(profile).map_err(io::Error::other)?;
    let mut error = std::ptr::null_mut();
    // SAFETY: the profile is NUL-terminated and lives for the call, which writes a pointer to text or null.
    let status = unsafe { sandbox_init(profile.as_ptr(), 0, &raw mut error) };
    if status == 0 {
        return Ok(());
    }
    if error.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: where the call fails and the pointer is not null, it is NUL-terminated text that is ours until
    // it is freed below.
    let reason = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: given by `sandbox_init`, freed once.
    unsafe { sandbox_free_error(error) };
    Err(io::Error::other(reason))
}
