//! Measures disk, processor and memory within [`budget`].

use hypura_core::gguf::GgmlType;
use hypura_core::profile::{AttentionRate, MatmulRate, Overhead, Profile};
use hypura_ggml::Device;
use hypura_ggml::measure::{Kernel, MeasureOptions, wake};
use hypura_storage::{Arena, HugePages};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::facts::{self, CpuTimes};
use super::options::ProfileOptions;
use super::store::Need;
use super::timing::Timing;
use super::{budget, disk};

/// The quantisations that GGUFs are made of, most used first; routers are F32 in all of them.
pub(super) const QUANTS: [GgmlType; 10] = [
    GgmlType::Q4_K,
    GgmlType::Q6_K,
    GgmlType::F32,
    GgmlType::Q5_K,
    GgmlType::Q8_0,
    GgmlType::MXFP4,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_0,
    GgmlType::F16,
];
/// A matrix of the shape that models have.
const COLUMNS: u32 = 2048;
/// Tokens of a prefill measurement: enough for the kernels of many tokens.
const PREFILL_TOKENS: u32 = 64;
/// Pieces of a matrix that are measured one by one with many tokens.
const PREFILL_PIECES: u32 = 4;
/// How often the processor is measured.
const ROUNDS: usize = 2;
/// Shares of the whole that the parts take, for the progress.
const DISK_PART: f64 = 0.5;
const CPU_PART: f64 = 0.97;

/// Measures everything. `progress` gets the part that is done, 0 to 1, and what comes next.
pub fn measure(options: &ProfileOptions, progress: &mut dyn FnMut(f64, &str)) -> Profile {
    let start = Instant::now();
    let times = CpuTimes::now();
    let storage = options.disk.then(|| {
        progress(0.0, "disk");
        disk::measure(options, start)
    });
    let mut timing = Timing::default();
    let matmul = matmul_rates(options, start, &mut timing, progress);
    progress(CPU_PART, "memory");
    let mut memory = facts::memory();
    memory.read_bytes_per_s = memory_bandwidth(options);
    let touch = touch_bandwidth(options, memory.available_bytes);
    memory.touch_bytes_per_s = touch.map(|(rate, _)| rate);
    memory.touch_ready_bytes = touch.map(|(_, ready)| ready);
    let attention = attention_rate(options, None, &mut timing);
    let overhead = least_overhead(options, start);
    progress(1.0, "done");
    let need = Need { target: &options.target, threads: options.threads, disk: options.disk };
    Profile {
        key: need.key(),
        measured_at_s: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map(|age| age.as_secs()),
        measuring_s: Some(start.elapsed().as_secs_f64()),
        others_share: times.and_then(|before| CpuTimes::now()?.others_share(before)),
        doubtful_share: timing.doubtful_share(),
        cpu: facts::cpu(options.threads),
        matmul,
        attention,
        overhead: Overhead {
            node_s: overhead.map(|(node_s, _)| node_s),
            call_s: overhead.map(|(_, call_s)| call_s),
            wake_s: wake(options.threads).ok(),
        },
        memory,
        devices: facts::devices(),
        gpu: None,
        workers: Vec::new(),
        storage,
        audit: Vec::new(),
    }
}

/// Twice over all types, the better of both: other programs disturb one of two moments less often than both.
fn matmul_rates(
    options: &ProfileOptions,
    start: Instant,
    timing: &mut Timing,
    progress: &mut dyn FnMut(f64, &str),
) -> Vec<MatmulRate> {
    let mut rates: Vec<MatmulRate> = Vec::with_capacity(QUANTS.len());
    let mut longest = Duration::ZERO;
    let all = (0..ROUNDS).flat_map(|round| QUANTS.into_iter().enumerate().map(move |quant| (round, quant)));
    for (round, (index, quant)) in all {
        let began = start.elapsed();
        if !budget::may_measure_quant(began, rates.len(), longest) {
            break;
        }
        let done = (round * QUANTS.len() + index) as f64 / (ROUNDS * QUANTS.len()) as f64;
        progress(DISK_PART + (CPU_PART - DISK_PART) * done, &format!("processor, {quant}"));
        let rate = matmul_rate(options, None, quant, timing);
        longest = longest.max(start.elapsed().saturating_sub(began));
        match rates.get_mut(index) {
            Some(before) => keep_better(before, &rate),
            None => rates.push(rate),
        }
    }
    // A type that the backend cannot multiply was not measured.
    rates.retain(|rate| rate.decode_bytes_per_s.is_some() || rate.prefill_flops_per_s.is_some());
    rates
}

/// Seconds of a node and of a call: the least of several, because a disturbance only ever adds.
fn least_overhead(options: &ProfileOptions, start: Instant) -> Option<(f64, f64)> {
    let mut least: Option<(f64, f64)> = None;
    for round in 0..2 * ROUNDS {
        if round > 0 && !budget::may_repeat(start.elapsed(), options.cell) {
            break;
        }
        let found = Timing::overhead(options.threads, options.cell / 2);
        least = least.into_iter().chain(found).min_by(|a, b| a.1.total_cmp(&b.1));
    }
    least
}

