//! Times small graphs on the CPU backend or a GPU's: how fast weights of a type are multiplied, and what a
//! node and a call cost.
//!
//! A measurement is many short samples. Beside other programs most of them wait for a core at some point;
//! those that did not are as good as on a quiet machine, and only they count ([`Interference`]).
//!
//! The graphs are those that decoding is made of (`MUL_MAT`, `MUL_MAT_ID`), over weights that the caller
//! wants large enough not to fit the caches. The content of the weights does not matter to the speed of the
//! kernels; it is zero, so that nothing becomes infinite.

mod samples;

use crate::buffer::resident::ask_for_huge_pages;
use crate::device::Device;
use crate::error::LoadError;
use crate::exec::STATUS_OK;
use crate::threads::ThreadPool;
use crate::{sys, system};
use samples::{ENOUGH_CLEAN, Samples, Sampling};
use std::time::{Duration, Instant};

/// A type of weight by ggml's id, as a GGUF stores it.
pub type TypeId = u32;

/// Which graph to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// One matrix after another with this many tokens.
    MulMat {
        /// Columns of the input.
        tokens: u32,
    },
    /// Experts out of stacks.
    MulMatId {
        /// Experts in a stack.
        experts: u32,
        /// Experts of a token.
        used: u32,
        /// Tokens.
        tokens: u32,
    },
    /// What lies between matrices: norms, products and sums of one token's hidden state, of `columns`
    /// numbers.
    Between,
    /// Tokens that look at others before them, layer after layer (`FLASH_ATTN_EXT`): a head has `columns`
    /// numbers, and `rows` tokens are looked at.
    Attention {
        /// Heads of queries.
        heads: u32,
        /// Heads of keys and values.
        kv_heads: u32,
        /// Tokens that look.
        tokens: u32,
    },
}

/// What to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureOptions {
    /// Type of the weights.
    pub ty: TypeId,
    /// The graph.
    pub kernel: Kernel,
    /// Columns of a matrix, a multiple of the type's block.
    pub columns: u32,
    /// Rows of a matrix (of one expert).
    pub rows: u32,
    /// Matrices, or stacks of experts.
    pub matrices: u32,
    /// Who computes; `None`: the CPU.
    pub device: Option<Device>,
    /// Threads that compute, on the CPU.
    pub threads: u32,
    /// Repeats until this time is over, at least once after one warm-up.
    pub duration: Duration,
}

/// What was timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Weights that one run multiplies, in bytes.
    pub bytes: u64,
    /// Operations of one run: a multiplication and an addition are two.
    pub flops: u64,
    /// Seconds of a run: the median sample of those that nobody disturbed, where there are some, and the
    /// quickest one otherwise.
    pub usual_s: f64,
    /// Samples.
    pub runs: u32,
    /// Of those, the ones that nobody disturbed.
    pub clean: u32,
}

impl Measured {
    /// Whether so few samples were undisturbed that the time is an upper bound, no more.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.clean < ENOUGH_CLEAN.min(self.runs)
    }
}

/// How long the threads that compute have waited for a core so far, added up. Asked only while they exist.
pub type Interference<'a> = &'a mut dyn FnMut() -> Duration;

/// Matrices of a sample, which then takes a millisecond or less: shorter than the time slices of others.
const SAMPLE_MATRICES: u32 = 4;

/// Owns the ggml objects of one measurement, and frees them in order.
struct Bench {
    context: *mut sys::ggml_context,
    buffer: *mut sys::ggml_backend_buffer,
    backend: sys::ggml_backend_t,
    /// One for each sample of the round, all of the same work.
    graphs: Vec<*mut sys::ggml_cgraph>,
    threads: ThreadPool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: each object was made by `Bench::new` (or is null) and is freed once; the pool is freed
        // after the backend that uses it (field order).
        unsafe {
            if !self.backend.is_null() {
                sys::ggml_backend_free(self.backend);
            }
            if !self.buffer.is_null() {
                sys::ggml_backend_buffer_free(self.buffer);
            }
            if !self.context.is_null() {
                sys::ggml_free(self.context);
            }
        }
    }
}

/// Times one kernel.
///
/// # Errors
/// [`LoadError::Measure`] when sizes cannot be, memory is refused, or the backend fails;
/// [`LoadError::Threads`].
pub fn measure(options: &MeasureOptions) -> Result<Measured, LoadError> {
    measure_beside(options, &mut || Duration::ZERO)
}

