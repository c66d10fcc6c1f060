//! Counters at a moment, and what happened between two moments. Taken by the process that computes, so that
//! its own share of the machine is known exactly.
//!
//! What a system does not count is `None`.

use hypura_core::roofline::{BoundBy, Times};
use hypura_engine::machine;
use hypura_engine::stream::StreamStats;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Instant;

use super::procfs::{self, DiskBytes, MachineCpu};

/// All counters at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    process_cpu_s: Option<f64>,
    reader_cpu_s: Option<f64>,
    machine: Option<MachineCpu>,
    disk: Option<DiskBytes>,
    kernel_read_bytes: Option<u64>,
    stream: StreamStats,
}

/// What happened in one phase of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Tokens computed.
    pub tokens: u64,
    /// Wall-clock time in seconds.
    pub wall_s: f64,
    /// Tokens per second.
    pub tps: f64,
    /// Expert lookups that found their expert in memory.
    pub experts_hit: u64,
    /// Expert lookups that did not.
    pub experts_missed: u64,
    /// Of the misses, those that were read before they were asked for.
    #[serde(default)]
    pub experts_prefetched: u64,
    /// Bytes that our reader got.
    pub bytes_read: u64,
    /// Bytes that the kernel says this process made the disk deliver, page faults included.
    pub bytes_read_kernel: Option<u64>,
    /// Time with a read of ours at the disk, in seconds; `None` where nothing streams.
    #[serde(default)]
    pub disk_busy_s: Option<f64>,
    /// Time with nothing to compute, waiting for the disk, in seconds.
    pub read_stall_s: f64,
    /// Time in graphs, stalls excluded, in seconds; `None` where nothing streams.
    pub compute_s: Option<f64>,
    /// Processor time of threads that compute (user and system), in seconds.
    pub cpu_compute_s: Option<f64>,
    /// Processor time of threads that read, in seconds.
    pub cpu_reader_s: Option<f64>,
    /// Processors that something else kept busy, on average.
    pub other_load: Option<f64>,
    /// Processors that a hypervisor took away, on average.
    pub stolen: Option<f64>,
    /// Bytes per second that others read from and wrote to the disk of the model.
    pub other_disk_bytes_per_s: Option<f64>,
}

impl Snapshot {
    /// Now. `device` is the disk of the model, by its name in `/sys/block`.
    #[must_use]
    pub fn take(stream: StreamStats, device: Option<&str>) -> Self {
        Self {
            at: Instant::now(),
            process_cpu_s: process_cpu_s(),
            reader_cpu_s: reader_cpu_s(),
            machine: read("/proc/stat").and_then(|text| procfs::parse_stat(&text)),
            disk: device
                .and_then(|name| read(Path::new("/sys/block").join(name).join("stat")))
                .and_then(|text| procfs::parse_disk(&text)),
            kernel_read_bytes: machine::storage_read_bytes().ok(),
            stream,
        }
    }

    /// What happened since `earlier`, in which `tokens` were computed within `wall_s` (the time that counts,
    /// which a caller may know better than the two clocks here).
    #[must_use]
    pub fn since(&self, earlier: &Self, tokens: u64, wall_s: f64) -> Phase {
        let elapsed_s = self.at.duration_since(earlier.at).as_secs_f64().max(f64::MIN_POSITIVE);
        let stream = self.stream.since(&earlier.stream);
        let hits = stream.decode.hits + stream.prefill.hits;
        let misses = stream.decode.misses + stream.prefill.misses;
        let cpu_s = delta(self.process_cpu_s, earlier.process_cpu_s);
        let reader_s = delta(self.reader_cpu_s, earlier.reader_cpu_s);
        let kernel = self.kernel_read_bytes.zip(earlier.kernel_read_bytes).map(|(now, then)| now - then);
        let per_s = |seconds: f64| (seconds / elapsed_s).max(0.0);
        let machine = self.machine.zip(earlier.machine);
        let others = |(now, then): (DiskBytes, DiskBytes)| {
            let all = (now.read + now.written).saturating_sub(then.read + then.written);
            all.saturating_sub(kernel.unwrap_or(0)) as f64 / elapsed_s
        };
        Phase {
            tokens,
            wall_s,
            tps: tokens as f64 / wall_s.max(f64::MIN_POSITIVE),
            experts_hit: hits,
            experts_missed: misses,
            experts_prefetched: stream.decode.prefetched + stream.prefill.prefetched,
            bytes_read: stream.bytes_read,
            bytes_read_kernel: kernel,
            disk_busy_s: (stream.graphs > 0).then_some(stream.disk_busy.as_secs_f64()),
            read_stall_s: stream.read_stall.as_secs_f64(),
            compute_s: (stream.graphs > 0).then_some(stream.compute.as_secs_f64()),
            cpu_compute_s: cpu_s.map(|all| (all - reader_s.unwrap_or(0.0)).max(0.0)),
            cpu_reader_s: reader_s,
            other_load: machine.zip(cpu_s).map(|((now, then), own)| per_s(now.busy_s - then.busy_s - own)),
            stolen: machine.map(|(now, then)| per_s(now.steal_s - then.steal_s)),
            other_disk_bytes_per_s: self.disk.zip(earlier.disk).map(others),
        }
    }
}

