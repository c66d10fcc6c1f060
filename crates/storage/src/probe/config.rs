//! What a probe is asked and what it answers: plain data.

use std::path::PathBuf;
use std::time::Duration;

use crate::disk::FileSystem;
use crate::reader::ReaderKind;

/// In which order a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Front to back, from where the last cell ended, and again from the start.
    Sequential,
    /// At random places, multiples of the request size.
    Random,
}

/// What to measure: each pattern × reader × size × depth is one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// Orders of reading.
    pub patterns: Vec<Pattern>,
    /// Readers to compare.
    pub readers: Vec<ReaderKind>,
    /// Request sizes in bytes, rounded up to whole pages.
    pub request_bytes: Vec<usize>,
    /// Requests at the device at the same time.
    pub depths: Vec<usize>,
    /// How long each cell reads.
    pub cell_duration: Duration,
    /// Size of the file that is written, and deleted again, when the target is a folder; in bytes.
    pub scratch_bytes: u64,
    /// Seed of the random places and of the scratch data.
    pub seed: u64,
    /// How long all of it may take, half of it for the scratch file: what there is no time for is not
    /// measured, and a scratch file becomes smaller. `None` for as long as it takes.
    pub limit: Option<Duration>,
}

impl Default for ProbeConfig {
    /// Both patterns with the default reader, 64 KiB to 4 MiB at depths 1, 8 and 32, half a second each, 1
    /// GiB.
    fn default() -> Self {
        ProbeConfig {
            patterns: vec![Pattern::Sequential, Pattern::Random],
            readers: vec![ReaderKind::Auto],
            request_bytes: vec![64 << 10, 1 << 20, 4 << 20],
            depths: vec![1, 8, 32],
            cell_duration: Duration::from_millis(500),
            scratch_bytes: 1 << 30,
            seed: 1,
            limit: None,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeReport {
    /// The file that was read, or the folder of the scratch file.
    pub target: PathBuf,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// Where it lies.
    pub file_system: FileSystem,
    /// One entry for each combination, in the order of measurement.
    pub cells: Vec<ProbeCell>,
}

impl ProbeReport {
    /// The cell with the highest bandwidth for a pattern.
    pub fn best(&self, pattern: Pattern) -> Option<&ProbeCell> {
        let rate = |cell: &ProbeCell| cell.result.as_ref().map_or(0.0, Throughput::bytes_per_s);
        self.cells
            .iter()
            .filter(|cell| cell.pattern == pattern && cell.result.is_ok())
            .max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }
}

/// One measurement, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeCell {
    /// Name of the reader that was used, or of the kind that was asked for if it could not be opened.
    pub reader: String,
    /// Order of reading.
    pub pattern: Pattern,
    /// Bytes a request.
    pub request_bytes: usize,
    /// Requests at the device at the same time.
    pub depth: usize,
    /// What was measured, or the reason why nothing was.
    pub result: Result<Throughput, String>,
}

/// Bytes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// Bytes read.
    pub bytes: u64,
    /// Requests that read them.
    pub requests: u64,
    /// From the first submission to the last completion.
    pub elapsed: Duration,
}

impl Throughput {
    /// Mean bandwidth, in bytes per second.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