/// The same on a machine that may be busy: samples in which `interference` grew do not count.
///
/// # Errors
/// As [`measure`].
pub fn measure_beside(
    options: &MeasureOptions,
    interference: Interference<'_>,
) -> Result<Measured, LoadError> {
    system::init();
    let options = &in_whole_samples(options);
    check(options)?;
    let mut bench = Bench::new(options)?;
    // SAFETY: `Bench::new` sized the context for these options, which were checked.
    unsafe { bench.build(options) }?;
    let (bytes, flops) = work(options);
    let samples = bench.graphs.len() as f64;
    let Samples { usual_s, runs, clean } = bench.time(options.duration, interference)?;
    Ok(Measured { bytes, flops, usual_s: usual_s * samples, runs, clean })
}

/// The CPU's matrices in samples of equal numbers; a device is not shared in time slices.
fn in_whole_samples(options: &MeasureOptions) -> MeasureOptions {
    MeasureOptions { matrices: options.matrices.next_multiple_of(matrices_per_sample(options)), ..*options }
}

fn matrices_per_sample(options: &MeasureOptions) -> u32 {
    match options.kernel {
        Kernel::Between => options.matrices.max(1),
        _ if options.device.is_some() => options.matrices.max(1),
        Kernel::Attention { .. } => 1,
        Kernel::MulMat { tokens } | Kernel::MulMatId { tokens, .. } if tokens > 1 => 1,
        Kernel::MulMat { .. } | Kernel::MulMatId { .. } => SAMPLE_MATRICES,
    }
}

/// Seconds that a small node adds to a graph, and seconds of a call that computes one such node and is waited
/// for.
///
/// # Errors
/// As [`measure`].
pub fn overhead(
    device: Option<Device>,
    threads: u32,
    duration: Duration,
    interference: Interference<'_>,
) -> Result<(f64, f64), LoadError> {
    const NODES: u32 = 64;
    let mut of = |matrices| {
        let options = MeasureOptions { device, ..small(matrices, threads, duration / 2) };
        measure_beside(&options, &mut *interference)
    };
    let (one, many) = (of(1)?, of(NODES)?);
    let node_s = ((many.usual_s - one.usual_s) / f64::from(NODES - 1)).max(0.0);
    Ok((node_s, one.usual_s))
}

/// Seconds that a small call takes longer when the threads slept before it: the median of several.
///
/// # Errors
/// As [`measure`].
pub fn wake(threads: u32) -> Result<f64, LoadError> {
    /// Longer than workers poll before they sleep.
    const IDLE: Duration = Duration::from_millis(15);
    const REPEATS: usize = 9;
    system::init();
    let options = small(1, threads, Duration::ZERO);
    check(&options)?;
    let mut bench = Bench::new(&options)?;
    // SAFETY: `Bench::new` sized the context for these options, which were checked.
    unsafe { bench.build(&options) }?;
    let awake_s = bench.time(Duration::from_millis(5), &mut || Duration::ZERO)?.usual_s;
    let mut asleep_s = Vec::with_capacity(REPEATS);
    let Some(graph) = bench.graphs.first().copied() else { return Err(refuse("no graph")) };
    for _ in 0..REPEATS {
        std::thread::sleep(IDLE);
        let start = Instant::now();
        bench.run(graph)?;
        asleep_s.push(start.elapsed().as_secs_f64());
    }
    asleep_s.sort_by(f64::total_cmp);
    Ok((asleep_s[REPEATS / 2] - awake_s).max(0.0))
}

/// A graph of the small nodes that a model has between its matrices.
fn small(matrices: u32, threads: u32, duration: Duration) -> MeasureOptions {
    let kernel = Kernel::Between;
    MeasureOptions { ty: 0, kernel, columns: 2048, rows: 1, matrices, device: None, threads, duration }
}

fn refuse(reason: &str) -> LoadError {
    LoadError::Measure(reason.to_owned())
}