/// Rates of a type, on the CPU or a device.
pub(super) fn matmul_rate(
    options: &ProfileOptions,
    device: Option<Device>,
    quant: GgmlType,
    timing: &mut Timing,
) -> MatmulRate {
    let row_bytes = quant.row_bytes(u64::from(COLUMNS)).unwrap_or(1);
    // Matrices of 4 MiB; as many as make up the weights. A GPU would measure how it starts kernels.
    let matrix_bytes = if device.is_some() { 32 << 20 } else { 4 << 20 };
    let rows = (options.weight_bytes.min(matrix_bytes) / row_bytes).max(16);
    let matrices = options.weight_bytes.div_ceil(rows * row_bytes).max(1);
    let base = MeasureOptions {
        ty: quant.id(),
        kernel: Kernel::MulMat { tokens: 1 },
        columns: COLUMNS,
        rows: u32::try_from(rows).unwrap_or(u32::MAX),
        matrices: u32::try_from(matrices).unwrap_or(u32::MAX),
        device,
        threads: options.threads,
        duration: options.cell / ROUNDS as u32,
    };
    // One in two of the experts of a stack, so that memory is not read in one run.
    let experts = MeasureOptions {
        kernel: Kernel::MulMatId { experts: 16, used: 8, tokens: 1 },
        rows: (base.rows / 8).max(1),
        ..base
    };
    // Samples of the CPU are to be shorter than the time slices of other programs.
    let pieces = if device.is_some() { 1 } else { PREFILL_PIECES };
    let in_pieces = |of: MeasureOptions, kernel| {
        let rows = (of.rows / pieces).max(1);
        MeasureOptions { kernel, rows, matrices: pieces, ..of }
    };
    let prefill = in_pieces(base, Kernel::MulMat { tokens: PREFILL_TOKENS });
    let of_experts = Kernel::MulMatId { experts: 16, used: 8, tokens: PREFILL_TOKENS };
    let expert_prefill = in_pieces(experts, of_experts);
    let mut bytes = |options| timing.of(options).map(|run| run.bytes as f64 / run.usual_s);
    let (decode_bytes_per_s, expert_bytes_per_s) = (bytes(&base), bytes(&experts));
    let mut flops = |options| timing.of(options).map(|run| run.flops as f64 / run.usual_s);
    MatmulRate {
        quant: quant.name().to_owned(),
        decode_bytes_per_s,
        expert_bytes_per_s,
        prefill_flops_per_s: flops(&prefill),
        expert_prefill_flops_per_s: flops(&expert_prefill),
    }
}

/// Attention as most models have it today: 32 heads of 128 on 8 of keys and values.
pub(super) fn attention_rate(
    options: &ProfileOptions,
    device: Option<Device>,
    timing: &mut Timing,
) -> AttentionRate {
    /// Tokens before: as many as make an answer's attention noticeable.
    const PAST: u32 = 1024;
    let mut flops = |tokens, layers| {
        let kernel = Kernel::Attention { heads: 32, kv_heads: 8, tokens };
        let duration = options.cell;
        let (ty, threads) = (GgmlType::F16.id(), options.threads);
        let (columns, rows, matrices) = (128, PAST, layers);
        let options = MeasureOptions { ty, kernel, columns, rows, matrices, device, threads, duration };
        timing.of(&options).map(|run| run.flops as f64 / run.usual_s)
    };
    // The keys and values of several layers, so that they come from memory.
    AttentionRate { decode_flops_per_s: flops(1, 16), prefill_flops_per_s: flops(PREFILL_TOKENS, 1) }
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
    better(&mut best.expert_prefill_flops_per_s, other.expert_prefill_flops_per_s);
}

/// Touches fresh memory as slots are made of, page after page. Returns the rate of the later half, and how
/// many bytes came much faster before: the system gives what was just freed first, and a virtual machine may
/// have to ask its host for the rest.
fn touch_bandwidth(options: &ProfileOptions, available_bytes: Option<u64>) -> Option<(f64, u64)> {
    /// How much faster a part is that the system had at hand.
    const READY: f64 = 4.0;
    /// Bytes between two touches: the smallest page there is.
    const STEP: usize = 4096;
    /// Bytes between two looks at the clock.
    const PART: usize = 8 << 20;
    let most = available_bytes.map_or(options.weight_bytes, |bytes| bytes / 4);
    let bytes = usize::try_from((options.weight_bytes * 8).min(most).max(PART as u64)).ok()?;
    let arena = Arena::new(bytes, HugePages::Try).ok()?;
    let start = Instant::now();
    let mut times = vec![Duration::ZERO];
    for part in arena.cells().chunks_exact(PART) {
        part.iter().step_by(STEP).for_each(|cell| cell.store(1, Ordering::Relaxed));
        times.push(start.elapsed());
        if start.elapsed() > budget::TOUCH {
            break;
        }
    }
    let (parts, half) = (times.len() - 1, (times.len() - 1) / 2);
    let took = times.last()?.saturating_sub(*times.get(half)?).as_secs_f64();
    let usual_s = took / (parts - half).max(1) as f64;
    let fast = |pair: &[Duration]| (pair[1] - pair[0]).as_secs_f64() * READY < usual_s;
    let ready = times.windows(2).take_while(|pair| fast(pair)).count() * PART;
    (took > 0.0).then(|| (PART as f64 / usual_s, ready as u64))
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
