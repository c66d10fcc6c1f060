//! What `plan` estimates from a header, against what llama.cpp says it will take.
//!
//! llama.cpp builds model and context without memory, so files may be of any size: they hold a header and a
//! hole.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use hypura_core::plan::{ContextShape, Ledger, Purpose, estimate_needs};
use hypura_core::synth::{Shape, SynthOptions, SynthPlan};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::source::ModelSource;
use std::path::Path;

fn both(path: &Path, context: u32, ubatch: u32) -> (Ledger, Ledger) {
    let source = ModelSource::open(path).unwrap();
    let shape = ContextShape { context_tokens: context, ubatch_tokens: ubatch, ..ContextShape::default() };
    let estimated = estimate_needs(&source.shape, &shape).unwrap();
    let settings = LoadSettings::default().with_context(context).with_ubatch(ubatch);
    (estimated, prepare(source, settings).unwrap().plan.ledger)
}

/// Share by which the compute buffers may differ: 2.7% at most is seen, 0.00% in most of the cases.
const COMPUTE_ERROR: f64 = 0.05;

/// Bytes by which they may differ where layers mix several residual streams and attend to chosen cells: the
/// estimate knows the former roughly, and nothing of the latter.
const ROUGH_BYTES: u64 = 16 << 20;

/// Whether llama.cpp's graph is one that the estimate knows roughly.
fn is_rough(shape: Shape) -> bool {
    matches!(
        shape,
        Shape::Qwen3_8FlashNext | Shape::DeepSeekV4_1Flash | Shape::TinyQwen4Exp | Shape::TinyDeepSeek41
    )
}

/// Whether the KV cache has rules of its own, for which the estimate is an upper bound.
fn bounds_kv(shape: Shape) -> bool {
    matches!(shape, Shape::DeepSeekV4_1Flash | Shape::TinyDeepSeek41)
}

fn compare(path: &Path, name: &str) {
    compare_within(path, name, 0, false);
}

fn compare_within(path: &Path, name: &str, more_bytes: u64, bounds_kv: bool) {
    for (context, ubatch) in [(512, 512), (4096, 512), (4096, 64), (16384, 2048)] {
        let (estimated, measured) = both(path, context, ubatch);
        let kv = [&estimated, &measured].map(|ledger| ledger.bytes_for(Purpose::Kv));
        assert!(kv[0] == kv[1] || (bounds_kv && kv[0] > kv[1]), "{name} {context} {ubatch}: {kv:?}");
        let (process, compute) = (Purpose::Process, Purpose::Compute);
        assert_eq!(estimated.bytes_for(process), measured.bytes_for(process), "{name} {context} {ubatch}");
        let (guess, truth) = (estimated.bytes_for(compute), measured.bytes_for(compute));
        let error = guess as f64 / truth as f64 - 1.0;
        eprintln!("{name} {context} {ubatch}: {:+.2}%", error * 100.0);
        assert!(
            error.abs() <= COMPUTE_ERROR || guess.abs_diff(truth) <= more_bytes,
            "{name} {context} {ubatch}: {estimated:?} {measured:?}"
        );
    }
}

#[test]
fn synthetic_models_of_all_shapes() {
    for &shape in Shape::ALL {
        let plan = SynthPlan::new(&SynthOptions::new(shape, shape.usual_quant())).unwrap();
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), &plan.shards()[0].header).unwrap();
        file.as_file().set_len(plan.shards()[0].file_bytes).unwrap();
        let more_bytes = if is_rough(shape) { ROUGH_BYTES } else { 0 };
        compare_within(file.path(), shape.name(), more_bytes, bounds_kv(shape));
    }
}

#[test]
fn the_demo_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    for name in ["demo-moe-Q4_K_M.gguf", "demo-draft-Q8_0.gguf"] {
        compare(&folder.join(name), name);
    }
}
