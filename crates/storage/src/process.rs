//! What this process has used so far, as the kernel counts it.

use std::io;

use crate::platform;

/// Bytes that this process made the storage deliver (`read_bytes` of `/proc/self/io`; `ri_diskio_bytesread`
/// on macOS). Reads that the page cache answered are not in it.
pub fn storage_read_bytes() -> io::Result<u64> {
    platform::storage_read_bytes()
}

/// The largest resident set of this process so far, in bytes (`VmHWM` of `/proc/self/status`; `ru_maxrss` on
/// macOS).
pub fn peak_rss_bytes() -> io::Result<u64> {
    platform::peak_rss_bytes()
}

/// Bytes of memory of a process that have no file behind them: code and mapped files are left out (`RssAnon`
/// and `RssShmem` of `/proc/PID/status`; macOS does not say).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMemory {
    /// Its own.
    pub anonymous_bytes: u64,
    /// Those that others may share.
    pub shared_bytes: u64,
}

/// The memory of a process by its id, of this one by default.
///
/// # Errors
/// Where the system does not say.
pub fn own_memory(process: Option<u32>) -> io::Result<OwnMemory> {
    let (anonymous_bytes, shared_bytes) = platform::own_memory(process)?;
    Ok(OwnMemory { anonymous_bytes, shared_bytes })
}

/// Gives up, for good, what a sandbox profile denies: text in the language of `sandbox_init`.
///
/// # Errors
/// What the system says of the profile; everything is then as before.
#[cfg(target_os = "macos")]
pub fn enter_sandbox(profile: &str) -> io::Result<()> {
    platform::enter_sandbox(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, HugePages};

    #[test]
    fn writing_to_memory_raises_the_peak() {
        const GROWTH: usize = 64 << 20;
        let arena = Arena::new(GROWTH, HugePages::No).unwrap();
        arena.fill(0..GROWTH, 1);
        assert!(peak_rss_bytes().unwrap() >= GROWTH as u64);
        #[cfg(target_os = "linux")]
        assert!(own_memory(None).unwrap().anonymous_bytes >= GROWTH as u64);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn direct_reads_are_counted_by_the_kernel() {
        use crate::{PAGE, Priority, ReadRequest, ReaderConfig, ReaderKind, SourceFile, open_reader};
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[3; 64 * PAGE]).unwrap();
        file.as_file().sync_all().unwrap();
        let source = SourceFile::open(file.path()).unwrap();
        if !source.is_direct() {
            return;
        }
        let before = storage_read_bytes().unwrap();
        let mut reader = open_reader(&ReaderKind::Pread, &ReaderConfig::default()).unwrap().reader;
        let (len, dst) = (64 * PAGE, Arena::new(64 * PAGE, HugePages::No).unwrap());
        let request = ReadRequest {
            tag: 0,
            file: source,
            offset: 0,
            len,
            required: len,
            dst,
            dst_offset: 0,
            priority: Priority::Demand,
        };
        reader.submit(vec![request]);
        reader.drain(&mut Vec::new());
        assert!(storage_read_bytes().unwrap() - before >= len as u64);
    }
}
