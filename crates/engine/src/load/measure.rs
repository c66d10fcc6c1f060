//! What llama.cpp will need of memory, found out by having it build model and context without any.

use hypura_core::plan::{self, Basis, ContextShape, KvType, Ledger, Purpose};
use hypura_ggml::{Context, ContextOptions, Model};
use std::sync::Arc;

use super::devices::DeviceSettings;
use crate::error::LoadError;
use crate::source::ModelSource;

/// Most sequences of a context (llama.cpp's LLAMA_MAX_SEQ).
const MOST_SEQUENCES: u32 = 256;

/// A model without memory: its contexts only tell what they would take.
pub struct NeedsMeter<'a> {
    source: &'a ModelSource,
    threads: u32,
    model: Model,
}

impl<'a> NeedsMeter<'a> {
    /// Has llama.cpp build the model.
    ///
    /// # Errors
    /// llama.cpp's reason.
    pub fn new(source: &'a ModelSource, threads: u32, devices: &DeviceSettings) -> Result<Self, LoadError> {
        let options = devices.measured(source.path.clone());
        let model = Model::load(&options)?.fill(|_| Ok::<(), LoadError>(()))?;
        Ok(Self { source, threads, model })
    }

    /// What a context takes, and the process beside it.
    ///
    /// # Errors
    /// llama.cpp's reason.
    pub fn needs(&self, context: &ContextShape) -> Result<Ledger, LoadError> {
        let options = context_options(context, self.threads, self.source);
        let used = Context::new(&self.model, &options, Vec::new(), Arc::default())?.memory_use();
        let process = plan::process_bytes(&self.source.shape, u64::from(context.ubatch_tokens));
        Ok(Ledger::new()
            .with_host(Purpose::Kv, used.context_bytes, Basis::Measured)
            .with_host(Purpose::Compute, used.compute_bytes, Basis::Measured)
            .with_host(Purpose::Process, process, Basis::Estimated))
    }
}

/// A plan's word in llama.cpp's.
pub(crate) const fn kv_type(kv: KvType) -> hypura_ggml::KvType {
    match kv {
        KvType::F16 => hypura_ggml::KvType::F16,
        KvType::Q8_0 => hypura_ggml::KvType::Q8_0,
    }
}

/// The context of a model that is loaded so.
pub(super) fn context_options(context: &ContextShape, threads: u32, source: &ModelSource) -> ContextOptions {
    // A model for embeddings has all tokens of a text for outputs.
    let embeds = !source.shape.is_causal || source.pooling_type().is_some();
    let sequences = context.sequences.max(1);
    ContextOptions {
        outputs: if embeds { 0 } else { plan::OUTPUTS },
        context: context.context_tokens.saturating_mul(sequences),
        batch: context.ubatch_tokens,
        ubatch: context.ubatch_tokens,
        sequences: sequences.saturating_add(context.idle_sequences).min(MOST_SEQUENCES),
        threads,
        kv: kv_type(context.kv),
        // Ours to do where few tokens have outputs (`session::embed`).
        pooling: embeds.then(|| source.pooling()),
        flash_attention: true,
        alone: false,
        reference_kernels: false,
    }
}