fn check(options: &MeasureOptions) -> Result<(), LoadError> {
    let known = options.ty < sys::GGML_TYPE_COUNT;
    // SAFETY: the id was checked to be below the number of types; retired ids have a block size of 0.
    let block = if known { unsafe { sys::ggml_blck_size(options.ty) } } else { 0 };
    if block <= 0 || i64::from(options.columns) % block != 0 {
        return Err(refuse("no such type, or no whole blocks in a row"));
    }
    // SAFETY: as above; the table of CPU kernels covers all types.
    let has_kernel = unsafe { !sys::ggml_get_type_traits_cpu(options.ty).is_null() };
    let experts_fit = match options.kernel {
        Kernel::MulMat { tokens } => tokens > 0,
        Kernel::MulMatId { experts, used, tokens } => (1..=experts).contains(&used) && tokens > 0,
        Kernel::Attention { heads, kv_heads, tokens } => {
            tokens > 0 && kv_heads > 0 && heads > 0 && heads % kv_heads == 0
        }
        Kernel::Between => true,
    };
    let sized = options.columns > 0 && options.rows > 0 && (1..=4096).contains(&options.matrices);
    if has_kernel && experts_fit && sized { Ok(()) } else { Err(refuse("sizes out of range")) }
}

/// Bytes and operations of one run.
fn work(options: &MeasureOptions) -> (u64, u64) {
    // SAFETY: the type was checked by `check`.
    let row = unsafe { sys::ggml_row_size(options.ty, i64::from(options.columns)) } as u64;
    // Rows that are read for each row of a matrix, and how often each is multiplied.
    let (copies, times) = match options.kernel {
        Kernel::MulMat { tokens } => (1, u64::from(tokens)),
        Kernel::MulMatId { used, tokens, .. } => (u64::from(used), u64::from(tokens)),
        Kernel::Attention { heads, kv_heads, tokens } => {
            (2 * u64::from(kv_heads), u64::from(heads / kv_heads.max(1)) * u64::from(tokens))
        }
        Kernel::Between => (0, 0),
    };
    let rows = u64::from(options.rows) * u64::from(options.matrices) * copies;
    (rows * row, 2 * rows * u64::from(options.columns) * times)
}

impl Bench {
    fn new(options: &MeasureOptions) -> Result<Self, LoadError> {
        let MeasureOptions { matrices, device, .. } = *options;
        let threads = ThreadPool::new(if device.is_some() { 1 } else { options.threads }, false)?;
        // Weight, input, ids and result of each matrix; or keys, values, queries, mask and result. A graph
        // has room for as many leafs as nodes.
        let tensors = 5 * matrices as usize + 8;
        let nodes = 5 * matrices_per_sample(options) as usize + 8;
        let graphs = matrices.div_ceil(matrices_per_sample(options)).max(1) as usize;
        // SAFETY: plain sizes; with `no_alloc` the context holds descriptions only. Null results are checked
        // below.
        unsafe {
            let mem_size = tensors * sys::ggml_tensor_overhead()
                + graphs * sys::ggml_graph_overhead_custom(nodes, false);
            let params = sys::ggml_init_params { mem_size, mem_buffer: std::ptr::null_mut(), no_alloc: true };
            let context = sys::ggml_init(params);
            let mut bench = Self {
                context,
                buffer: std::ptr::null_mut(),
                backend: std::ptr::null_mut(),
                graphs: Vec::with_capacity(graphs),
                threads,
            };
            if context.is_null() {
                return Err(refuse("no memory"));
            }
            let cpu = || sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let unit = device.map_or_else(cpu, Device::inner);
            if unit.is_null() {
                return Err(LoadError::NoCpu);
            }
            bench.backend = sys::ggml_backend_dev_init(unit, std::ptr::null());
            if bench.backend.is_null() {
                return Err(device.map_or(LoadError::NoCpu, |device| LoadError::Device(device.name())));
            }
            if device.is_none() {
                bench.threads.attach(bench.backend);
            }
            for _ in 0..graphs {
                bench.graphs.push(sys::ggml_new_graph_custom(context, nodes, false));
            }
            Ok(bench)
        }
    }

