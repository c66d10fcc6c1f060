//! What was measured of a machine: capacities and rates, as plain data.
//!
//! Invariant: nothing here is invented. What was not measured, or cannot be known, is `None` or absent, and
//! code that needs it must say what it assumed instead. Rates are bytes or operations per second, sizes are
//! bytes.

use crate::gguf::GgmlType;
use serde::{Deserialize, Serialize};

/// Changes when the meaning of a field does, or when what is measured changes: a stored profile of another
/// format is measured again.
pub const PROFILE_FORMAT: u32 = 6;

/// The reader that the program chooses where the system has it.
const PREFERRED_READER: &str = "uring";

/// What a profile is valid for: another machine, disk or version needs another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileKey {
    /// [`PROFILE_FORMAT`].
    pub format: u32,
    /// Version of Hypura, because its kernels and readers are what is measured.
    pub version: String,
    /// What tells machines apart: processor, cores that may be used, memory.
    pub machine: String,
    /// Threads that computed: rates of one number of them are not those of another.
    #[serde(default)]
    pub threads: u32,
    /// What tells disks apart: file system, device, what is mounted.
    pub disk: String,
}

/// A machine and one of its disks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What it is valid for.
    pub key: ProfileKey,
    /// When it was measured, in seconds since 1970.
    pub measured_at_s: Option<u64>,
    /// How long measuring took, in seconds.
    pub measuring_s: Option<f64>,
    /// Share of the processor that other programs used meanwhile, 0 to 1.
    #[serde(default)]
    pub others_share: Option<f64>,
    /// Share of the processor's measurements that others disturbed throughout, 0 to 1: those are too slow. In
    /// the others what they took is left out.
    #[serde(default)]
    pub doubtful_share: Option<f64>,
    /// The processor.
    pub cpu: Cpu,
    /// Rates of matrix multiplication, one entry for each quantisation that was measured.
    pub matmul: Vec<MatmulRate>,
    /// Rates of attention.
    #[serde(default)]
    pub attention: AttentionRate,
    /// What a graph costs besides its arithmetic.
    pub overhead: Overhead,
    /// Memory.
    pub memory: Memory,
    /// Devices as ggml reports them.
    pub devices: Vec<Device>,
    /// The GPU that computes, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRates>,
    /// Other machines that take part, in the order of their pools in a plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerRates>,
    /// The disk under the directory that was asked for.
    pub storage: Option<Storage>,
    /// What runs on this machine came to, the latest last: predictions correct their rates from it. Kept in a
    /// file of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<Record>,
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its name.
    pub model: Option<String>,
    /// Cores that this process may use.
    pub cores: Option<u32>,
    /// Threads that computed while measuring.
    pub threads: Option<u32>,
    /// SIMD extensions that the kernels were compiled for (`AVX2`, `NEON`, …).
    pub features: Vec<String>,
}

/// How fast weights of one type are multiplied, on the backend that runs the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatmulRate {
    /// llama.cpp's name of the type, for instance `q4_K`.
    pub quant: String,
    /// Bytes of weights per second with one token, from a set too large for the caches: what bounds decoding.
    pub decode_bytes_per_s: Option<f64>,
    /// The same for one token's experts out of a stack (`MUL_MAT_ID`).
    pub expert_bytes_per_s: Option<f64>,
    /// Operations per second (a multiplication and an addition are two) with many tokens: what bounds
    /// prefill.
    pub prefill_flops_per_s: Option<f64>,
    /// The same for experts, each with a share of the tokens (`MUL_MAT_ID`).
    #[serde(default)]
    pub expert_prefill_flops_per_s: Option<f64>,
}

/// How fast attention goes over keys and values in f16, scores and weighted values together, in operations
/// per second (a multiplication and an addition are two).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttentionRate {
    /// One token.
    pub decode_flops_per_s: Option<f64>,
    /// Many tokens.
    pub prefill_flops_per_s: Option<f64>,
}

/// How fast a GPU computes, and gets weights from the host's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuRates {
    /// ggml's name of it.
    pub device: String,
    /// Rates of matrix multiplication, as those of the processor.
    pub matmul: Vec<MatmulRate>,
    /// Rates of attention.
    pub attention: AttentionRate,
    /// One small node, and a call with the wait for it.
    pub overhead: Overhead,
    /// Bytes per second of uploads from memory that it can copy from without a detour.
    pub upload_bytes_per_s: Option<f64>,
}

/// Another machine that offers its memory: how fast it computes, as it measured itself, and the link to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRates {
    /// Its address.
    pub name: String,
    /// There and back, in seconds.
    pub round_trip_s: f64,
    /// Bytes per second to it.
    pub bytes_per_s: f64,
    /// Rates of matrix multiplication, as those of the processor; none where it has not measured itself.
    pub matmul: Vec<MatmulRate>,
    /// Rates of attention.
    pub attention: AttentionRate,
    /// What its graphs cost besides.
    pub overhead: Overhead,
}

