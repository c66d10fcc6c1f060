//! Measures a disk by reading from it past the page cache; where that would not be the disk, says why.

use hypura_core::profile::{Pattern, ReadRate, Storage};
use hypura_storage::probe::{self, ProbeConfig, ProbeReport, Throughput};
use hypura_storage::{ReaderKind, disk};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::budget;
use super::files::{cache_folder, create};
use super::options::ProfileOptions;

/// A page is what a row of a table takes.
const REQUEST_BYTES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
const DEPTHS: [usize; 4] = [1, 4, 16, 64];
/// How often the reads of the program's own reader are measured beyond the first time.
const REPEATS: usize = 2;

/// How fast the disk under the target is, or why that cannot be measured. `start` is when measuring began.
pub(super) fn measure(options: &ProfileOptions, start: Instant) -> Storage {
    let facts = facts(&options.target);
    if facts.obstacle.is_some() {
        // Nothing is written where nothing could be learnt from it.
        return facts;
    }
    let storage = first(options, facts, budget::disk_left(start.elapsed()));
    // Only where this needs no new file.
    if options.target.is_file() && storage.is_measured() {
        return again(options, storage, start);
    }
    storage
}

/// What the system says of the disk, without measuring.
pub(super) fn facts(target: &Path) -> Storage {
    let file_system = disk::file_system_of(target).unwrap_or_default();
    let device = file_system.device.as_ref();
    Storage {
        target: target.display().to_string(),
        file_system: file_system.kind.clone(),
        device: device.map(|device| device.name.clone()),
        rotational: device.and_then(|device| device.rotational),
        read_ahead_kb: device.and_then(|device| device.read_ahead_kb),
        reads: Vec::new(),
        obstacle: file_system.obstacle(),
    }
}

fn first(options: &ProfileOptions, facts: Storage, limit: Duration) -> Storage {
    let readers = if cfg!(target_os = "linux") {
        vec![ReaderKind::Uring, ReaderKind::Pread]
    } else {
        vec![ReaderKind::Pread]
    };
    let config = ProbeConfig {
        patterns: vec![probe::Pattern::Random, probe::Pattern::Sequential],
        readers,
        request_bytes: REQUEST_BYTES.to_vec(),
        depths: DEPTHS.to_vec(),
        cell_duration: options.cell,
        limit: Some(limit),
        scratch_bytes: options.scratch_bytes,
        ..ProbeConfig::default()
    };
    match probe::measure(&place_for_scratch(&options.target, cache_folder()), &config) {
        Ok(report) => with_report(facts, &report),
        Err(error) => Storage { obstacle: Some(error.to_string()), ..facts },
    }
}

/// Where a file may be written to measure the disk of a folder: the cache folder where it is on the same
/// file system, because models may be in a checkout or where nobody may write.
fn place_for_scratch(target: &Path, cache: Option<PathBuf>) -> PathBuf {
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    let cache = cache.filter(|_| target.is_dir()).filter(|cache| create(cache).is_ok());
    let same = cache.filter(|cache| device(cache).is_some() && device(cache) == device(target));
    same.unwrap_or_else(|| target.to_owned())
}

/// Measures again what the program reads with, and keeps the median of each cell: a disk is faster in one
/// moment and slower in the next, and what is predicted is neither.
fn again(options: &ProfileOptions, mut storage: Storage, start: Instant) -> Storage {
    let config = ProbeConfig {
        patterns: vec![probe::Pattern::Random, probe::Pattern::Sequential],
        readers: vec![ReaderKind::Auto],
        request_bytes: REQUEST_BYTES.to_vec(),
        depths: DEPTHS.to_vec(),
        cell_duration: options.cell / 2,
        ..ProbeConfig::default()
    };
    let mut samples: Vec<Vec<f64>> =
        storage.reads.iter().map(|read| read.bytes_per_s.into_iter().collect()).collect();
    for round in 0..REPEATS {
        let limit = Some(budget::disk_left(start.elapsed()));
        let config = ProbeConfig { seed: config.seed + 1 + round as u64, limit, ..config.clone() };
        let Ok(report) = probe::measure(&options.target, &config) else { return storage };
        let again = with_report(Storage::default(), &report);
        for (read, samples) in storage.reads.iter().zip(&mut samples) {
            let same = again.reads.iter().find(|other| {
                (other.reader == read.reader && other.pattern == read.pattern)
                    && (other.request_bytes, other.depth) == (read.request_bytes, read.depth)
            });
            samples.extend(same.and_then(|other| other.bytes_per_s));
        }
    }
    for (read, samples) in storage.reads.iter_mut().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        read.bytes_per_s = samples.get(samples.len() / 2).copied();
    }
    storage
}

fn with_report(facts: Storage, report: &ProbeReport) -> Storage {
    let read = |cell: &probe::ProbeCell| ReadRate {
        reader: cell.reader.clone(),
        pattern: match cell.pattern {
            probe::Pattern::Sequential => Pattern::Sequential,
            probe::Pattern::Random => Pattern::Random,
        },
        request_bytes: cell.request_bytes as u64,
        depth: u32::try_from(cell.depth).unwrap_or(u32::MAX),
        bytes_per_s: cell.result.as_ref().ok().map(Throughput::bytes_per_s),
    };
    let measured = Storage { reads: report.cells.iter().map(read).collect(), ..facts };
    let obstacle = if measured.is_measured() {
        None
    } else {
        report.cells.iter().find_map(|cell| cell.result.as_ref().err().cloned())
    };
    Storage { obstacle, ..measured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// `hypura plan demo` wrote half a gigabyte into the checkout that the demo model is part of.
    #[test]
    fn scratch_files_are_written_to_the_cache_folder_where_that_is_on_the_same_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (models, cache) = (folder.path().join("models"), folder.path().join("cache/hypura"));
        fs::create_dir(&models).unwrap();
        assert_eq!(place_for_scratch(&models, Some(cache.clone())), cache);
        assert_eq!(cache.metadata().unwrap().mode() & 0o777, 0o700, "records name models");
        assert_eq!(place_for_scratch(&models, None), models);
        let file = models.join("model.gguf");
        fs::write(&file, "a large model").unwrap();
        assert_eq!(place_for_scratch(&file, Some(cache)), file, "a model is read as it is");
        let elsewhere = Path::new("/proc");
        if elsewhere.is_dir() {
            let cache = folder.path().join("cache");
            assert_eq!(place_for_scratch(elsewhere, Some(cache)), elsewhere, "another file system");
        }
    }
}
