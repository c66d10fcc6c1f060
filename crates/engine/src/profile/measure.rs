//! Measures disk, processor and memory. Each part is short; together they take at most 15 seconds on an idle machine.

use hypura_core::gguf::GgmlType;
use hypura_core::profile::{MatmulRate, Overhead, Pattern, Profile, ReadRate, Storage};
use hypura_ggml::measure::{Kernel, MeasureOptions, measure as measure_kernel, overhead, wake};
use hypura_storage::probe::{self, ProbeConfig, ProbeReport, Throughput};
use hypura_storage::{Arena, HugePages, ReaderKind, disk};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::facts::{self, CpuTimes};
use super::store::key_of;

/// What to measure.
#[derive(Clone, Debug)]
pub struct ProfileOptions {
    /// The directory whose disk counts, or a large file on it (which spares writing one).
    pub target: PathBuf,
    /// Threads that compute.
    pub threads: u32,
    /// How long each of the about fifty small measurements takes.
    pub cell: Duration,
    /// Size of the file that is written when the target is a directory.
    pub scratch_bytes: u64,
    /// Least bytes of weights in a measurement: more than the caches hold.
    pub weight_bytes: u64,
}

impl ProfileOptions {
    /// The usual thoroughness.
    #[must_use]
    pub fn new(target: &Path, threads: u32) -> Self {
        Self {
            target: target.to_owned(),
            threads,
            cell: Duration::from_millis(120),
            scratch_bytes: 512 << 20,
            weight_bytes: 192 << 20,
        }
    }
}

/// The quantisations that GGUFs are made of, most used first.
const QUANTS: [GgmlType; 10] = [
    GgmlType::Q4_K,
    GgmlType::Q6_K,
    GgmlType::Q5_K,
    GgmlType::Q8_0,
    GgmlType::MXFP4,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_0,
    GgmlType::F16,
    GgmlType::F32,
];
const REQUEST_BYTES: [usize; 2] = [64 << 10, 1 << 20];
const DEPTHS: [usize; 4] = [1, 4, 16, 64];
/// A matrix of the shape that models have.
const COLUMNS: u32 = 2048;
/// Tokens of a prefill measurement: enough for the kernels of many tokens.
const PREFILL_TOKENS: u32 = 64;
/// When no further type is measured.
const PATIENCE: Duration = Duration::from_secs(12);
/// The types that most models are made of are measured whatever it takes: without them nothing can be predicted.
const LEAST_QUANTS: usize = 3;
/// How often the processor is measured.
const ROUNDS: usize = 2;
/// How often the reads of the program's own reader are measured beyond the first time.
const DISK_ROUNDS: usize = 2;
/// Shares of the whole that the parts take, for the progress.
const DISK_PART: f64 = 0.5;
const CPU_PART: f64 = 0.97;

/// Measures everything. `progress` gets the part that is done, 0 to 1, and what comes next.
pub fn measure(options: &ProfileOptions, progress: &mut dyn FnMut(f64, &str)) -> Profile {
    let start = Instant::now();
    let times = CpuTimes::now();
    progress(0.0, "disk");
    let mut storage = storage(options);
    // Only where this needs no new file.
    if options.target.is_file() && storage.is_measured() {
        progress(DISK_PART / 2.0, "disk");
        measure_again(options, &mut storage, DISK_ROUNDS);
    }
    let mut matmul: Vec<MatmulRate> = Vec::with_capacity(QUANTS.len());
    // Twice over all types, the better of both: other programs disturb one of two moments less often than both.
    for round in 0..ROUNDS {
        for (index, quant) in QUANTS.into_iter().enumerate() {
            if start.elapsed() > PATIENCE && matmul.len() >= LEAST_QUANTS {
                // A busy machine: what is not measured by now stays unmeasured.
                break;
            }
            let done = (round * QUANTS.len() + index) as f64 / (ROUNDS * QUANTS.len()) as f64;
            progress(DISK_PART + (CPU_PART - DISK_PART) * done, &format!("processor, {quant}"));
            let rate = matmul_rate(options, quant);
            match matmul.get_mut(index) {
                Some(before) => keep_better(before, &rate),
                None => matmul.push(rate),
            }
        }
    }
    // A type that the backend cannot multiply was not measured.
    matmul.retain(|rate| rate.decode_bytes_per_s.is_some() || rate.prefill_flops_per_s.is_some());
    progress(CPU_PART, "memory");
    let mut memory = facts::memory();
    memory.read_bytes_per_s = memory_bandwidth(options);
    memory.touch_bytes_per_s = touch_bandwidth(options);
    // The least of several: a disturbance only ever adds.
    let overheads = (0..2 * ROUNDS).filter_map(|_| overhead(options.threads, options.cell / 2).ok());
    let overhead = overheads.min_by(|a, b| a.1.total_cmp(&b.1));
    progress(1.0, "done");
    Profile {
        key: key_of(&options.target),
        measured_at_s: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map(|age| age.as_secs()),
        measuring_s: Some(start.elapsed().as_secs_f64()),
        others_share: times.and_then(|before| CpuTimes::now()?.others_share(before)),
        cpu: facts::cpu(options.threads),
        matmul,
        overhead: Overhead {
            node_s: overhead.map(|(node_s, _)| node_s),
            call_s: overhead.map(|(_, call_s)| call_s),
            wake_s: wake(options.threads).ok(),
        },
        memory,
        devices: facts::devices(),
        storage: Some(storage),
    }
}