/// What a graph costs besides its arithmetic, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// One small node: dispatch to the threads and their barrier.
    pub node_s: Option<f64>,
    /// One call that computes a graph, nodes excluded: the streamed nodes of a layer are calls of their own.
    pub call_s: Option<f64>,
    /// What a call takes longer when the threads have gone to sleep, as they do while the disk is waited for.
    #[serde(default)]
    pub wake_s: Option<f64>,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// RAM of the machine.
    pub total_bytes: Option<u64>,
    /// What could be had without swapping when it was measured.
    pub available_bytes: Option<u64>,
    /// The tightest limit of a control group, if there is one.
    pub limit_bytes: Option<u64>,
    /// What this limit and the machine left when it was measured.
    pub room_bytes: Option<u64>,
    /// Reading bandwidth with all threads.
    pub read_bytes_per_s: Option<f64>,
    /// How fast the system gives memory at the first touch, one thread: what a first read into memory pays
    /// for.
    #[serde(default)]
    pub touch_bytes_per_s: Option<f64>,
    /// Bytes that the system had at hand, so that their first touch took next to no time.
    #[serde(default)]
    pub touch_ready_bytes: Option<u64>,
}

/// A device as ggml reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Short name, such as `CPU`, `CUDA0`, `Metal`.
    pub name: String,
    /// For people.
    pub description: String,
    /// The backend of ggml that it belongs to: `CPU`, `CUDA`, `Vulkan`, `MTL`.
    #[serde(default)]
    pub backend: String,
    /// PCI address, where the backend knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
    /// `cpu`, `gpu`, `integrated gpu`, `accelerator` or `other`.
    pub kind: String,
    /// Whether it shares the host's memory; `None` when ggml does not say.
    pub unified: Option<bool>,
    /// Memory, as the device reports it (of Metal: `recommendedMaxWorkingSetSize`).
    pub memory_total_bytes: Option<u64>,
    /// Free memory.
    pub memory_free_bytes: Option<u64>,
}

/// The disk under a directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storage {
    /// The directory, or the file that was read.
    pub target: String,
    /// File system.
    pub file_system: Option<String>,
    /// Block device.
    pub device: Option<String>,
    /// Whether it is a spinning disk.
    pub rotational: Option<bool>,
    /// The kernel's read-ahead, which matters to mmap only.
    pub read_ahead_kb: Option<u64>,
    /// Direct reads that were measured.
    pub reads: Vec<ReadRate>,
    /// Why reads could not be measured.
    pub obstacle: Option<String>,
}

/// In which order a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Front to back.
    Sequential,
    /// At random places.
    Random,
}

/// One measurement of direct reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadRate {
    /// Name of the reader.
    pub reader: String,
    /// Order.
    pub pattern: Pattern,
    /// Bytes a request.
    pub request_bytes: u64,
    /// Requests at the device at the same time.
    pub depth: u32,
    /// Bandwidth; `None` when it failed.
    pub bytes_per_s: Option<f64>,
}

/// Decoding, by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tiers {
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Seconds of computing a token, waits for the disk left out.
    pub compute_s: Option<f64>,
    /// Bytes read for each token.
    pub read_bytes: Option<f64>,
    /// Bytes per second of the disk while it reads.
    pub disk_bytes_per_s: Option<f64>,
    /// Share of lookups that find their expert in memory; `None` where no experts stream.
    pub hit_rate: Option<f64>,
}

/// A run, or what a server did with a model from its load to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, in seconds since 1970.
    pub at_s: u64,
    /// Machine, disk, threads and version.
    pub key: ProfileKey,
    /// What tells models apart (`plan::model_key`).
    pub model: String,
    /// Tokens that were generated.
    pub tokens: u64,
    /// What the profile alone predicts.
    pub predicted: Tiers,
    /// What it came to.
    pub measured: Tiers,
    /// Measured over predicted speed, tiers corrected by this very record: what the model of the pipeline
    /// lacks.
    pub pace: Option<f64>,
    /// Other programs used the processors meanwhile.
    pub disturbed: bool,
}

impl MatmulRate {
    /// The rates of a type of weight among those of one unit; `None` when it was not measured.
    #[must_use]
    pub fn of(rates: &[Self], quant: GgmlType) -> Option<&Self> {
        rates.iter().find(|rate| rate.quant == quant.name())
    }
}

impl Memory {
    /// Seconds of touching `bytes` for the first time, when `before` were touched already.
    #[must_use]
    pub fn touch_s(&self, before: f64, bytes: f64) -> f64 {
        let ready = self.touch_ready_bytes.unwrap_or(0) as f64;
        let slow = bytes.min((before + bytes - ready).max(0.0));
        self.touch_bytes_per_s.map_or(0.0, |rate| slow / rate)
    }
}

