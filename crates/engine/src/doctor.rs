//! What of this machine helps or hinders streaming, each with a verdict and a way out.
//!
//! Looks only; what the system does not tell is said to be unknown.

use hypura_core::plan::human_bytes;
use hypura_ggml::system::{self, DeviceKind};
use hypura_storage::disk::{self, BlockDevice, FileSystem};
use hypura_storage::{ReaderConfig, ReaderKind, SourceFile, open_reader};
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, slower than it could.
    Slow,
    /// It does not work.
    Bad,
    /// The system does not tell.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { what, verdict, found: found.into(), fix: None }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Looks at everything; `dir` is where models are.
#[must_use]
pub fn examine(dir: &Path) -> Vec<Finding> {
    let mut findings = disk(dir);
    findings.push(direct_io(dir));
    findings.push(io_uring());
    findings.extend([memlock(), huge_pages()].into_iter().flatten());
    findings.extend(memory());
    findings.extend(devices());
    findings
}

fn disk(dir: &Path) -> Vec<Finding> {
    let system = match disk::file_system_of(dir) {
        Ok(system) => system,
        Err(error) => {
            return vec![Finding::new(
                "disk",
                Verdict::Bad,
                format!("cannot look at {}: {error}", dir.display()),
            )];
        }
    };
    let free = disk::free_bytes(dir).map_or("?".to_owned(), human_bytes);
    let kind = system.kind.clone().unwrap_or_else(|| "of unknown type".to_owned());
    vec![device(&system), Finding::new("file system", Verdict::Good, format!("{kind}, {free} free"))]
}

fn device(system: &FileSystem) -> Finding {
    let Some(device) = &system.device else {
        return Finding::new("disk", Verdict::Slow, "no local disk under this directory (memory or network)")
            .fix("keep models on a local NVMe disk");
    };
    match rotational(device) {
        Some(true) => Finding::new("disk", Verdict::Slow, format!("{} is a spinning disk", device.name))
            .fix("keep models on an NVMe disk: streaming from a spinning one is a hundred times slower"),
        Some(false) => Finding::new("disk", Verdict::Good, format!("{}, not spinning", device.name)),
        None => Finding::new("disk", Verdict::Unknown, format!("{}, of unknown kind", device.name)),
    }
}

/// Whether a disk spins, as far as the system's word is worth something: of disks of virtual machines Linux says `1` when
/// it does not know.
pub(crate) fn rotational(device: &BlockDevice) -> Option<bool> {
    let is_virtual = ["vd", "xvd"].iter().any(|prefix| device.name.starts_with(prefix));
    device.rotational.filter(|spins| !(is_virtual && *spins))
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
        Err(error) => Finding::new("direct I/O", Verdict::Unknown, format!("not tried: {error}")),
    }
}

/// A file of one page that is deleted when dropped.
struct Trial(std::path::PathBuf);

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
    file.write_all(&[7; hypura_storage::PAGE])
        .and_then(|()| file.sync_all())
        .map_err(|error| error.to_string())?;
    Ok(trial)
}

fn io_uring() -> Finding {
    if !cfg!(target_os = "linux") {
        return Finding::new("io_uring", Verdict::Good, "not on this system; reads use threads");
    }
    match open_reader(&ReaderKind::Uring, &ReaderConfig::default()) {
        Ok(_) => Finding::new("io_uring", Verdict::Good, "usable"),
        Err(error) => Finding::new("io_uring", Verdict::Slow, error.to_string()).fix(
            "needs Linux 5.6 or later and sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that allows it",
        ),
    }
}

/// io_uring pins the memory it reads into.
fn memlock() -> Option<Finding> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?.to_owned();
    Some(match soft.parse::<u64>() {
        Err(_) => Finding::new("memlock", Verdict::Good, soft),
        Ok(bytes) if bytes >= 8 << 20 => Finding::new("memlock", Verdict::Good, human_bytes(bytes)),
        Ok(bytes) => {
            Finding::new("memlock", Verdict::Slow, human_bytes(bytes)).fix("raise it: ulimit -l unlimited")
        }
    })
}

fn huge_pages() -> Option<Finding> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let chosen = text.split('[').nth(1)?.split(']').next()?.to_owned();
    Some(if chosen == "never" {
        Finding::new("huge pages", Verdict::Slow, chosen)
            .fix("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    } else {
        Finding::new("huge pages", Verdict::Good, chosen)
    })
}

fn memory() -> Vec<Finding> {
    let memory = match hypura_storage::memory::memory_available() {
        Ok(memory) => memory,
        Err(error) => return vec![Finding::new("memory", Verdict::Unknown, error.to_string())],
    };
    let (total, free) = (human_bytes(memory.total_bytes), human_bytes(memory.available_bytes));
    let mut findings = vec![Finding::new("memory", Verdict::Good, format!("{total}, {free} free"))];
    findings.push(match &memory.limit {
        None => Finding::new("cgroup", Verdict::Good, "no limit"),
        Some(limit) => {
            let (bytes, room) = (human_bytes(limit.limit_bytes), human_bytes(limit.room_bytes()));
            Finding::new(
                "cgroup",
                Verdict::Good,
                format!("limit {bytes}, {room} left ({})", limit.group.display()),
            )
        }
    });
    findings
}

fn devices() -> Vec<Finding> {
    let devices = system::devices();
    let features = system::compiled_features();
    let mut findings = vec![Finding::new("kernels", Verdict::Good, features)];
    let gpus =
        devices.iter().filter(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu));
    findings.extend(gpus.map(|gpu| {
        let memory = human_bytes(gpu.memory_total_bytes);
        Finding::new("GPU", Verdict::Good, format!("{}: {}, {memory}", gpu.name, gpu.description))
    }));
    if findings.len() == 1 {
        findings.push(Finding::new(
            "GPU",
            Verdict::Good,
            "none that this build can use; the processor computes",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_looked_at_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let findings = examine(dir.path());
        for what in ["disk", "file system", "direct I/O", "io_uring", "memory", "cgroup", "kernels", "GPU"] {
            assert!(findings.iter().any(|finding| finding.what == what), "{what}: {findings:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_there_is_bad_and_no_panic() {
        let findings = examine(Path::new("/no/such/directory"));
        assert_eq!(findings[0].verdict, Verdict::Bad);
    }

    #[test]
    fn slow_disks_come_with_a_fix() {
        let on = |rotational| FileSystem {
            kind: None,
            device: Some(BlockDevice { name: "sda".to_owned(), rotational, read_ahead_kb: None }),
        };
        assert_eq!(device(&on(Some(false))).verdict, Verdict::Good);
        assert_eq!(device(&on(None)).verdict, Verdict::Unknown);
        let guest = BlockDevice { name: "vda".to_owned(), rotational: Some(true), read_ahead_kb: None };
        assert_eq!(rotational(&guest), None);
        assert_eq!(rotational(&BlockDevice { rotational: Some(false), ..guest }), Some(false));
        for system in [on(Some(true)), FileSystem::default()] {
            assert!(device(&system).fix.is_some());
        }
    }
}