    /// Builds the graph and gives its tensors memory.
    ///
    /// # Safety
    /// The context has room for five tensors for each matrix, and `options` passed [`check`].
    unsafe fn build(&mut self, options: &MeasureOptions) -> Result<(), LoadError> {
        let (columns, rows) = (i64::from(options.columns), i64::from(options.rows));
        let ty: sys::ggml_type = options.ty;
        let mut all_ids = Vec::new();
        // SAFETY: the context is alive and has room (caller); shapes fit each other by construction. Cleared
        // memory is a valid tensor of every type, and touching it here keeps page faults out of the
        // measurement.
        unsafe {
            let f32_of =
                |tokens| sys::ggml_new_tensor_3d(self.context, sys::GGML_TYPE_F32, columns, tokens, 1);
            for index in 0..options.matrices {
                let node = match options.kernel {
                    Kernel::Between => match index % 3 {
                        0 => sys::ggml_rms_norm(self.context, f32_of(1), 1e-6),
                        1 => sys::ggml_mul(self.context, f32_of(1), f32_of(1)),
                        _ => sys::ggml_add(self.context, f32_of(1), f32_of(1)),
                    },
                    Kernel::MulMat { tokens } => {
                        let weight = sys::ggml_new_tensor_2d(self.context, ty, columns, rows);
                        sys::ggml_mul_mat(self.context, weight, f32_of(i64::from(tokens)))
                    }
                    Kernel::MulMatId { experts, used, tokens } => {
                        let (used, tokens) = (i64::from(used), i64::from(tokens));
                        let stack =
                            sys::ggml_new_tensor_3d(self.context, ty, columns, rows, i64::from(experts));
                        let ids = sys::ggml_new_tensor_2d(self.context, sys::GGML_TYPE_I32, used, tokens);
                        let input =
                            sys::ggml_new_tensor_3d(self.context, sys::GGML_TYPE_F32, columns, 1, tokens);
                        all_ids.push(ids);
                        sys::ggml_mul_mat_id(self.context, stack, input, ids)
                    }
                    Kernel::Attention { heads, kv_heads, tokens } => {
                        let (heads, kv_heads) = (i64::from(heads), i64::from(kv_heads));
                        let of = |ty, tokens, heads| {
                            sys::ggml_new_tensor_3d(self.context, ty, columns, tokens, heads)
                        };
                        let queries = of(sys::GGML_TYPE_F32, i64::from(tokens), heads);
                        let (keys, values) = (of(ty, rows, kv_heads), of(ty, rows, kv_heads));
                        let mask = sys::ggml_new_tensor_2d(
                            self.context,
                            sys::GGML_TYPE_F16,
                            rows,
                            i64::from(tokens),
                        );
                        sys::ggml_flash_attn_ext(self.context, queries, keys, values, mask, 1.0, 0.0, 0.0)
                    }
                };
                if options
                    .device
                    .is_some_and(|device| !sys::ggml_backend_dev_supports_op(device.inner(), node))
                {
                    return Err(refuse("the device has no such kernel"));
                }
                sys::ggml_build_forward_expand(self.graph_of(index, options)?, node);
            }
            self.buffer = sys::ggml_backend_alloc_ctx_tensors(self.context, self.backend);
            if self.buffer.is_null() {
                return Err(refuse("no memory for the weights"));
            }
            if options.device.is_none() {
                let base = sys::ggml_backend_buffer_get_base(self.buffer);
                ask_for_huge_pages(base, sys::ggml_backend_buffer_get_size(self.buffer));
            }
            sys::ggml_backend_buffer_clear(self.buffer, 0);
        }
        if let Kernel::MulMatId { experts, used, tokens } = options.kernel {
            self.choose(&all_ids, experts, used, tokens);
        }
        Ok(())
    }

    /// The graph of the sample that a matrix is in.
    fn graph_of(&self, matrix: u32, options: &MeasureOptions) -> Result<*mut sys::ggml_cgraph, LoadError> {
        let sample = matrix / matrices_per_sample(options);
        self.graphs.get(sample as usize).copied().ok_or_else(|| refuse("no graph"))
    }

    /// Sets the ids of each stack: experts spread over it, other ones in each and for each token.
    fn choose(&self, all_ids: &[*mut sys::ggml_tensor], experts: u32, used: u32, tokens: u32) {
        for (stack, tensor) in (0u32..).zip(all_ids) {
            let expert =
                |token: u32, index: u32| ((index * (experts / used) + stack + token) % experts) as i32;
            let of_token = |token| (0..used).map(move |index| expert(token, index));
            let ids: Vec<i32> = (0..tokens).flat_map(of_token).collect();
            // SAFETY: the tensor is alive, has memory, and holds `used` numbers of four bytes for each token.
            unsafe { sys::ggml_backend_tensor_set(*tensor, ids.as_ptr().cast(), 0, ids.len() * 4) };
        }
    }

