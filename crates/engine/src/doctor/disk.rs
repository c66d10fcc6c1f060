//! Disk, file system, free space, direct reads.

use hypura_core::plan::human_bytes;
use hypura_core::profile::{Pattern, ReadRate, Storage};
use hypura_storage::disk::{self, FileSystem};
use hypura_storage::{PAGE, SourceFile};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Finding, Verdict};
use crate::load::default_threads;
use crate::profile::{Need, cache_folder, known};

/// Less free space holds no model that would need this program.
const LEAST_FREE: u64 = 8 << 30;

pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    match disk::file_system_of(dir) {
        Ok(system) => {
            let mut findings = vec![
                device(&system),
                file_system(&system),
                space(disk::free_bytes(dir).ok()),
                direct_io(dir),
            ];
            findings.extend(remembered_storage(dir).and_then(|storage| pages(&storage)));
            findings
        }
        Err(error) => {
            let found = format!("cannot look at {}: {error}", dir.display());
            vec![Finding::new("disk", Verdict::Bad, found).fix("name another directory with --dir")]
        }
    }
}

/// What was measured of the disk, if it was.
fn remembered_storage(dir: &Path) -> Option<Storage> {
    let need = Need { target: dir, threads: default_threads(), disk: true };
    known(&cache_folder()?, &need)?.storage
}

/// How fast the disk reads single pages, many at a time: what rows of embedding tables are.
fn pages(storage: &Storage) -> Option<Finding> {
    /// A prompt of 2048 tokens whose rows are two pages each then waits for less than half a second.
    const GOOD_PER_S: f64 = 10_000.0;
    let of_pages = |read: &&ReadRate| {
        (read.pattern, read.request_bytes) == (Pattern::Random, PAGE as u64) && read.depth >= 16
    };
    let rates = storage.reads.iter().filter(of_pages).filter_map(|read| read.bytes_per_s);
    let per_s = rates.max_by(f64::total_cmp)? / PAGE as f64;
    let found = format!("{:.0} thousand random reads of 4 KiB a second", per_s / 1e3);
    Some(if per_s >= GOOD_PER_S {
        Finding::new("small reads", Verdict::Good, found)
    } else {
        Finding::new("small reads", Verdict::Slow, found).fix(
            "keep models whose embedding tables stream on an NVMe disk, or in memory with --tables resident",
        )
    })
}

fn device(system: &FileSystem) -> Finding {
    let Some(device) = system.device.as_ref().filter(|_| system.obstacle().is_none()) else {
        return Finding::new("disk", Verdict::Slow, "no local disk under this directory (memory or network)")
            .fix("keep models on a local NVMe disk");
    };
    match device.rotational {
        Some(true) => Finding::new("disk", Verdict::Slow, format!("{} is a spinning disk", device.name))
            .fix("keep models on an NVMe disk: streaming from a spinning one is a hundred times slower"),
        Some(false) => Finding::new("disk", Verdict::Good, format!("{}, not spinning", device.name)),
        None => Finding::new("disk", Verdict::Unknown, format!("{}, of unknown kind", device.name))
            .fix("`hypura iobench` measures it"),
    }
}

/// Those that streaming was measured on, or that read past the page cache as they do.
const SUITABLE: [&str; 6] = ["ext4", "xfs", "btrfs", "bcachefs", "f2fs", "apfs"];

fn file_system(system: &FileSystem) -> Finding {
    let Some(kind) = &system.kind else {
        return Finding::new("file system", Verdict::Unknown, "of unknown type");
    };
    if let Some(obstacle) = system.obstacle() {
        return Finding::new("file system", Verdict::Slow, obstacle)
            .fix("keep models on ext4, XFS, btrfs or APFS on a local disk");
    }
    let known = SUITABLE.contains(&kind.as_str());
    let verdict = if known { Verdict::Good } else { Verdict::Unknown };
    Finding::new("file system", verdict, kind.as_str())
}

fn space(free_bytes: Option<u64>) -> Finding {
    match free_bytes {
        None => Finding::new("free space", Verdict::Unknown, "the system does not tell"),
        Some(free) if free < LEAST_FREE => {
            Finding::new("free space", Verdict::Slow, human_bytes(free)).fix(format!(
                "models that need streaming have {} and more: make room, or name another disk with --dir",
                human_bytes(LEAST_FREE)
            ))
        }
        Some(free) => Finding::new("free space", Verdict::Good, human_bytes(free)),
    }
}

