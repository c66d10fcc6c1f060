//! Raw reads from the disk by request size, depth and reader: what streaming could get at best.

use hypura_core::plan::human_bytes;
use hypura_engine::iobench::{Pattern, ProbeCell, ProbeReport};
use serde::Serialize;
use std::fmt::Write as _;

/// All measurements, as a program reads them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IoReport {
    /// What was read.
    pub target: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// Type of the file system.
    pub file_system: Option<String>,
    /// Name of the device.
    pub device: Option<String>,
    /// Whether it spins.
    pub rotational: Option<bool>,
    /// One entry for each combination.
    pub cells: Vec<IoCell>,
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IoCell {
    /// `sequential` or `random`.
    pub pattern: &'static str,
    /// Name of the reader.
    pub reader: String,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Requests at the disk at the same time.
    pub depth: usize,
    /// What was reached.
    pub bytes_per_s: Option<f64>,
    /// Requests per second.
    pub requests_per_s: Option<f64>,
    /// Why nothing was.
    pub error: Option<String>,
}

impl IoReport {
    /// Of a probe.
    #[must_use]
    pub fn of(report: &ProbeReport) -> Self {
        let device = report.file_system.device.as_ref();
        Self {
            target: report.target.display().to_string(),
            file_bytes: report.file_bytes,
            file_system: report.file_system.kind.clone(),
            device: device.map(|device| device.name.clone()),
            rotational: device.and_then(|device| device.rotational),
            cells: report.cells.iter().map(IoCell::of).collect(),
        }
    }

    /// For people: a line for each pattern, reader and size, a column for each depth, in GB/s.
    #[must_use]
    pub fn table(&self) -> String {
        let mut depths: Vec<usize> = self.cells.iter().map(|cell| cell.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        let mut text = format!(
            "{}, {} on {} ({}), direct reads, GB/s\n\n{:<12}{:<8}{:>10}",
            self.target,
            human_bytes(self.file_bytes),
            self.device.as_deref().unwrap_or("an unknown device"),
            self.file_system.as_deref().unwrap_or("unknown file system"),
            "pattern",
            "reader",
            "request"
        );
        for depth in &depths {
            let _ = write!(text, "{:>10}", format!("depth {depth}"));
        }
        text.push('\n');
        let mut seen: Vec<(&str, &str, usize)> = Vec::new();
        for cell in &self.cells {
            let key = (cell.pattern, cell.reader.as_str(), cell.request_bytes);
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let _ = write!(text, "{:<12}{:<8}{:>10}", key.0, key.1, human_size(key.2));
            for depth in &depths {
                let _ = write!(text, "{:>10}", self.speed(key, *depth));
            }
            text.push('\n');
        }
        let mut errors: Vec<&str> = self.cells.iter().filter_map(|cell| cell.error.as_deref()).collect();
        errors.dedup();
        for error in errors {
            let _ = writeln!(text, "not measured: {error}");
        }
        text
    }

    fn speed(&self, key: (&str, &str, usize), depth: usize) -> String {
        let found = self.cells.iter().find(|cell| {
            (cell.pattern, cell.reader.as_str(), cell.request_bytes, cell.depth)
                == (key.0, key.1, key.2, depth)
        });
        found
            .and_then(|cell| cell.bytes_per_s)
            .map_or_else(|| "–".to_owned(), |speed| format!("{:.2}", speed / 1e9))
    }
}

impl IoCell {
    fn of(cell: &ProbeCell) -> Self {
        let reached = cell.result.as_ref().ok();
        let seconds = |elapsed: std::time::Duration| elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            pattern: match cell.pattern {
                Pattern::Sequential => "sequential",
                Pattern::Random => "random",
            },
            reader: cell.reader.clone(),
            request_bytes: cell.request_bytes,
            depth: cell.depth,
            bytes_per_s: reached.map(|throughput| throughput.bytes_per_s()),
            requests_per_s: reached
                .map(|throughput| throughput.requests as f64 / seconds(throughput.elapsed)),
            error: cell.result.as_ref().err().cloned(),
        }
    }
}

/// Whole units without decimals.
fn human_size(bytes: usize) -> String {
    match bytes {
        whole if whole % (1 << 20) == 0 => format!("{} MiB", whole >> 20),
        whole if whole % (1 << 10) == 0 => format!("{} KiB", whole >> 10),
        odd => format!("{odd} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(depth: usize, speed: Option<f64>) -> IoCell {
        IoCell {
            pattern: "random",
            reader: "uring".to_owned(),
            request_bytes: 1 << 20,
            depth,
            bytes_per_s: speed,
            requests_per_s: None,
            error: speed.is_none().then(|| "no direct reads here".to_owned()),
        }
    }

    #[test]
    fn a_line_has_all_depths_and_says_what_is_missing() {
        let report = IoReport {
            target: "m.gguf".to_owned(),
            file_bytes: 1 << 30,
            file_system: Some("ext4".to_owned()),
            device: None,
            rotational: None,
            cells: vec![cell(1, Some(1.5e9)), cell(8, None)],
        };
        let table = report.table();
        let line = table.lines().find(|line| line.starts_with("random")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["random", "uring", "1", "MiB", "1.50", "–"]);
        assert!(table.contains("not measured: no direct reads here"), "{table}");
    }

    #[test]
    fn sizes_are_whole() {
        assert_eq!(human_size(4 << 20), "4 MiB");
        assert_eq!(human_size(884_736), "864 KiB");
        assert_eq!(human_size(1000), "1000 B");
    }
}
