//! Linux: `O_DIRECT`, `statx`, `posix_fadvise`, transparent huge pages, and what `/proc` and `/sys` say.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use super::{DirectIo, check_call};
use crate::file_system::{BlockDevice, FileSystem};
use crate::memory::cgroup::tightest_limit;
use crate::memory::facts::Memory;

/// Opens a file for reading past the page cache.
pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Asks for transparent huge pages; a refusal only means ordinary pages.
pub(crate) fn advise_huge_pages(base: NonNull<u8>, len: usize) {
    // SAFETY: the range is a mapping of ours and MADV_HUGEPAGE does not change its contents.
    unsafe {
        libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
    }
}

/// Has the system back a range with pages now, as if it was written to (`MADV_POPULATE_WRITE`, Linux 5.14 and
/// later). False when it will not.
pub(crate) fn populate(base: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the range is a mapping of ours and this changes none of its contents.
    unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) == 0 }
}

/// Gives a range of anonymous memory back to the system; the next touch finds zeros.
pub(crate) fn discard(base: NonNull<u8>, len: usize) {
    // SAFETY: the range is a private anonymous mapping of ours whose contents nobody needs.
    unsafe {
        libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED);
    }
}

/// Lets other threads go before this one (Linux gives each thread its own niceness).
pub(crate) fn yield_to_others() {
    const NICE: libc::c_int = 10;
    // SAFETY: 0 is the calling thread; a refusal changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

/// What the file system says about direct I/O on this file (`STATX_DIOALIGN`, Linux 6.1 and later).
pub(crate) fn direct_io(file: &File) -> DirectIo {
    if matches!(file_system_magic(file), Ok(libc::TMPFS_MAGIC)) {
        // tmpfs accepts O_DIRECT since Linux 6.6, but there is no device behind it: it *is* the page cache.
        return DirectIo::Unsupported;
    }
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string (the descriptor itself is meant), `answer` has room for a statx.
    let outcome = check_call(unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    });
    if outcome.is_err() {
        return DirectIo::Unknown;
    }
    // SAFETY: statx succeeded and the structure was zeroed before: every field is a plain number.
    let answer = unsafe { answer.assume_init() };
    if answer.stx_mask & libc::STATX_DIOALIGN == 0 {
        return DirectIo::Unknown;
    }
    match (answer.stx_dio_mem_align, answer.stx_dio_offset_align) {
        (0, _) | (_, 0) => DirectIo::Unsupported,
        (memory, offset) => DirectIo::Aligned { memory: memory as usize, offset: offset as usize },
    }
}

/// The magic number of the file system that holds this file.
pub(crate) fn file_system_magic(file: &File) -> io::Result<libc::c_long> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `answer` has room for a statfs and the descriptor is open.
    check_call(unsafe { libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr()) })?;
    // SAFETY: fstatfs succeeded, and zeroed bytes are valid for its plain numbers anyway.
    Ok(unsafe { answer.assume_init() }.f_type as libc::c_long)
}

/// Tells the page cache that it may forget this range of a file that had to be read through it.
pub(crate) fn forget_cached(file: &File, offset: u64, len: usize) {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else { return };
    // SAFETY: advice about an open descriptor; it touches no memory of ours. Its failure costs only cache.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED);
    }
}

/// `FICLONERANGE`.
pub(crate) fn clone_range(
    src: &File,
    src_offset: u64,
    dst: &File,
    dst_offset: u64,
    len: u64,
) -> io::Result<()> {
    let range = libc::file_clone_range {
        src_fd: src.as_raw_fd().into(),
        src_offset,
        src_length: len,
        dest_offset: dst_offset,
    };
    // SAFETY: both descriptors are open, and the kernel only reads `range`.
    check_call(unsafe { libc::ioctl(dst.as_raw_fd(), libc::FICLONERANGE, &raw const range) }).map(drop)
}

/// `read_bytes` of `/proc/self/io`.
pub(crate) fn storage_read_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    field(&text, "read_bytes:").ok_or_else(|| missing("/proc/self/io", "read_bytes"))
}