/// Writes a page to the directory for a moment and reads it past the page cache.
fn direct_io(dir: &Path) -> Finding {
    let trial = tempfile_in(dir).and_then(|file| {
        SourceFile::open(file.path())
            .map(|source| source.buffered_because().map(str::to_owned))
            .map_err(|error| error.to_string())
    });
    match trial {
        Ok(None) => Finding::new("direct I/O", Verdict::Good, "reads bypass the page cache"),
        Ok(Some(why)) => Finding::new("direct I/O", Verdict::Slow, why)
            .fix("keep models on ext4, XFS, btrfs or APFS on a local disk"),
        Err(error) => Finding::new("direct I/O", Verdict::Unknown, format!("not tried: {error}"))
            .fix("name a directory with --dir that you may write to"),
    }
}

/// A file of one page that is deleted when dropped.
struct Trial(PathBuf);

impl Trial {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn tempfile_in(dir: &Path) -> Result<Trial, String> {
    let path = dir.join(format!(".hypura-doctor-{}", std::process::id()));
    let mut file = fs::File::create_new(&path).map_err(|error| error.to_string())?;
    let trial = Trial(path);
    file.write_all(&[7; PAGE]).and_then(|()| file.sync_all()).map_err(|error| error.to_string())?;
    Ok(trial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_storage::disk::BlockDevice;

    fn on(rotational: Option<bool>, kind: &str) -> FileSystem {
        FileSystem {
            kind: Some(kind.to_owned()),
            device: Some(BlockDevice { name: "sda".to_owned(), rotational, read_ahead_kb: None }),
            ..FileSystem::default()
        }
    }

    #[test]
    fn slow_disks_come_with_a_fix() {
        assert_eq!(device(&on(Some(false), "ext4")).verdict, Verdict::Good);
        assert_eq!(device(&on(None, "ext4")).verdict, Verdict::Unknown);
        // A disk under FUSE is not what reads come from.
        for system in [on(Some(true), "ext4"), on(Some(false), "fuseblk"), FileSystem::default()] {
            let finding = device(&system);
            assert_eq!((finding.verdict, finding.fix.is_some()), (Verdict::Slow, true), "{system:?}");
        }
    }

    #[test]
    fn small_reads_are_judged_where_they_were_measured() {
        let read = |request_bytes, depth, bytes_per_s| ReadRate {
            reader: "uring".to_owned(),
            pattern: Pattern::Random,
            request_bytes,
            depth,
            bytes_per_s: Some(bytes_per_s),
        };
        let verdict = |reads| pages(&Storage { reads, ..Storage::default() }).map(|found| found.verdict);
        assert_eq!(verdict(vec![read(65_536, 64, 1e9), read(4096, 1, 1e9)]), None);
        assert_eq!(verdict(vec![read(4096, 16, 2e7), read(4096, 64, 4.1e8)]), Some(Verdict::Good));
        assert_eq!(verdict(vec![read(4096, 64, 4e6)]), Some(Verdict::Slow));
    }

    #[test]
    fn file_systems_are_judged_by_where_their_bytes_come_from() {
        let verdict = |kind| file_system(&on(None, kind)).verdict;
        assert_eq!(verdict("xfs"), Verdict::Good);
        assert_eq!(verdict("overlay"), Verdict::Unknown);
        for kind in ["nfs4", "tmpfs", "fuse.sshfs", "9p"] {
            let finding = file_system(&on(None, kind));
            assert_eq!(finding.verdict, Verdict::Slow);
            assert!(finding.found.contains(kind) && finding.fix.is_some(), "{finding:?}");
        }
        assert_eq!(file_system(&FileSystem::default()).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_full_disk_is_told() {
        assert_eq!(space(Some(LEAST_FREE)).verdict, Verdict::Good);
        let full = space(Some(LEAST_FREE - 1));
        assert_eq!((full.verdict, full.fix.is_some()), (Verdict::Slow, true));
        assert_eq!(space(None).verdict, Verdict::Unknown);
    }
}
