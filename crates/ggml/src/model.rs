//! Loading a model through llama.cpp, with each weight in the buffer type that the plan chose.
//!
//! A decorated load has two steps, and the types keep them in order: [`Model::load`] lets llama.cpp build the model
//! without reading weights and gives a [`PendingModel`]; [`PendingModel::fill`] has the caller read every resident
//! tensor, and only then is there a [`Model`].

use crate::error::LoadError;
use crate::vocab::Vocab;
use crate::{buffer, buffer_type, device, log, sys};
use std::any::Any;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

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
    /// Weights in our buffers: those whose name matches `streamed` have no memory, all others are resident and wait to
    /// be filled.
    Decorated {
        /// ECMAScript regular expressions (llama.cpp's `tensor_buft_overrides`).
        streamed: Vec<String>,
    },
    /// Only vocabulary and metadata.
    VocabOnly,
    /// Nothing is allocated: contexts of such a model only tell how much memory they would use.
    Measure,
}

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The GGUF, or its first shard.
    pub path: PathBuf,
    /// How.
    pub mode: LoadMode,
    /// Layers for the GPU devices that llama.cpp found, −1 for all. 0 keeps everything on the CPU.
    pub gpu_layers: i32,
}

struct Handle(*mut sys::llama_model);
// SAFETY: a loaded llama_model is immutable; llama.cpp documents sharing one model between contexts and threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by llama_model_load_from_file, freed once; contexts keep the Arc alive.
        unsafe { sys::llama_model_free(self.0) };
    }
}

/// A loaded model. Cheap to clone; freed with the last clone and the last context.
#[derive(Clone)]
pub struct Model(Arc<Handle>);

/// A model whose resident weights still wait for their bytes.
pub struct PendingModel {
    model: Model,
    wanted: Vec<buffer::Wanted>,
}

/// One resident tensor to fill.
#[derive(Clone, Copy)]
pub struct PendingTensor<'a> {
    /// Name in the GGUF. The same name may come twice (tied embeddings).
    pub name: &'a str,
    /// Its memory, `ggml_nbytes` long.
    pub memory: &'a [AtomicU8],
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
            // SAFETY: the model lives until the end of this function, and with it its buffers.
            .map(|wanted| PendingTensor { name: &wanted.name, memory: unsafe { wanted.cells() } })
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

    /// The same; where llama.cpp itself reads the weights, `watch` gets the share that is there, 0 to 1, again and again, and
    /// stops the load by answering false.
    ///
    /// # Errors
    /// [`LoadError::Stopped`] then, otherwise [`LoadError`] with llama.cpp's reason.
    pub fn load_watched(
        options: &LoadOptions,
        watch: &mut dyn FnMut(f32) -> bool,
    ) -> Result<PendingModel, LoadError> {
        crate::system::init();
        let path = CString::new(options.path.as_os_str().as_encoded_bytes())
            .map_err(|_| LoadError::Path(options.path.clone()))?;
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = options.gpu_layers;
        let mut overrides = Overrides::default();
        match &options.mode {
            LoadMode::Plain { repack, mmap } => {
                params.use_extra_bufts = *repack;
                params.load_mode =
                    if *mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_DIRECT_IO };
            }
            LoadMode::VocabOnly => params.vocab_only = true,
            LoadMode::Measure => {
                params.no_alloc = true;
                params.use_extra_bufts = false;
                params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            }
            LoadMode::Decorated { streamed } => {
                device::install()?;
                params.use_extra_bufts = false;
                // With a mapping, llama.cpp offers pointers into it and reads nothing itself.
                params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
                overrides = Overrides::new(streamed, &options.path)?;
                params.tensor_buft_overrides = overrides.entries.as_ptr();
            }
        }
        let mut watching = Watching { watch, stopped: false, panic: None };
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut watching).cast::<c_void>();
        log::clear();
        let _ = buffer::take_wanted();
        // SAFETY: path, overrides and watch live for the call; llama.cpp copies what it keeps, and calls the watch only
        // during the call, on this thread.
        let handle = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        drop(overrides);
        let wanted = buffer::take_wanted();
        let Watching { stopped, panic, .. } = watching;
        if let Some(panic) = panic {
            if !handle.is_null() {
                drop(Handle(handle));
            }
            resume_unwind(panic);
        }
        if handle.is_null() && stopped {
            return Err(LoadError::Stopped);
        }
        if handle.is_null() {
            return Err(LoadError::Refused { path: options.path.clone(), reason: log::take() });
        }
        Ok(PendingModel { model: Self(Arc::new(Handle(handle))), wanted })
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_model {
        self.0.0
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> Vocab {
        Vocab::new(self.clone())
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

    /// Whether a text must first go through an encoder.
    #[must_use]
    pub fn has_encoder(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_has_encoder(self.raw()) }
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
    fn new(streamed: &[String], path: &Path) -> Result<Self, LoadError> {
        let refuse =
            |reason: &str| LoadError::Refused { path: path.to_path_buf(), reason: reason.to_owned() };
        let buft = |kind| buffer_type::handle(kind).ok_or(LoadError::NoCpu);
        let mut patterns = Vec::new();
        let mut entries = Vec::new();
        let mut push = |pattern: &str, kind| -> Result<(), LoadError> {
            let pattern =
                CString::new(pattern).map_err(|_| refuse("a tensor pattern contains a NUL byte"))?;
            entries
                .push(sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft: buft(kind)? });
            patterns.push(pattern);
            Ok(())
        };
        for pattern in streamed {
            push(pattern, buffer_type::Kind::Streamed)?;
        }
        push(".*", buffer_type::Kind::Resident)?;
        entries.push(sys::llama_model_tensor_buft_override {
            pattern: std::ptr::null::<c_char>(),
            buft: std::ptr::null_mut(),
        });
        Ok(Self { entries, _patterns: patterns })
    }
}
