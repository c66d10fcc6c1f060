//! llama.cpp alone, as its own programs use it: its CPU device, its loader, its pool of threads, and a bare
//! loop of decode calls. What benchmarks hold Hypura against.
//!
//! Nothing of ours is between: no decorated device, no buffers, no executor, no session, nobody who could
//! stop it. A process that has decorated the device refuses, because everything in it would then go through
//! ours.

use hypura_ggml::{
    Batch, Context, ContextOptions, Device, LoadError as GgmlError, LoadMode, LoadOptions, Model, Pooling,
    Token,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::device;
use crate::error::{GenerateError, LoadError};
use crate::load::{LoadSettings, kv_type};

/// Where the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// In the page cache: llama.cpp maps the file and never repacks, because copies would not fit where this
    /// is of interest.
    Mapped,
    /// In memory, read by llama.cpp and repacked for its kernels.
    Read,
}

/// Where routed experts are beside a GPU that has all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experts {
    /// In its memory.
    OnGpu,
    /// In the host's, and computed by the CPU: llama.cpp's `--cpu-moe`.
    OnCpu,
    /// The same, with llama.cpp's own cache of so many bytes in the GPU's memory: `--moe-cache-mib`.
    Cached(u64),
}

/// llama.cpp's own pattern for `--cpu-moe`.
const EXPERTS: &str = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps";

/// A model that llama.cpp runs by itself.
pub struct Baseline {
    context: Context,
    model: Model,
    ubatch: usize,
}

impl Baseline {
    /// Loads; where the settings choose a GPU, all layers go there, and `experts` says where theirs go.
    /// Beside that only context, ubatch, threads and the type of the KV cache matter.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(
        path: &Path,
        settings: &LoadSettings,
        weights: Weights,
        experts: Experts,
    ) -> Result<Self, LoadError> {
        if Device::is_cpu_decorated() {
            return Err(GgmlError::Decorated.into());
        }
        let mode = match weights {
            Weights::Mapped => LoadMode::Plain { repack: false, mmap: true },
            Weights::Read => LoadMode::Plain { repack: true, mmap: false },
        };
        let gpu = device::choose(&settings.model.device)?;
        let mut options = LoadOptions::on_cpu(path.to_owned(), mode);
        if let Some(gpu) = &gpu {
            (options.devices, options.gpu_layers) = (vec![gpu.device], -1);
            if experts != Experts::OnGpu {
                options.on_cpu = vec![EXPERTS.to_owned()];
            }
        }
        let model = Model::load(&options)?.fill(|_| Ok::<(), LoadError>(()))?;
        let trained = if model.context_train() == 0 { u32::MAX } else { model.context_train() };
        let tokens = settings.model.context.min(trained);
        let ubatch = settings.model.ubatch.clamp(1, tokens.max(1));
        let options = ContextOptions {
            context: tokens,
            batch: ubatch,
            ubatch,
            outputs: 0,
            sequences: 1,
            threads: settings.tuning.threads,
            kv: kv_type(settings.model.kv),
            pooling: Some(Pooling::default()),
            flash_attention: gpu.is_none_or(|gpu| gpu.flash_attention),
            alone: true,
            reference_kernels: false,
            moe_cache_bytes: match experts {
                Experts::Cached(bytes) => bytes,
                Experts::OnGpu | Experts::OnCpu => 0,
            },
        };
        let context = Context::new(&model, &options, Vec::new(), Arc::default())?;
        Ok(Self { context, model, ubatch: ubatch as usize })
    }

    /// Tokens of the vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.model.vocab().len()
    }

    /// Computes a prompt; the logits of its last token are there when this returns. Gives the time it took.
    ///
    /// # Errors
    /// [`GenerateError::Decode`].
    pub fn prefill(&mut self, prompt: &[Token]) -> Result<Duration, GenerateError> {
        let start = Instant::now();
        let mut batch = Batch::new(self.ubatch);
        let mut position = 0;
        for (index, part) in prompt.chunks(self.ubatch).enumerate() {
            batch.clear();
            let is_last = (index + 1) * self.ubatch >= prompt.len();
            for (at, token) in part.iter().enumerate() {
                batch.push(*token, position, 0, is_last && at + 1 == part.len());
                position += 1;
            }
            self.context.decode(&batch)?;
        }
        self.context.logits(-1)?;
        Ok(start.elapsed())
    }

    /// Decodes one token at `position`; its logits are there when this returns. Gives the time it took.
    ///
    /// # Errors
    /// [`GenerateError::Decode`].
    pub fn decode(&mut self, token: Token, position: usize) -> Result<Duration, GenerateError> {
        let start = Instant::now();
        let mut batch = Batch::new(1);
        batch.push(token, i32::try_from(position).unwrap_or(i32::MAX), 0, true);
        self.context.decode(&batch)?;
        self.context.logits(-1)?;
        Ok(start.elapsed())
    }

    /// The logits of the last token.
    ///
    /// # Errors
    /// [`GenerateError::Decode`] when nothing was decoded.
    pub fn logits(&mut self) -> Result<&[f32], GenerateError> {
        Ok(self.context.logits(-1)?)
    }
}
