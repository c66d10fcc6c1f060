//! What is known about a file system, and the disk under it.

/// What is known about the file system that holds a path. What the system does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Name of its type, such as `ext4` or `apfs`.
    pub kind: Option<String>,
    /// The block device under it, if there is exactly one that the system names.
    pub device: Option<BlockDevice>,
    /// What was mounted, as the system names it: a partition, `server:/export`, the image behind a loop
    /// device. Tells mounts of one kind apart; two machines may name theirs alike.
    pub source: Option<String>,
    /// The file system's own number (`f_fsid`), where it has one.
    pub id: Option<u64>,
}

/// Beginnings of the names of file systems that are elsewhere. Their reads are answered by another machine
/// (or by the host of a virtual one), from its memory or its disk, nobody here can tell which.
const REMOTE: [&str; 14] = [
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "afs",
    "afpfs",
    "webdav",
    "virtiofs",
    "vboxsf",
    "vmhgfs",
];

impl FileSystem {
    /// Why the speed of reads here says nothing about a disk, if so. They work all the same.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let kind = self.kind.as_deref()?;
        if matches!(kind, "tmpfs" | "ramfs" | "devtmpfs") {
            return Some(format!("no direct reads here (file system {kind}: it is memory)"));
        }
        if kind.starts_with("fuse") {
            // `fuseblk` has a disk under it, and a program between it and us like all others.
            return Some(format!(
                "file system {kind} is served by a program, which may answer from its memory"
            ));
        }
        REMOTE.iter().any(|remote| kind.starts_with(remote)).then(|| {
            format!(
                "file system {kind} is on a network: what answers is another machine's memory or its disk"
            )
        })
    }
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, such as `nvme0n1` or `/dev/disk3s1`.
    pub name: String,
    /// Whether it is a spinning disk.
    pub rotational: Option<bool>,
    /// How far the kernel reads ahead of page faults and buffered reads, in KiB. It matters to mmap, not to
    /// us.
    pub read_ahead_kb: Option<u64>,
}
