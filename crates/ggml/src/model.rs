//! Loading a model through llama.cpp, with each weight in the buffer type that the plan chose.
//!
//! A decorated load has two steps, and the types keep them in order: [`Model::load`] lets llama.cpp build the
//! model without reading weights and gives a [`PendingModel`]; [`PendingModel::fill`] has the caller read
//! every resident tensor, and only then is there a [`Model`].

use crate::buffer::resident::Interposed;
use crate::buffer::{BufferTypes, TensorMemory, Wanted, WeightMemory};
use crate::device::Device;
use crate::error::LoadError;
use crate::{log, sys};
use std::any::Any;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How the weights get into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadMode {
    /// llama.cpp alone, reading into its own memory (with its repacked kernel layouts when `repack`).
    Plain {
        /// Let llama.cpp repack weights for its CPU kernels.
        repack: bool,
        /// Map the file instead of reading it: the pages belong to the page cache.
        mmap: bool,
    },
    /// Weights in our buffers: each where the first placement that matches its name says, all others resident
    /// on the CPU, to be filled.
    Decorated {
        /// Where weights go.
        placements: Vec<Placement>,
    },
    /// Only vocabulary and metadata.
    VocabOnly,
    /// Nothing is allocated: contexts of such a model only tell how much memory they would use.
    Measure {
        /// Where weights would go; none: where llama.cpp puts them.
        placements: Vec<Placement>,
    },
}

/// Where the weights of some names go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// An ECMAScript regular expression (llama.cpp's `tensor_buft_overrides`), searched for in names of the
    /// GGUF.
    pub pattern: String,
    /// The kind of memory.
    pub memory: WeightMemory,
    /// Whose kernels compute with them.
    pub device: Device,
}

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The GGUF, or its first shard.
    pub path: PathBuf,
    /// How.
    pub mode: LoadMode,
    /// Devices that layers may be on, besides the CPU. None is none, whatever llama.cpp would find.
    pub devices: Vec<Device>,
    /// Layers for these devices, the last ones first and the output layer before them; −1 for all.
    pub gpu_layers: i32,
    /// How many of them each of several devices gets, in their order; empty: in proportion to their free
    /// memory.
    pub split: Vec<u32>,
    /// Of a [`LoadMode::Plain`] or [`LoadMode::Measure`] load: weights whose names these patterns match stay
    /// in memory of the CPU, whatever device their layer is on.
    pub on_cpu: Vec<String>,
}

impl LoadOptions {
    /// Everything on the CPU.
    #[must_use]
    pub fn on_cpu(path: PathBuf, mode: LoadMode) -> Self {
        Self { path, mode, devices: Vec::new(), gpu_layers: 0, split: Vec::new(), on_cpu: Vec::new() }
    }

    /// Whether the model's contexts are made with decorated devices.
    fn has_contexts_of_ours(&self) -> bool {
        !matches!(self.mode, LoadMode::Plain { .. } | LoadMode::VocabOnly)
    }

    /// The split as llama.cpp wants it: one number for each device that there may be.
    fn tensor_split(&self) -> Vec<f32> {
        if self.split.is_empty() {
            return Vec::new();
        }
        // SAFETY: takes nothing.
        let most = unsafe { sys::llama_max_devices() };
        let shares = self.split.iter().map(|layers| *layers as f32);
        shares.chain(std::iter::repeat(0.0)).take(most).collect()
    }

    /// The devices as llama.cpp wants them: ours where weights go to memory of ours, ended by a null.
    fn device_list(&self) -> Vec<sys::ggml_backend_dev_t> {
        let decorated = self.has_contexts_of_ours();
        let handle = |device: &Device| if decorated { device.handle() } else { device.inner() };
        self.devices.iter().map(handle).chain([std::ptr::null_mut()]).collect()
    }
}

/// Owns llama.cpp's model.
struct Handle {
    raw: *mut sys::llama_model,
    /// Freed after the model, whose buffers are of these types.
    types: BufferTypes,
    decorated: bool,
    /// What belongs to the model and was made since.
    attached: OnceLock<Arc<dyn Any + Send + Sync>>,
}
// SAFETY: nothing writes to a llama_model once it is loaded, but for adapters, which this crate has none of:
// contexts hold it as `const llama_model &`, and every function that is called on it here takes a `const
// llama_model *`.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by llama_model_load_from_file, freed once; contexts keep the Arc alive.
        unsafe { sys::llama_model_free(self.raw) };
    }
}

/// A loaded model. Cheap to clone; freed with the last clone and the last context.
#[derive(Clone)]
pub struct Model(Arc<Handle>);

/// A model whose resident weights still wait for their bytes.
pub struct PendingModel {
    model: Model,
    wanted: Vec<Wanted>,
}