fn storage(options: &ProfileOptions) -> Storage {
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
        scratch_bytes: options.scratch_bytes,
        ..ProbeConfig::default()
    };
    let file_system = disk::file_system_of(&options.target).unwrap_or_default();
    let device = file_system.device.as_ref();
    let facts = Storage {
        target: options.target.display().to_string(),
        file_system: file_system.kind.clone(),
        device: device.map(|device| device.name.clone()),
        rotational: device.and_then(crate::doctor::rotational),
        read_ahead_kb: device.and_then(|device| device.read_ahead_kb),
        reads: Vec::new(),
        obstacle: None,
    };
    match probe::measure(&options.target, &config) {
        Ok(report) => with_report(facts, &report),
        Err(error) => Storage { obstacle: Some(error.to_string()), ..facts },
    }
}

/// Measures again what the program reads with, and keeps the median of each cell: a disk is faster in one moment and
/// slower in the next, and what is predicted is neither.
fn measure_again(options: &ProfileOptions, storage: &mut Storage, rounds: usize) {
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
    for round in 0..rounds {
        let config = ProbeConfig { seed: config.seed + 1 + round as u64, ..config.clone() };
        let Ok(report) = probe::measure(&options.target, &config) else { return };
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

fn matmul_rate(options: &ProfileOptions, quant: GgmlType) -> MatmulRate {
    let row_bytes = quant.row_bytes(u64::from(COLUMNS)).unwrap_or(1);
    // Matrices of 4 MiB; as many as make up the weights.
    let rows = (options.weight_bytes.min(4 << 20) / row_bytes).max(16);
    let matrices = options.weight_bytes.div_ceil(rows * row_bytes).max(1);
    let base = MeasureOptions {
        ty: quant.id(),
        kernel: Kernel::MulMat { tokens: 1 },
        columns: COLUMNS,
        rows: u32::try_from(rows).unwrap_or(u32::MAX),
        matrices: u32::try_from(matrices).unwrap_or(u32::MAX),
        threads: options.threads,
        duration: options.cell / ROUNDS as u32,
    };
    // One in two of the experts of a stack, so that memory is not read in one run.
    let experts = MeasureOptions {
        kernel: Kernel::MulMatId { experts: 16, used: 8 },
        rows: (base.rows / 8).max(1),
        ..base
    };
    let prefill = MeasureOptions { kernel: Kernel::MulMat { tokens: PREFILL_TOKENS }, matrices: 1, ..base };
    let bytes = |options| measure_kernel(options).ok().map(|run| run.bytes as f64 / run.best_s);
    MatmulRate {
        quant: quant.name().to_owned(),
        decode_bytes_per_s: bytes(&base),
        expert_bytes_per_s: bytes(&experts),
        prefill_flops_per_s: measure_kernel(&prefill).ok().map(|run| run.flops as f64 / run.best_s),
    }
}

fn keep_better(best: &mut MatmulRate, other: &MatmulRate) {
    let better = |a: &mut Option<f64>, b: Option<f64>| {
        if b.partial_cmp(a) == Some(std::cmp::Ordering::Greater) {
            *a = b;
        }
    };
    better(&mut best.decode_bytes_per_s, other.decode_bytes_per_s);
    better(&mut best.expert_bytes_per_s, other.expert_bytes_per_s);
    better(&mut best.prefill_flops_per_s, other.prefill_flops_per_s);
}

/// Touches fresh memory as slots are made of, page after page; the faster of two.
fn touch_bandwidth(options: &ProfileOptions) -> Option<f64> {
    /// Bytes between two touches: the smallest page there is.
    const STEP: usize = 4096;
    let bytes = usize::try_from(options.weight_bytes).ok()?;
    let once = || {
        let arena = Arena::new(bytes, HugePages::Try).ok()?;
        let start = Instant::now();
        for cell in arena.cells().iter().step_by(STEP) {
            cell.store(1, Ordering::Relaxed);
        }
        Some(bytes as f64 / start.elapsed().as_secs_f64())
    };
    Some(once()?.max(once()?))
}

/// Sums memory with all threads, several times, and takes the fastest.
fn memory_bandwidth(options: &ProfileOptions) -> Option<f64> {
    const REPEATS: usize = 4;
    let words = usize::try_from(options.weight_bytes * 2 / 8).ok()?;
    let threads = options.threads.max(1) as usize;
    // Not zero: the kernel would map one page of zeroes everywhere.
    let memory = vec![1u64; words];
    let mut best_s = f64::MAX;
    for _ in 0..REPEATS {
        let start = Instant::now();
        let total: u64 = std::thread::scope(|scope| {
            let sum = |part: &[u64]| part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
            let parts = memory.chunks(words.div_ceil(threads));
            let workers: Vec<_> = parts.map(|part| scope.spawn(move || sum(part))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
        });
        if total != words as u64 {
            return None;
        }
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    Some(words as f64 * 8.0 / best_s)
}