/// `VmHWM` of `/proc/self/status`.
pub(crate) fn peak_rss_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    field(&text, "VmHWM:").map(|kb| kb * 1024).ok_or_else(|| missing("/proc/self/status", "VmHWM"))
}

/// Pages of a process, by default this one, that have no file behind them: its own, and those that it shares.
pub(crate) fn own_memory(process: Option<u32>) -> io::Result<(u64, u64)> {
    let file = process.map_or_else(|| "/proc/self/status".to_owned(), |id| format!("/proc/{id}/status"));
    let text = fs::read_to_string(&file)?;
    let bytes = |name| field(&text, name).map(|kb| kb * 1024);
    let anonymous = bytes("RssAnon:").ok_or_else(|| missing(&file, "RssAnon"))?;
    Ok((anonymous, bytes("RssShmem:").unwrap_or(0)))
}

/// The first number after `name` at the start of a line.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn missing(file: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} says nothing about {name}"))
}

/// Type of the file system from `/proc/self/mountinfo`, its block device from `/sys`.
pub(crate) fn file_system_of(path: &Path) -> io::Result<FileSystem> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mount_of(&mounts, path);
    // btrfs gives files device numbers of their own; there the source of the mount names the disk.
    let numbers = [Some(fs::metadata(path)?.dev()), mount.as_ref().and_then(source_device)];
    let device = numbers.into_iter().flatten().find_map(block_device);
    let image = device.as_ref().and_then(|device| backing_file(&device.name));
    let (kind, source) = mount.map(|mount| (mount.kind, mount.source)).unzip();
    Ok(FileSystem { kind, device, source: image.or(source), id: file_system_id(path) })
}

/// The image that a loop device stands for: any image may be `loop0` tomorrow.
fn backing_file(device: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/sys/block").join(device).join("loop/backing_file")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// `f_fsid`: made of the file system's UUID where it has one. 0 means that there is none.
fn file_system_id(path: &Path) -> Option<u64> {
    let c_path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a C string and `answer` has room for a statvfs.
    check_call(unsafe { libc::statvfs(c_path.as_ptr(), answer.as_mut_ptr()) }).ok()?;
    // SAFETY: statvfs succeeded, and zeroed bytes are valid for its plain numbers anyway.
    Some(unsafe { answer.assume_init() }.f_fsid).filter(|id| *id != 0)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    source: String,
}

/// The innermost mount above `path`; of several at one place the last, which hides the others.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?);
        let mut after = after.split(' ');
        let mount = Mount { kind: after.next()?.to_owned(), source: unescape(after.next()?) };
        path.starts_with(&point).then_some((point.len(), mount))
    };
    // `max_by_key` returns the last of equals.
    mountinfo.lines().filter_map(parse).max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

/// mountinfo writes blanks, tabs, newlines and backslashes as octal escapes (proc(5)).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn source_device(mount: &Mount) -> Option<u64> {
    let metadata = fs::metadata(&mount.source).ok()?;
    metadata.file_type().is_block_device().then(|| metadata.rdev())
}

fn block_device(number: u64) -> Option<BlockDevice> {
    let link = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
    let mut folder = fs::canonicalize(link).ok()?;
    if folder.join("partition").exists() {
        folder.pop();
    }
    let name = folder.file_name()?.to_str()?.to_owned();
    let queue = |setting: &str| fs::read_to_string(folder.join("queue").join(setting)).ok();
    Some(BlockDevice {
        rotational: queue("rotational").and_then(|text| spins(&name, text.trim() == "1")),
        read_ahead_kb: queue("read_ahead_kb").and_then(|text| text.trim().parse().ok()),
        name,
    })
}

/// Whether a disk spins, as far as the kernel's word is worth something: of disks of virtual machines it says
/// yes when it does not know.
fn spins(device: &str, said: bool) -> Option<bool> {
    let is_virtual = ["vd", "xvd"].iter().any(|prefix| device.starts_with(prefix));
    (!(is_virtual && said)).then_some(said)
}