impl Phase {
    /// Share of the lookups that hit; `None` without lookups.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.experts_hit + self.experts_missed;
        (lookups > 0).then(|| self.experts_hit as f64 / lookups as f64)
    }

    /// What bound it; `None` where nothing streams.
    #[must_use]
    pub fn bound_by(&self) -> Option<BoundBy> {
        Some(Times::measured(self.wall_s, self.disk_busy_s?, self.compute_s?, self.read_stall_s).bound_by())
    }

    /// Why this phase says little about the model, if something disturbed it.
    #[must_use]
    pub fn disturbance(&self) -> Option<String> {
        /// Processors; kernel threads that work for the run itself (writeback, reclaim) stay below.
        const MOST_LOAD: f64 = 0.2;
        /// Processors.
        const MOST_STOLEN: f64 = 0.1;
        /// Bytes per second; logs and the like stay below.
        const MOST_DISK: f64 = 20e6;
        let load = self.other_load.filter(|load| *load > MOST_LOAD);
        let stolen = self.stolen.filter(|stolen| *stolen > MOST_STOLEN);
        let disk = self.other_disk_bytes_per_s.filter(|rate| *rate > MOST_DISK);
        let causes: Vec<String> = [
            load.map(|load| format!("others kept {load:.1} processors busy")),
            stolen.map(|stolen| format!("the hypervisor took {stolen:.1} processors")),
            disk.map(|rate| format!("others moved {:.0} MB/s on the disk", rate / 1e6)),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!causes.is_empty()).then(|| causes.join(", "))
    }
}

fn delta(now: Option<f64>, then: Option<f64>) -> Option<f64> {
    Some((now? - then?).max(0.0))
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// User and system time of this process, threads that ended included.
pub(super) fn process_cpu_s() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// Time of the threads that read, as long as they live. `None` where threads cannot be asked.
fn reader_cpu_s() -> Option<f64> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let time_of = |folder: &Path| -> Option<f64> {
        let name = read(folder.join("comm"))?;
        if !procfs::is_reader_thread(&name) {
            return None;
        }
        procfs::parse_schedstat(&read(folder.join("schedstat"))?)
    };
    Some(threads.flatten().filter_map(|entry| time_of(&entry.path())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn snapshot(at: Instant, cpu_s: f64, busy_s: f64, disk: u64, own: u64) -> Snapshot {
        Snapshot {
            at,
            process_cpu_s: Some(cpu_s),
            reader_cpu_s: Some(cpu_s / 10.0),
            machine: Some(MachineCpu { busy_s, steal_s: 0.0 }),
            disk: Some(DiskBytes { read: disk, written: 0 }),
            kernel_read_bytes: Some(own),
            stream: StreamStats::default(),
        }
    }

    #[test]
    fn what_others_did_is_what_we_did_not() {
        let start = Instant::now();
        let earlier = snapshot(start, 1.0, 100.0, 0, 0);
        let later = snapshot(start + Duration::from_secs(10), 11.0, 125.0, 900_000_000, 300_000_000);
        let phase = later.since(&earlier, 20, 10.0);
        assert!((phase.tps - 2.0).abs() < 1e-9);
        assert!((phase.other_load.unwrap() - 1.5).abs() < 1e-9);
        assert!((phase.cpu_reader_s.unwrap() - 1.0).abs() < 1e-9);
        assert!((phase.cpu_compute_s.unwrap() - 9.0).abs() < 1e-9);
        assert!((phase.other_disk_bytes_per_s.unwrap() - 60e6).abs() < 1.0);
        let why = phase.disturbance().unwrap();
        assert_eq!(why, "others kept 1.5 processors busy, others moved 60 MB/s on the disk");
        assert_eq!((phase.hit_rate(), phase.compute_s), (None, None), "nothing streamed");
    }

    #[test]
    fn a_quiet_run_is_not_marked_and_what_is_unknown_is_not_invented() {
        let start = Instant::now();
        let blank = |at| Snapshot {
            machine: None,
            disk: None,
            process_cpu_s: None,
            reader_cpu_s: None,
            kernel_read_bytes: None,
            ..snapshot(at, 0.0, 0.0, 0, 0)
        };
        let phase = blank(start + Duration::from_secs(1)).since(&blank(start), 1, 1.0);
        assert_eq!(phase.disturbance(), None);
        assert_eq!((phase.other_load, phase.bytes_read_kernel, phase.cpu_compute_s), (None, None, None));
        let quiet = snapshot(start + Duration::from_secs(10), 11.0, 111.0, 100, 100).since(
            &snapshot(start, 1.0, 100.0, 0, 0),
            20,
            10.0,
        );
        assert_eq!(quiet.disturbance(), None);
    }

    #[test]
    fn what_bound_a_phase_is_known_where_graphs_ran_on_our_device() {
        let start = Instant::now();
        let earlier = snapshot(start, 0.0, 0.0, 0, 0);
        let mut later = snapshot(start + Duration::from_secs(10), 0.0, 0.0, 0, 0);
        assert_eq!(later.since(&earlier, 1, 10.0).bound_by(), None);
        later.stream.graphs = 1;
        later.stream.compute = Duration::from_secs(7);
        later.stream.read_stall = Duration::from_secs(2);
        later.stream.disk_busy = Duration::from_secs(8);
        assert_eq!(later.since(&earlier, 1, 10.0).bound_by(), Some(BoundBy::Compute));
        later.stream.disk_busy = Duration::from_secs(9);
        assert_eq!(later.since(&earlier, 1, 9.5).bound_by(), Some(BoundBy::Disk));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_its_processor_time() {
        let before = Snapshot::take(StreamStats::default(), None);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(30) {
            std::hint::black_box(start);
        }
        let phase = Snapshot::take(StreamStats::default(), None).since(&before, 1, 0.03);
        assert!(phase.cpu_compute_s.unwrap() > 0.0);
        assert!(phase.other_load.is_some() && phase.bytes_read_kernel.is_some());
    }
}
