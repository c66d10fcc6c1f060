//! What `plan` estimates from a header, against what llama.cpp says it will take.
//!
//! llama.cpp builds model and context without memory, so files may be of any size: they hold a header and a hole.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use hypura_core::gguf::GgmlType;
use hypura_core::plan::{ContextRequest, Fixed, estimate_fixed};
use hypura_core::synth::{Shape, SynthOptions, SynthPlan};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::source::ModelSource;
use std::path::Path;

fn both(path: &Path, context: u32, ubatch: u32) -> (Fixed, Fixed) {
    let source = ModelSource::open(path).unwrap();
    let request = ContextRequest {
        context_tokens: context,
        ubatch_tokens: ubatch,
        sequences: 1,
        kv: GgmlType::F16,
        media_bytes: 0,
    };
    let estimated = estimate_fixed(&source.shape, &request).unwrap();
    let settings = LoadSettings { context, ubatch, ..LoadSettings::default() };
    (estimated, prepare(source, settings).unwrap().plan.fixed)
}

/// Share by which the compute buffers may differ: 2.7% at most is seen, 0.00% in most of the cases.
const COMPUTE_ERROR: f64 = 0.05;

fn compare(path: &Path, name: &str) {
    for (context, ubatch) in [(512, 512), (4096, 512), (4096, 64), (16384, 2048)] {
        let (estimated, measured) = both(path, context, ubatch);
        assert_eq!(estimated.kv_bytes, measured.kv_bytes, "{name} {context} {ubatch}");
        assert_eq!(estimated.process_bytes, measured.process_bytes, "{name} {context} {ubatch}");
        let error = estimated.compute_bytes as f64 / measured.compute_bytes as f64 - 1.0;
        eprintln!("{name} {context} {ubatch}: {:+.2}%", error * 100.0);
        assert!(error.abs() <= COMPUTE_ERROR, "{name} {context} {ubatch}: {estimated:?} {measured:?}");
    }
}

#[test]
fn synthetic_models_of_all_shapes() {
    for &shape in Shape::ALL {
        let plan = SynthPlan::new(&SynthOptions::new(shape, shape.usual_quant())).unwrap();
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), &plan.shards()[0].header).unwrap();
        file.as_file().set_len(plan.shards()[0].file_bytes).unwrap();
        compare(file.path(), shape.name());
    }
}

#[test]
fn the_demo_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    for name in ["demo-moe-Q4_K_M.gguf", "demo-draft-Q8_0.gguf"] {
        compare(&folder.join(name), name);
    }
}
