//! macOS: `F_NOCACHE` instead of `O_DIRECT`, and what `sysctl` and `statfs` say.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;

use super::{DirectIo, check_call};
use crate::file_system::{BlockDevice, FileSystem};
use crate::memory::facts::Memory;

/// Opens a file for reading past the unified buffer cache. `F_NOCACHE` asks for no alignment, but reads that
/// are not page-aligned go through the cache.
pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // SAFETY: sets a flag of a descriptor that we own.
    check_call(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, 1) })?;
    Ok(file)
}

/// macOS has no transparent huge pages to ask for.
pub(crate) fn advise_huge_pages(_base: NonNull<u8>, _len: usize) {}

/// macOS cannot be asked for pages in advance.
pub(crate) fn populate(_base: NonNull<u8>, _len: usize) -> bool {
    false
}

/// Lets the system take a range of anonymous memory, which it does when it needs pages.
pub(crate) fn discard(base: NonNull<u8>, len: usize) {
    // SAFETY: the range is a private anonymous mapping of ours whose contents nobody needs.
    unsafe {
        libc::madvise(base.as_ptr().cast(), len, libc::MADV_FREE);
    }
}

/// Nothing is done in advance here, so that there is nothing to let others go before.
pub(crate) fn yield_to_others() {}

/// macOS cannot be asked; page alignment always works.
pub(crate) fn direct_io(_file: &File) -> DirectIo {
    DirectIo::Unknown
}

/// macOS has no advice to forget a range; `F_NOCACHE` does it at the read.
pub(crate) fn forget_cached(_file: &File, _offset: u64, _len: usize) {}

/// macOS clones whole files only (`clonefile`), which is not what is asked for here.
pub(crate) fn clone_range(_src: &File, _src_at: u64, _dst: &File, _dst_at: u64, _len: u64) -> io::Result<()> {
    Err(unsupported("sharing a range of blocks between files"))
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("macOS has no {what}"))
}

/// `ri_diskio_bytesread` of `proc_pid_rusage`.
pub(crate) fn storage_read_bytes() -> io::Result<u64> {
    let mut answer = MaybeUninit::<libc::rusage_info_v2>::zeroed();
    // SAFETY: `answer` has the layout that RUSAGE_INFO_V2 asks for; the call fills it and keeps no pointer.
    check_call(unsafe {
        libc::proc_pid_rusage(libc::getpid(), libc::RUSAGE_INFO_V2, answer.as_mut_ptr().cast())
    })?;
    // SAFETY: the call succeeded, and zeroed bytes are valid for its plain numbers anyway.
    Ok(unsafe { answer.assume_init() }.ri_diskio_bytesread)
}

/// `ru_maxrss`, which macOS counts in bytes.
pub(crate) fn peak_rss_bytes() -> io::Result<u64> {
    let mut answer = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `answer` has room for an rusage.
    check_call(unsafe { libc::getrusage(libc::RUSAGE_SELF, answer.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and zeroed bytes are valid for its plain numbers anyway.
    let peak = unsafe { answer.assume_init() }.ru_maxrss;
    u64::try_from(peak).map_err(|_| io::Error::other("ru_maxrss is negative"))
}

/// Metal's memory is the host's and is asked for by size, so nobody needs to see it grow.
pub(crate) fn own_memory(_: Option<u32>) -> io::Result<(u64, u64)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `statfs`: type and device of the mount.
pub(crate) fn file_system_of(path: &Path) -> io::Result<FileSystem> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a C string and `answer` has room for a statfs.
    check_call(unsafe { libc::statfs(c_path.as_ptr(), answer.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and zeroed bytes are valid for its plain numbers anyway.
    let answer = unsafe { answer.assume_init() };
    let name = |text: &[libc::c_char]| {
        let bytes: Vec<u8> = text.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let source = name(&answer.f_mntfromname);
    let device = BlockDevice { name: source.clone(), rotational: None, read_ahead_kb: None };
    let kind = Some(name(&answer.f_fstypename));
    Ok(FileSystem { kind, device: Some(device), source: Some(source), id: None })
}

pub(crate) fn read_ahead_kb(_device: &str) -> io::Result<u64> {
    Err(unsupported("read-ahead setting of a device"))
}

pub(crate) fn set_read_ahead_kb(_device: &str, _kb: u64) -> io::Result<()> {
    Err(unsupported("read-ahead setting of a device"))
}

/// Memory of the machine. What can be had without swapping is what is free, what files back and what is
/// purgeable.
pub(crate) fn memory() -> io::Result<Memory> {
    let page = sysctl_number(c"hw.pagesize")?;
    let mut pages = 0;
    for name in [c"vm.page_free_count", c"vm.page_pageable_external_count", c"vm.page_purgeable_count"] {
        pages += sysctl_number(name)?;
    }
    let total_bytes = sysctl_number(c"hw.memsize")?;
    Ok(Memory { total_bytes, available_bytes: (pages * page).min(total_bytes), limit: None })
}

/// An unsigned number of 4 or 8 bytes; macOS is little-endian, so the upper half of a short one stays zero.
fn sysctl_number(name: &CStr) -> io::Result<u64> {
    let (mut value, mut len) = (0_u64, size_of::<u64>());
    // SAFETY: `value` has room for `len` bytes, nothing is set, and the name is a C string.
    check_call(unsafe {
        libc::sysctlbyname(name.as_ptr(), (&raw mut value).cast(), &raw mut len, std::ptr::null_mut(), 0)
    })?;
    Ok(value)
}
