//! The disk under the model: what it delivers, what the page cache keeps of the model, and how far the kernel
//! reads ahead.
//!
//! The read-ahead decides how fast a mapped model is: page faults of random experts read that much each.
//! Linux's usual value is 128 KiB, and baselines are measured with it; it is put back when the guard is
//! dropped.

use hypura_core::model::ModelShape;
use hypura_core::plan::ExpertLayout;
use hypura_engine::ReaderKind;
use hypura_engine::iobench::{self, BlockDevice, Pattern, ProbeConfig, ReadAhead};
use hypura_engine::load::LoadSettings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Linux's usual read-ahead in KiB (`VM_READAHEAD_PAGES`).
pub const USUAL_READ_AHEAD_KB: u64 = 128;
/// How long one measurement of the disk takes.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Raw reads as the streaming of a model makes them.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadShape {
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Requests at the disk at the same time.
    pub depth: usize,
    /// Experts are anywhere in the file; dense weights follow each other.
    pub pattern: Pattern,
    /// Which reader.
    pub reader: ReaderKind,
}

impl ReadShape {
    /// The reads of streaming this model with these settings. A slice larger than a chunk is read chunk by
    /// chunk.
    #[must_use]
    pub fn of(shape: &ModelShape, layout: &ExpertLayout, settings: &LoadSettings) -> Self {
        let chunk = settings.tuning.reader_config.chunk_bytes;
        let slice = layout.layers.iter().flat_map(|layer| &layer.parts).map(|part| part.slice_bytes).max();
        let pattern = if shape.is_dense() { Pattern::Sequential } else { Pattern::Random };
        Self {
            request_bytes: slice.unwrap_or(chunk).min(chunk),
            depth: settings.tuning.reader_config.depth,
            pattern,
            reader: settings.tuning.reader.clone(),
        }
    }
}

/// One measurement of the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Name of the reader that was used.
    pub reader: String,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Requests at the disk at the same time.
    pub depth: usize,
    /// Bytes per second.
    pub bytes_per_s: f64,
}

/// Measures what the disk delivers for such reads of this file, directly, past the page cache.
///
/// # Errors
/// Why nothing can be measured here, in one line.
pub fn measure_bandwidth(file: &Path, shape: &ReadShape, seed: u64) -> Result<Bandwidth, String> {
    let config = ProbeConfig {
        patterns: vec![shape.pattern],
        readers: vec![shape.reader.clone()],
        request_bytes: vec![shape.request_bytes],
        depths: vec![shape.depth],
        cell_duration: PROBE_TIME,
        seed,
        ..ProbeConfig::default()
    };
    let report = iobench::measure(file, &config).map_err(|error| error.to_string())?;
    let cell = report.cells.into_iter().next().ok_or("nothing was measured")?;
    let throughput = cell.result?;
    Ok(Bandwidth {
        reader: cell.reader,
        request_bytes: cell.request_bytes,
        depth: cell.depth,
        bytes_per_s: throughput.bytes_per_s(),
    })
}

/// Where a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// The page cache was dropped for the model before each run.
    Cold,
    /// It could not be dropped.
    Warm,
}

/// Has the page cache forget these files. Pages that somebody has mapped or not yet written stay.
#[must_use]
pub fn forget_cached(files: &[PathBuf]) -> CacheState {
    if files.iter().all(|path| forget_file(path).is_ok()) { CacheState::Cold } else { CacheState::Warm }
}

#[cfg(target_os = "linux")]
fn forget_file(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    // A model that was just written has pages that the disk does not have yet; they could not be forgotten.
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn forget_file(_path: &Path) -> std::io::Result<()> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}

/// What baselines over the page cache ran with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadAheadReport {
    /// The setting that was found, in KiB; `None` where there is none.
    pub found_kb: Option<u64>,
    /// The setting during the runs of the mmap arm, in KiB.
    pub used_kb: Option<u64>,
    /// Why `used_kb` is not the usual value.
    pub warning: Option<String>,
}

/// Sets the usual read-ahead for as long as the guard lives, where that may be done.
#[must_use]
pub fn usual_read_ahead(device: Option<&BlockDevice>) -> (Option<ReadAhead>, ReadAheadReport) {
    let Some(device) = device else {
        let warning =
            "the disk of the model is unknown, and so is its read-ahead, on which the mmap arm depends";
        let report = ReadAheadReport { found_kb: None, used_kb: None, warning: Some(warning.to_owned()) };
        return (None, report);
    };
    if device.read_ahead_kb == Some(USUAL_READ_AHEAD_KB) {
        let used_kb = device.read_ahead_kb;
        return (None, ReadAheadReport { found_kb: used_kb, used_kb, warning: None });
    }
    match ReadAhead::set(&device.name, USUAL_READ_AHEAD_KB) {
        Ok(guard) => {
            let report = ReadAheadReport {
                found_kb: Some(guard.before_kb()),
                used_kb: Some(USUAL_READ_AHEAD_KB),
                warning: None,
            };
            (Some(guard), report)
        }
        Err(error) => {
            let warning = format!(
                "the read-ahead of {} could not be set to {USUAL_READ_AHEAD_KB} KiB ({error}): the mmap arm ran with \
                 another value than Linux's usual one",
                device.name
            );
            let kb = device.read_ahead_kb;
            (None, ReadAheadReport { found_kb: kb, used_kb: kb, warning: Some(warning) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_the_usual_read_ahead_is_left_alone() {
        let device = BlockDevice {
            name: "no-such-device".to_owned(),
            rotational: None,
            read_ahead_kb: Some(USUAL_READ_AHEAD_KB),
        };
        let (guard, report) = usual_read_ahead(Some(&device));
        assert!(guard.is_none() && report.warning.is_none());
        assert_eq!(report.used_kb, Some(USUAL_READ_AHEAD_KB));
    }

    #[test]
    fn a_read_ahead_that_cannot_be_set_is_told() {
        let device =
            BlockDevice { name: "no-such-device".to_owned(), rotational: None, read_ahead_kb: Some(8192) };
        let (guard, report) = usual_read_ahead(Some(&device));
        assert!(guard.is_none());
        assert_eq!((report.found_kb, report.used_kb), (Some(8192), Some(8192)));
        assert!(report.warning.unwrap().contains("no-such-device"));
        assert!(usual_read_ahead(None).1.warning.is_some());
    }

    #[test]
    fn a_file_that_is_not_there_cannot_be_forgotten() {
        assert_eq!(forget_cached(&[PathBuf::from("/nonexistent")]), CacheState::Warm);
    }
}
