//! What llama.cpp will need of memory, found out by having it build model and context without any.

use hypura_core::plan::{self, Basis, ContextShape, Entry, Homes, KvType, Ledger, PoolId, Purpose};
use hypura_ggml::{Context, ContextOptions, DeviceMemoryUse, LoadMode, Model};
use std::sync::Arc;

use super::devices::DeviceSettings;
use super::offload::{place, place_on_workers, streamed_experts};
use crate::device::{Gpu, driver_bytes, measure_driver};
use crate::error::LoadError;
use crate::source::ModelSource;
use crate::workers::{self, Worker};

/// Most sequences of a context (llama.cpp's LLAMA_MAX_SEQ).
const MOST_SEQUENCES: u32 = 256;

/// A model without memory: its contexts only tell what they would take.
pub struct NeedsMeter<'a> {
    source: &'a ModelSource,
    threads: u32,
    devices: &'a DeviceSettings,
    gpu: Option<&'a Gpu>,
    workers: &'a [Worker],
    /// Where layers were at home when it was built last, and the model.
    built: (Homes, Model),
}

impl<'a> NeedsMeter<'a> {
    /// Has llama.cpp build the model. Layers may be at home on `gpu` later.
    ///
    /// # Errors
    /// llama.cpp's reason.
    pub fn new(
        source: &'a ModelSource,
        threads: u32,
        devices: &'a DeviceSettings,
        gpu: Option<&'a Gpu>,
    ) -> Result<Self, LoadError> {
        measure_driver(gpu);
        let homes = Homes::on_host(&source.shape);
        let model = build(source, &homes, devices, gpu, &[])?;
        Ok(Self { source, threads, devices, gpu, workers: &[], built: (homes, model) })
    }

    /// The same; layers may be at home on workers later.
    #[must_use]
    pub(crate) fn with_workers(self, workers: &'a [Worker]) -> Self {
        Self { workers, ..self }
    }

    /// Whether one state stands for all tokens before.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        self.built.1.is_recurrent()
    }

    /// What a context takes where layers have these homes, and the process beside it.
    ///
    /// # Errors
    /// llama.cpp's reason.
    pub fn needs(&mut self, context: &ContextShape, homes: &Homes) -> Result<Ledger, LoadError> {
        if self.built.0 != *homes {
            let model = build(self.source, homes, self.devices, self.gpu, self.workers)?;
            self.built = (homes.clone(), model);
        }
        let options = context_options(context, self.threads, self.source, self.gpu);
        let built = Context::new(&self.built.1, &options, Vec::new(), Arc::default())?;
        let used = built.memory_use();
        let process = plan::process_bytes(&self.source.shape, u64::from(context.ubatch_tokens));
        let driver = driver_bytes(homes, &self.source.shape);
        let measured = context_ledger(&built, homes, self.workers, Basis::Measured);
        let mut needs = measured.with_host(Purpose::Process, process, Basis::Estimated).with_host(
            Purpose::Driver,
            driver,
            Basis::Estimated,
        );
        // A copy of the embedding table, where it is the projection to the vocabulary too, and what alignment
        // takes.
        let copies = used.device.model_bytes.saturating_sub(homes.device_bytes(&self.source.shape));
        for (pool, worker) in workers::pools(self.workers) {
            let there = DeviceMemoryUse::in_device(&built, worker.device).model_bytes;
            let bytes = there.saturating_sub(homes.bytes_in(&self.source.shape, pool));
            needs.add(Entry { pool, purpose: Purpose::Weights, bytes, basis: Basis::Measured });
        }
        if let Some(pool) = homes.device().filter(|_| self.workers.is_empty()) {
            needs.add(Entry { pool, purpose: Purpose::Weights, bytes: copies, basis: Basis::Measured });
        }
        Ok(needs)
    }
}

/// KV cache and compute buffers, by pool. Memory of a device that the plan knows nothing of is the host's.
pub(super) fn context_ledger(context: &Context, homes: &Homes, workers: &[Worker], basis: Basis) -> Ledger {
    let used = context.memory_use();
    let device = homes.device().unwrap_or_default();
    let mut ledger = Ledger::new();
    let mut note = |pool, purpose, bytes| ledger.add(Entry { pool, purpose, bytes, basis });
    note(PoolId::HOST, Purpose::Kv, used.context_bytes);
    note(PoolId::HOST, Purpose::Compute, used.compute_bytes);
    for (pool, worker) in workers::pools(workers) {
        let there = DeviceMemoryUse::in_device(context, worker.device);
        note(pool, Purpose::Kv, there.context_bytes);
        note(pool, Purpose::Compute, there.compute_bytes);
    }
    if workers.is_empty() {
        note(device, Purpose::Kv, used.device.context_bytes);
        note(device, Purpose::Compute, used.device.compute_bytes);
    }
    ledger
}

/// The model without memory, its layers at home there.
fn build(
    source: &ModelSource,
    homes: &Homes,
    devices: &DeviceSettings,
    gpu: Option<&Gpu>,
    workers: &[Worker],
) -> Result<Model, LoadError> {
    let mut options = devices.measured(source.path.clone());
    place_on_workers(&mut options, &source.shape, homes, workers);
    if let Some(gpu) = gpu {
        if homes.streamed_experts != PoolId::HOST {
            options.mode = LoadMode::Measure { placements: streamed_experts(&source.shape, gpu.device) };
        }
        place(&mut options, &source.shape, homes, gpu.device);
    }
    Model::load(&options)?.fill(|_| Ok::<(), LoadError>(()))
}

/// A plan's word in llama.cpp's.
pub(crate) const fn kv_type(kv: KvType) -> hypura_ggml::KvType {
    match kv {
        KvType::F16 => hypura_ggml::KvType::F16,
        KvType::Q8_0 => hypura_ggml::KvType::Q8_0,
    }
}

/// The context of a model that is loaded so.
pub(super) fn context_options(
    context: &ContextShape,
    threads: u32,
    source: &ModelSource,
    gpu: Option<&Gpu>,
) -> ContextOptions {
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
        flash_attention: gpu.is_none_or(|gpu| gpu.flash_attention),
        alone: false,
        reference_kernels: false,
        moe_cache_bytes: 0,
    }
}