    /// Takes samples until `duration` is over, each graph in turn, after one warm-up of all.
    fn time(&self, duration: Duration, interference: Interference<'_>) -> Result<Samples, LoadError> {
        for graph in &self.graphs {
            self.run(*graph)?;
        }
        let mut samples = Sampling::begin(duration, interference());
        for graph in self.graphs.iter().cycle() {
            let begun = Instant::now();
            self.run(*graph)?;
            if samples.add(begun.elapsed(), interference()) {
                break;
            }
        }
        Ok(samples.end())
    }

    /// Computes a graph once.
    fn run(&self, graph: *mut sys::ggml_cgraph) -> Result<(), LoadError> {
        // SAFETY: backend and graph are alive, and all tensors of the graph have memory.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, graph) };
        if status == STATUS_OK { Ok(()) } else { Err(refuse("the compute backend failed")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(ty: TypeId, kernel: Kernel) -> MeasureOptions {
        let (columns, rows, matrices) = (512, 64, 40);
        let duration = Duration::ZERO;
        MeasureOptions { ty, kernel, columns, rows, matrices, device: None, threads: 2, duration }
    }

    #[test]
    fn kernels_of_usual_types_run_and_count_their_work() {
        // f32, q4_0, q8_0, q4_K, q6_K, mxfp4.
        for ty in [0, 2, 8, 12, 14, 39] {
            let one = measure(&options(ty, Kernel::MulMat { tokens: 1 })).unwrap();
            let many = measure(&options(ty, Kernel::MulMat { tokens: 16 })).unwrap();
            let experts = measure(&options(ty, Kernel::MulMatId { experts: 8, used: 2, tokens: 1 })).unwrap();
            assert_eq!((many.bytes, many.flops), (one.bytes, 16 * one.flops));
            assert_eq!((experts.bytes, experts.flops), (2 * one.bytes, 2 * one.flops));
            assert_eq!(one.flops, 2 * 512 * 64 * 40);
            assert!(one.usual_s > 0.0 && one.runs >= 1);
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let kernel = Kernel::MulMat { tokens: 1 };
        for ty in [4, 31, 36, 44, 1000, u32::MAX] {
            assert!(measure(&options(ty, kernel)).is_err(), "type {ty}");
        }
        assert!(measure(&MeasureOptions { columns: 100, ..options(12, kernel) }).is_err());
        assert!(measure(&MeasureOptions { matrices: 0, ..options(12, kernel) }).is_err());
        assert!(measure(&options(12, Kernel::MulMatId { experts: 2, used: 3, tokens: 1 })).is_err());
        assert!(measure(&options(12, Kernel::MulMat { tokens: 0 })).is_err());
    }

    #[test]
    fn attention_counts_scores_and_values() {
        let kernel = Kernel::Attention { heads: 8, kv_heads: 2, tokens: 3 };
        let options = MeasureOptions { columns: 64, rows: 256, matrices: 2, ..options(1, kernel) };
        let measured = measure(&options).unwrap();
        assert_eq!(measured.bytes, 2 * 2 * (256 * 64 * 2 * 2));
        assert_eq!(measured.flops, 2 * 3 * 256 * (2 * 8 * (64 + 64)));
        let uneven = Kernel::Attention { heads: 8, kv_heads: 3, tokens: 1 };
        assert!(measure(&MeasureOptions { kernel: uneven, ..options }).is_err());
    }

    #[test]
    fn overhead_is_a_time() {
        let (node_s, call_s) = overhead(None, 2, Duration::from_millis(2), &mut || Duration::ZERO).unwrap();
        assert!(node_s >= 0.0 && call_s > 0.0);
        assert!(wake(2).unwrap() >= 0.0);
    }

    #[test]
    fn samples_that_others_disturbed_do_not_count() {
        let kernel = Kernel::MulMat { tokens: 1 };
        let options = MeasureOptions { duration: Duration::from_millis(1), ..options(12, kernel) };
        let mut waits = 0;
        let always = &mut || {
            Duration::from_nanos({
                waits += 1;
                waits
            })
        };
        assert!(measure_beside(&options, always).unwrap().is_doubtful());
        let quiet = measure(&options).unwrap();
        assert!(!quiet.is_doubtful() && quiet.clean == quiet.runs);
    }
}