/// One resident tensor to fill.
#[derive(Clone, Copy)]
pub struct PendingTensor<'a> {
    /// Name in the GGUF. The same name may come twice (tied embeddings).
    pub name: &'a str,
    /// `ggml_nbytes` of it.
    pub bytes: usize,
    /// Its memory, as long.
    pub memory: TensorMemory<'a>,
}

impl PendingModel {
    /// Has `read` fill every resident tensor.
    ///
    /// # Errors
    /// Whatever `read` returns; the model is dropped then.
    pub fn fill<E>(self, read: impl FnOnce(&[PendingTensor<'_>]) -> Result<(), E>) -> Result<Model, E> {
        let tensors: Vec<PendingTensor<'_>> = self
            .wanted
            .iter()
            .map(|wanted| {
                // SAFETY: the model lives until the end of this function, and with it its buffers.
                let memory = unsafe { wanted.memory() };
                PendingTensor { name: &wanted.name, bytes: wanted.bytes, memory }
            })
            .collect();
        read(&tensors)?;
        Ok(self.model)
    }

    /// Bytes that wait to be read.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.wanted.iter().map(|wanted| wanted.bytes as u64).sum()
    }
}

impl Model {
    /// Lets llama.cpp build the model.
    ///
    /// # Errors
    /// [`LoadError`] with llama.cpp's reason.
    pub fn load(options: &LoadOptions) -> Result<PendingModel, LoadError> {
        Self::load_watched(options, &mut |_| true)
    }

    /// The same; where llama.cpp itself reads the weights, `watch` gets the share that is there, 0 to 1,
    /// again and again, and stops the load by answering false.
    ///
    /// # Errors
    /// [`LoadError::Stopped`] then, otherwise [`LoadError`] with llama.cpp's reason.
    pub fn load_watched(
        options: &LoadOptions,
        watch: &mut dyn FnMut(f32) -> bool,
    ) -> Result<PendingModel, LoadError> {
        crate::system::init();
        if options.has_contexts_of_ours() {
            // One CPU device for the model and all its contexts: a context whose CPU is another device than
            // its model's takes several times the compute memory.
            Device::cpu()?;
        }
        let path = CString::new(options.path.as_os_str().as_encoded_bytes())
            .map_err(|_| LoadError::Path(options.path.clone()))?;
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = options.gpu_layers;
        let mut devices = options.device_list();
        params.devices = devices.as_mut_ptr();
        let split = options.tensor_split();
        params.tensor_split = if split.is_empty() { std::ptr::null() } else { split.as_ptr() };
        let mut types = BufferTypes::default();
        let overrides = options.choose_memory(&mut params, &mut types)?;
        let mut watching = Watching { watch, stopped: false, panic: None };
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut watching).cast::<c_void>();
        log::clear();
        // SAFETY: path, devices, split, overrides and watch live for the call; llama.cpp copies what it
        // keeps, and calls the watch only during the call, on this thread. The buffer types live as long as
        // the model (`Handle`).
        let raw = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        drop(overrides);
        Interposed::of(types.notes()).end(!raw.is_null());
        let decorated = matches!(options.mode, LoadMode::Decorated { .. });
        let handle = (!raw.is_null()).then(|| Handle { raw, types, decorated, attached: OnceLock::new() });
        let Watching { stopped, panic, .. } = watching;
        if let Some(panic) = panic {
            drop(handle);
            resume_unwind(panic);
        }
        let Some(handle) = handle else {
            return Err(if stopped {
                LoadError::Stopped
            } else {
                LoadError::Refused { path: options.path.clone(), reason: log::take() }
            });
        };
        let wanted = handle.types.notes().take_wanted();
        match handle.types.notes().take_failure() {
            Some(panic) => Err(LoadError::Callback(panic)),
            None => Ok(PendingModel { model: Self(Arc::new(handle)), wanted }),
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_model {
        self.0.raw
    }

    /// What belongs to the model, of one type, made by `make` at first use.
    pub(crate) fn attached<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        Arc::clone(self.0.attached.get_or_init(|| Arc::new(make()))).downcast().ok()
    }

    /// Whether its weights are in memory of ours.
    pub(crate) fn is_decorated(&self) -> bool {
        self.0.decorated
    }

    /// Takes the name of a streamed weight that was read as if it were in memory.
    pub(crate) fn take_misread(&self) -> Option<String> {
        self.0.types.notes().take_misread()
    }