pub(crate) fn read_ahead_kb(device: &str) -> io::Result<u64> {
    let text = fs::read_to_string(read_ahead_setting(device)?)?;
    text.trim().parse().map_err(|_| missing(device, "read_ahead_kb"))
}

pub(crate) fn set_read_ahead_kb(device: &str, kb: u64) -> io::Result<()> {
    fs::write(read_ahead_setting(device)?, kb.to_string())
}

fn read_ahead_setting(device: &str) -> io::Result<PathBuf> {
    if device.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a device has no slash"));
    }
    Ok(Path::new("/sys/block").join(device).join("queue/read_ahead_kb"))
}

/// Memory of the machine, and of the control groups around this process.
pub(crate) fn memory() -> io::Result<Memory> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kb = |name| field(&meminfo, name).ok_or_else(|| missing("/proc/meminfo", name));
    let (total, available) = (kb("MemTotal:")? * 1024, kb("MemAvailable:")? * 1024);
    let read = |path: &Path| fs::read_to_string(path).ok();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let limit = tightest_limit(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo"), &read);
    Ok(Memory { total_bytes: total, available_bytes: available, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw
40 22 259:3 /sub /mnt/my\\040disk rw - btrfs /dev/nvme0n1p3 rw,subvol=/sub
41 22 259:4 / /mnt/my\\040disk rw - xfs /dev/nvme1n1 rw
50 22 0:40 / /net/a rw,relatime shared:9 - nfs4 server:/export/a rw,vers=4.2
51 22 0:41 / /net/b rw,relatime - nfs4 server:/export/b rw
52 22 0:42 / /net/c rw - cifs //host/share rw
53 22 0:43 / /net/d rw - fuse.sshfs me@host:/ rw
54 22 0:44 / /net/e rw - 9p share rw,trans=virtio
55 22 0:45 / /net/f rw - ceph 1.2.3.4:6789:/ rw
56 22 0:46 / /net/g rw - smb3 //host/other rw
not a mount at all";

    #[test]
    fn the_innermost_and_last_mount_counts() {
        let kind = |path: &str| mount_of(MOUNTS, Path::new(path)).map(|mount| mount.kind);
        assert_eq!(kind("/home/model.gguf").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/model.gguf").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmpfoo").as_deref(), Some("ext4"));
        assert_eq!(kind("/mnt/my disk/model.gguf").as_deref(), Some("xfs"));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn what_is_mounted_from_a_network_is_no_disk_and_is_told_apart() {
        let at = |path: &str| {
            let mount = mount_of(MOUNTS, Path::new(path)).unwrap();
            FileSystem { kind: Some(mount.kind), source: Some(mount.source), ..FileSystem::default() }
        };
        for path in
            ["/net/a/m", "/net/b/m", "/net/c/m", "/net/d/m", "/net/e/m", "/net/f/m", "/net/g/m", "/tmp/m"]
        {
            let system = at(path);
            let why = system.obstacle().unwrap_or_else(|| panic!("{system:?} is no disk"));
            assert!(why.contains(system.kind.as_deref().unwrap()), "{why}");
        }
        for path in ["/home/m", "/mnt/my disk/m"] {
            assert_eq!(at(path).obstacle(), None);
        }
        assert_ne!(at("/net/a/m"), at("/net/b/m"));
    }

    #[test]
    fn disks_of_virtual_machines_are_not_taken_for_spinning_ones() {
        assert_eq!(spins("vda", true), None);
        assert_eq!(spins("xvdb", true), None);
        assert_eq!(spins("vda", false), Some(false));
        assert_eq!(spins("sda", true), Some(true));
    }

    #[test]
    fn fields_are_whole_lines() {
        let text = "rchar: 5\nread_bytes: 77\nVmHWM:\t  1234 kB\ncancelled_read_bytes: 9\n";
        assert_eq!(field(text, "read_bytes:"), Some(77));
        assert_eq!(field(text, "VmHWM:"), Some(1234));
        assert_eq!(field(text, "VmPeak:"), None);
        assert_eq!(field("VmHWM: many", "VmHWM:"), None);
    }
}
