//! What disks and file systems can do besides reading: shared extents, free space, and who they are.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub use crate::file_system::{BlockDevice, FileSystem};
use crate::platform;

/// Finds out what holds `path`.
pub fn file_system_of(path: &Path) -> io::Result<FileSystem> {
    platform::file_system_of(&path.canonicalize()?)
}

/// Bytes that this user can still write to the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a C string and `answer` has room for a statvfs.
    platform::check_call(unsafe { libc::statvfs(c_path.as_ptr(), answer.as_mut_ptr()) })?;
    // SAFETY: statvfs succeeded, and zeroed bytes are valid for its plain numbers anyway.
    let answer = unsafe { answer.assume_init() };
    #[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "narrower on macOS"))]
    Ok(u64::from(answer.f_bavail).saturating_mul(answer.f_frsize))
}

/// Lets `len` bytes of `dst` share the blocks of `src`, where the file system can (XFS, btrfs, bcachefs).
/// Offsets and length must be multiples of its block size. Fails with `Unsupported` where the system has no
/// such call.
pub fn clone_range(src: &File, src_offset: u64, dst: &File, dst_offset: u64, len: u64) -> io::Result<()> {
    platform::clone_range(src, src_offset, dst, dst_offset, len)
}

/// A changed read-ahead of a block device; dropping it puts the old one back.
#[derive(Debug)]
pub struct ReadAhead {
    device: String,
    before_kb: u64,
}

impl ReadAhead {
    /// Sets the read-ahead of a [`BlockDevice`] by name. Needs the right to write to `/sys`; other systems
    /// than Linux have no such setting.
    pub fn set(device: &str, kb: u64) -> io::Result<ReadAhead> {
        let before_kb = platform::read_ahead_kb(device)?;
        platform::set_read_ahead_kb(device, kb)?;
        Ok(ReadAhead { device: device.to_owned(), before_kb })
    }

    /// What it was before, in KiB.
    pub fn before_kb(&self) -> u64 {
        self.before_kb
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Err(error) = platform::set_read_ahead_kb(&self.device, self.before_kb) {
            eprintln!(
                "hypura: could not set read_ahead_kb of {} back to {}: {error}",
                self.device, self.before_kb
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_somewhere() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_bytes(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_file_system_of_a_file_is_that_of_its_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of_file = file_system_of(file.path()).unwrap();
        assert_eq!(of_file, file_system_of(file.path().parent().unwrap()).unwrap());
        assert!(of_file.kind.is_some());
        assert!(file_system_of(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn cloning_either_shares_the_bytes_or_fails() {
        use std::io::{Read as _, Seek as _, Write as _};
        let (mut src, mut dst) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        src.write_all(&[7; 16384]).unwrap();
        if clone_range(&src, 0, &dst, 4096, 8192).is_ok() {
            let mut bytes = Vec::new();
            dst.rewind().unwrap();
            dst.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [vec![0; 4096], vec![7; 8192]].concat());
        }
    }

    #[test]
    fn the_read_ahead_of_no_device_cannot_be_set() {
        assert!(ReadAhead::set("no-such-device", 128).is_err());
        assert!(ReadAhead::set("../../etc", 128).is_err());
    }
}