    /// Context length the model was trained for.
    #[must_use]
    pub fn context_train(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.raw()) }).unwrap_or(0)
    }

    /// Length of an output embedding.
    #[must_use]
    pub fn embedding(&self) -> usize {
        // SAFETY: the model is alive.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.raw()) }).unwrap_or(0)
    }

    /// Numbers in a row of embeddings that the model takes in place of a token.
    #[must_use]
    pub fn input_width(&self) -> usize {
        // SAFETY: the model is alive.
        usize::try_from(unsafe { sys::llama_model_n_embd_inp(self.raw()) }).unwrap_or(0)
    }

    /// Whether rows of embeddings have four positions each (M-RoPE).
    #[must_use]
    pub fn has_mrope(&self) -> bool {
        // SAFETY: the model is alive.
        let rope = unsafe { sys::llama_model_rope_type(self.raw()) };
        rope == sys::LLAMA_ROPE_TYPE_MROPE || rope == sys::LLAMA_ROPE_TYPE_IMROPE
    }

    /// Whether the model has recurrent layers, whose state cannot be rewound token by token.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_is_recurrent(self.raw()) || sys::llama_model_is_hybrid(self.raw()) }
    }
}

/// What [`on_progress`] calls, and how that ended.
struct Watching<'a> {
    watch: &'a mut dyn FnMut(f32) -> bool,
    stopped: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// llama.cpp's `llama_progress_callback`: false stops the load. A panic waits until llama.cpp has returned.
unsafe extern "C" fn on_progress(progress: f32, data: *mut c_void) -> bool {
    // SAFETY: the pointer is the `Watching` of the call in progress, which nobody else uses meanwhile.
    let watching = unsafe { &mut *data.cast::<Watching<'_>>() };
    if watching.panic.is_some() {
        return false;
    }
    match catch_unwind(AssertUnwindSafe(|| (watching.watch)(progress))) {
        Ok(goes_on) => {
            watching.stopped |= !goes_on;
            goes_on
        }
        Err(panic) => {
            watching.panic = Some(panic);
            false
        }
    }
}

/// `tensor_buft_overrides` and what it points at.
#[derive(Default)]
struct Overrides {
    entries: Vec<sys::llama_model_tensor_buft_override>,
    _patterns: Vec<CString>,
}

impl Overrides {
    fn new(
        on_cpu: &[String],
        placements: impl Iterator<Item = Placement>,
        types: &mut BufferTypes,
        path: &Path,
    ) -> Result<Self, LoadError> {
        let nul = |_| LoadError::Refused {
            path: path.to_path_buf(),
            reason: "a tensor pattern contains a NUL byte".to_owned(),
        };
        let (mut patterns, mut entries) = (Vec::new(), Vec::new());
        // SAFETY: takes nothing, and answers a buffer type that lives for the whole process.
        let cpu = unsafe { sys::ggml_backend_cpu_buffer_type() };
        let left = on_cpu.iter().map(|pattern| (pattern.clone(), cpu));
        let placed =
            placements.map(|placement| (placement.pattern, types.handle(placement.memory, placement.device)));
        for (pattern, buft) in left.chain(placed) {
            let pattern = CString::new(pattern).map_err(nul)?;
            entries.push(sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft });
            patterns.push(pattern);
        }
        entries.push(sys::llama_model_tensor_buft_override {
            pattern: std::ptr::null::<c_char>(),
            buft: std::ptr::null_mut(),
        });
        Ok(Self { entries, _patterns: patterns })
    }
}

impl LoadOptions {
    /// Tells llama.cpp where weights go, and how it gets at them. What comes back must live as long as the
    /// load.
    fn choose_memory(
        &self,
        params: &mut sys::llama_model_params,
        types: &mut BufferTypes,
    ) -> Result<Overrides, LoadError> {
        let mut place = |placements: &[Placement], rest: Option<Placement>| {
            Overrides::new(&self.on_cpu, placements.iter().cloned().chain(rest), types, &self.path)
        };
        let overrides = match &self.mode {
            LoadMode::Plain { repack, mmap } => {
                if !*mmap {
                    // Into memory, as planned, whatever llama.cpp thinks of large tables.
                    params.lazy_mode = sys::LLAMA_LAZY_MODE_OFF;
                }
                params.use_extra_bufts = *repack;
                params.load_mode =
                    if *mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_DIRECT_IO };
                place(&[], None)?
            }
            LoadMode::VocabOnly => {
                params.vocab_only = true;
                return Ok(Overrides::default());
            }
            LoadMode::Measure { placements } => {
                params.no_alloc = true;
                params.use_extra_bufts = false;
                params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
                place(placements, None)?
            }
            LoadMode::Decorated { placements } => {
                // What is read when it is needed is the executor's business: llama.cpp would put large tables
                // into its own mapping, whatever the placements say.
                params.lazy_mode = sys::LLAMA_LAZY_MODE_OFF;
                params.use_extra_bufts = false;
                // With a mapping, llama.cpp offers pointers into it and reads nothing itself.
                params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
                let pattern = ".*".to_owned();
                let rest = Placement { pattern, memory: WeightMemory::Resident, device: Device::cpu()? };
                place(placements, Some(rest))?
            }
        };
        params.tensor_buft_overrides = overrides.entries.as_ptr();
        Ok(overrides)
    }
}