impl Storage {
    /// Whether any read was measured.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.reads.iter().any(|read| read.bytes_per_s.is_some())
    }

    /// The fastest measurement of a pattern, over readers, sizes and depths.
    #[must_use]
    pub fn best(&self, pattern: Pattern) -> Option<&ReadRate> {
        let rated = self.reads.iter().filter(|read| read.pattern == pattern && read.bytes_per_s.is_some());
        rated.max_by(|a, b| a.rate().total_cmp(&b.rate()))
    }

    /// Bandwidth of reads of `request_bytes` with `depth` of them at the device, from the two nearest
    /// measurements in each direction (linear in the logarithms of size and depth; never beyond the measured
    /// range). Takes io_uring where it was measured, as the program does. `None` when this pattern was not
    /// measured.
    #[must_use]
    pub fn rate(&self, pattern: Pattern, request_bytes: u64, depth: f64) -> Option<f64> {
        let mut sizes: Vec<u64> = self.measured(pattern).map(|read| read.request_bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let points: Vec<(f64, f64)> = sizes
            .iter()
            .filter_map(|size| Some((*size as f64, self.rate_at_size(pattern, *size, depth)?)))
            .collect();
        interpolate(&points, request_bytes as f64)
    }

    fn rate_at_size(&self, pattern: Pattern, request_bytes: u64, depth: f64) -> Option<f64> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        let of_size = |read: &&ReadRate| read.request_bytes == request_bytes;
        for read in self.measured(pattern).filter(of_size) {
            match points.iter_mut().find(|(depth, _)| *depth == f64::from(read.depth)) {
                Some((_, rate)) if read.reader == PREFERRED_READER => *rate = read.rate(),
                Some(_) => {}
                None => points.push((f64::from(read.depth), read.rate())),
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        interpolate(&points, depth)
    }

    fn measured(&self, pattern: Pattern) -> impl Iterator<Item = &ReadRate> {
        self.reads.iter().filter(move |read| read.pattern == pattern && read.bytes_per_s.is_some())
    }
}

impl ReadRate {
    fn rate(&self) -> f64 {
        self.bytes_per_s.unwrap_or(0.0)
    }
}

/// Linear in `ln x` between the points, which ascend; constant outside. `None` without points.
pub(crate) fn interpolate(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if x <= first.0 {
        return Some(first.1);
    }
    if x >= last.0 {
        return Some(last.1);
    }
    let above = points.iter().position(|point| point.0 >= x)?;
    let (low, high) = (points[above - 1], points[above]);
    let part = (x / low.0).ln() / (high.0 / low.0).ln();
    Some(low.1 + (high.1 - low.1) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: Pattern, request_bytes: u64, depth: u32, bytes_per_s: Option<f64>) -> ReadRate {
        ReadRate { reader: "pread".to_owned(), pattern, request_bytes, depth, bytes_per_s }
    }

    fn storage() -> Storage {
        let random = |size, depth, rate| read(Pattern::Random, size, depth, Some(rate));
        let reads = vec![
            random(1 << 16, 1, 100.0),
            random(1 << 16, 16, 400.0),
            random(1 << 20, 1, 300.0),
            random(1 << 20, 16, 1000.0),
            ReadRate { reader: "uring".to_owned(), ..random(1 << 20, 16, 1200.0) },
            read(Pattern::Random, 1 << 22, 16, None),
        ];
        Storage { reads, ..Storage::default() }
    }

    #[test]
    fn rates_are_interpolated_and_never_extrapolated() {
        let storage = storage();
        let rate = |size, depth| storage.rate(Pattern::Random, size, depth).unwrap();
        assert_eq!(rate(1 << 16, 1.0), 100.0);
        assert!((rate(1 << 16, 4.0) - 250.0).abs() < 1e-9);
        assert_eq!(rate(1 << 20, 16.0), 1200.0);
        assert_eq!(rate(1 << 30, 999.0), 1200.0);
        assert_eq!(rate(4096, 0.1), 100.0);
        assert!((rate(1 << 18, 16.0) - 800.0).abs() < 1e-9);
        assert_eq!(storage.rate(Pattern::Sequential, 1 << 20, 8.0), None);
    }

    #[test]
    fn failed_reads_count_for_nothing() {
        let storage = storage();
        assert_eq!(storage.best(Pattern::Random).unwrap().reader, "uring");
        assert!(storage.best(Pattern::Sequential).is_none());
        let none = Storage { reads: vec![read(Pattern::Random, 1, 1, None)], ..Storage::default() };
        assert!(!none.is_measured());
        assert_eq!(none.rate(Pattern::Random, 1, 1.0), None);
    }

    #[test]
    fn profiles_survive_json() {
        let profile = Profile {
            matmul: vec![MatmulRate {
                quant: "q4_K".to_owned(),
                decode_bytes_per_s: Some(1e10),
                expert_bytes_per_s: None,
                prefill_flops_per_s: Some(2.5e11),
                expert_prefill_flops_per_s: None,
            }],
            storage: Some(storage()),
            ..Profile::default()
        };
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
        assert!(MatmulRate::of(&profile.matmul, GgmlType::Q4_K).is_some());
        assert!(MatmulRate::of(&profile.matmul, GgmlType::Q6_K).is_none());
    }
}
