//! What the engine's tests share: tiny models, and one way to run them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

pub mod archs;
pub mod mamba;
pub mod media;
pub mod rewrite;
pub mod serve;

use hypura_core::plan::{CacheSize, PlanError, Residency};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use hypura_engine::error::{GenerateError, LoadError};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session, open};
use hypura_engine::source::ModelSource;
use hypura_engine::{SamplerOptions, Token};
use std::fs;
use std::path::{Path, PathBuf};

/// Each test binary uses its own part of this file; this uses the rest.
const _: fn() = || {
    let _ = |model: TinyModel| model.path;
    let _ = (tiny, demo_path, settings, streaming, session, tokens, forced_run, hash, least_bytes);
    let _ = (mamba::mamba, archs::tiny_of);
    let _ = (rewrite::with_fused_gate_up, rewrite::with_expert_scales, rewrite::with_table_in);
};

/// A tiny synthetic model in a folder of its own.
pub struct TinyModel {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

/// Writes a synthetic model.
pub fn tiny(shape: Shape, quant: Quant, shards: u32) -> TinyModel {
    let folder = tempfile::tempdir().unwrap();
    let plan = SynthPlan::new(&SynthOptions { shards, ..SynthOptions::new(shape, quant) }).unwrap();
    let mut first = None;
    for (index, shard) in plan.shards().iter().enumerate() {
        let path = folder.path().join(plan.file_name("tiny", index));
        let mut bytes = vec![0; usize::try_from(shard.file_bytes).unwrap()];
        plan.fill_file(index, 0, &mut bytes);
        fs::write(&path, bytes).unwrap();
        first.get_or_insert(path);
    }
    TinyModel { _folder: folder, path: first.unwrap() }
}

pub fn demo_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf")
}

/// Small, poisoned, single-threaded: what most tests want.
pub fn settings(residency: Residency) -> LoadSettings {
    LoadSettings::default()
        .with_choice(residency)
        .with_context(128)
        .with_ubatch(24)
        .with_threads(1)
        .with_poison(true)
}

pub fn streaming(percent: f64) -> LoadSettings {
    settings(Residency::Stream).with_cache(Some(CacheSize::Percent(percent)))
}

pub fn session(path: &Path, settings: LoadSettings) -> Session {
    open(prepare(ModelSource::open(path).unwrap(), settings).unwrap(), &mut |_, _| {}).unwrap()
}

/// The least budget that these settings work in.
pub fn least_bytes(path: &Path, settings: &LoadSettings) -> u64 {
    let settings = settings.clone().with_budget_bytes(0).with_kv_may_shrink(false);
    match prepare(ModelSource::open(path).unwrap(), settings) {
        Err(LoadError::Plan(PlanError::BelowFloor { floor_bytes, .. })) => floor_bytes,
        other => panic!("it works in nothing: {:?}", other.map(|planned| planned.plan)),
    }
}

/// Pseudo-random tokens, the same in every run.
pub fn tokens(count: usize, vocab: usize) -> Vec<Token> {
    (0..count).map(|at| 5 + Token::try_from((at * 7919 + 31) % (vocab - 10)).unwrap()).collect()
}

/// A prompt of several ubatches and forced tokens after it, with every logit hashed.
pub fn forced_run(session: &mut Session, prompt: usize, generated: usize) -> Result<Outcome, GenerateError> {
    let vocab = session.vocab().len();
    let all = tokens(prompt + generated, vocab);
    let options = GenerateOptions {
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        hash_logits: true,
        forced: Some(all[prompt..].to_vec()),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    session.generate(&all[..prompt], &options, &mut |_| Ok(()))
}

/// The hash of a run, as text.
pub fn hash(path: &Path, settings: LoadSettings) -> String {
    let mut session = session(path, settings);
    forced_run(&mut session, 40, 8).unwrap().logits_hash.unwrap().to_string()
}
