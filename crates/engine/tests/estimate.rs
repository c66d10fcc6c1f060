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

fn compare(path: &Path, name: &str) {
    for (context, ubatch) in [(512, 512), (4096, 512), (4096, 64), (16384, 2048)] {
        let (estimated, measured) = both(path, context, ubatch);
        assert_eq!(
            estimated.bytes_for(Purpose::Kv),
            measured.bytes_for(Purpose::Kv),
            "{name} {context} {ubatch}"
        );
        let (process, compute) = (Purpose::Process, Purpose::Compute);
        assert_eq!(estimated.bytes_for(process), measured.bytes_for(process), "{name} {context} {ubatch}");
        let error = estimated.bytes_for(compute) as f64 / measured.bytes_for(compute) as f64 - 1.0;
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
