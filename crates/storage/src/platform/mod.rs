//! The system calls of this crate, one small function each. Everything that differs between Linux and macOS
//! is in [`linux`](self) or `macos` under the same name; what is common to both is here.

#[cfg(target_os = "macos")]
#[path = "macos_sandbox.rs"]
mod sandbox;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod sys;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod sys;
#[cfg(target_os = "linux")]
#[path = "linux_threads.rs"]
mod threads;
#[cfg(target_os = "macos")]
#[path = "macos_threads.rs"]
mod threads;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;

#[cfg(target_os = "macos")]
pub(crate) use sandbox::*;
pub(crate) use sys::*;
pub(crate) use threads::*;

/// What the system says about direct I/O on an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux can be asked"))]
pub(crate) enum DirectIo {
    /// It works at these alignments, in bytes.
    Aligned { memory: usize, offset: usize },
    /// The file system has no direct I/O for this file.
    Unsupported,
    /// The system cannot say.
    Unknown,
}

/// Turns the -1 of a system call into the error of this thread.
pub(crate) fn check_call(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Maps `len` bytes of zeroed private memory.
pub(crate) fn map_anonymous(len: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))
}

/// Unmaps memory of [`map_anonymous`].
///
/// # Safety
/// `start..start + len` must be a mapping that nothing refers to any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    check_call(unsafe { libc::munmap(start.as_ptr().cast(), len) }).map(drop)
}

/// One `pread`: returns the bytes read, 0 at the end of the file.
///
/// # Safety
/// `to..to + len` must be valid for writes during the call.
pub(crate) unsafe fn pread(file: &File, to: NonNull<u8>, len: usize, offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: the destination is valid by the caller's promise, the descriptor by the borrow of `file`.
    let got = unsafe { libc::pread(file.as_raw_fd(), to.as_ptr().cast(), len, offset) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}
