//! Dense weights that a GPU computes with and that are not all in its memory: uploaded from the disk and from
//! the host's memory, or computed with where the disk puts them.

use super::gpu;
use crate::common::{TinyModel, forced_run, session, settings, streaming, tiny};
use hypura_core::plan::{Ledger, Mode, PoolId, Residency};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::device::{DeviceOptions, choose};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::request::Outcome;
use hypura_engine::source::ModelSource;
use std::path::Path;

/// A prompt of so many tokens, in ubatches of so many.
#[derive(Clone, Copy)]
struct Prompt {
    ubatch: u32,
    tokens: usize,
}

const SHORT: Prompt = Prompt { ubatch: 24, tokens: 40 };

impl Prompt {
    fn settings(self, settings: LoadSettings) -> LoadSettings {
        settings.with_ubatch(self.ubatch).with_context(128 + u32::try_from(self.tokens).unwrap())
    }

    /// The logits of all of a model on the GPU.
    fn resident(self, path: &Path) -> String {
        let mut all = session(path, self.settings(settings(Residency::Resident)).with_device(gpu()));
        forced_run(&mut all, self.tokens, 8).unwrap().logits_hash.unwrap().to_string()
    }

    /// What a GPU says that computes what streams, which gives these logits.
    fn check(self, path: &Path, asked: LoadSettings, resident: &str) -> Outcome {
        let mut session = session(path, asked);
        let plan = &session.loaded().planned.plan;
        assert_eq!((plan.mode(), plan.homes.streamed_dense), (Mode::DenseStreaming, PoolId::DEVICE));
        let (held, planned) = (&session.loaded().ledger, &plan.ledger);
        let bytes = |ledger: &Ledger| ledger.pool_bytes(PoolId::DEVICE);
        assert!(
            bytes(held) <= bytes(planned) && bytes(held) * 103 >= bytes(planned) * 100,
            "{held:?} {planned:?}"
        );
        let outcome = forced_run(&mut session, self.tokens, 8).unwrap();
        let (ubatch, stats) = (self.ubatch, outcome.decode_stats);
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{path:?}, ubatch {ubatch}");
        assert!(stats.dense_weights > 0, "{stats:?}");
        outcome
    }

    /// Uploads, with so many percent in memory and such a share of all on the GPU.
    fn check_uploads(self, path: &Path, resident: &str, cases: &[(f64, f64)]) {
        let whole = |vram_bytes| DeviceOptions {
            vram_bytes: Some(vram_bytes),
            // Else the CPU would compute some of the layers: the ring takes a good part of what tiny models
            // do.
            layers: Some(u32::MAX),
            is_unified: Some(false),
            ..gpu()
        };
        let bare = self.settings(streaming(0.0)).with_device(whole(u64::MAX / 2));
        let plan = prepare(ModelSource::open(path).unwrap(), bare).unwrap().plan;
        let (least, all) = (plan.ledger.pool_bytes(PoolId::DEVICE), plan.streamable_bytes());
        for (percent, share) in cases {
            let vram = least + (all as f64 * share) as u64;
            let asked = self.settings(streaming(*percent)).with_device(whole(vram));
            let stats = self.check(path, asked, resident).decode_stats;
            assert!(stats.uploaded_bytes > 0, "{percent}%, {share} there: {stats:?}");
            assert_eq!(stats.bytes_read == 0, *percent > 99.0, "{percent}%, {share} there: {stats:?}");
        }
    }

    /// Computed with where the disk puts them, with so many percent in memory.
    fn check_in_place(self, path: &Path, resident: &str, percent: f64) {
        if !choose(&unified()).unwrap().unwrap().in_place {
            // CUDA reads no memory that it has not made itself.
            return;
        }
        let asked = self.settings(streaming(percent)).with_device(unified());
        let stats = self.check(path, asked, resident).decode_stats;
        assert!(stats.uploaded_bytes == 0 && stats.bytes_read > 0, "{percent}%: {stats:?}");
    }
}

fn unified() -> DeviceOptions {
    DeviceOptions { is_unified: Some(true), ..gpu() }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_dense_streaming_gives_the_bits_of_a_model_that_is_all_there() {
    // All from the disk; from the disk, from memory and there; all from memory.
    let all: &[(f64, f64)] = &[(0.0, 0.0), (50.0, 0.25), (100.0, 0.25)];
    for (shape, quant, cases) in [
        (Shape::TinyLlama, Quant::Q4_K, all),
        (Shape::TinyQwen2, Quant::Q6_K, &all[1..2]),
        (Shape::TinyGemma3, Quant::Q8_0, &all[1..2]),
    ] {
        let TinyModel { path, .. } = &tiny(shape, quant, 1);
        let resident = SHORT.resident(path);
        SHORT.check_uploads(path, &resident, cases);
        SHORT.check_in_place(path, &resident, 0.0);
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_dense_streaming_at_ubatches_of_1_8_64_and_512() {
    let TinyModel { path, .. } = &tiny(Shape::TinyLlama, Quant::Q4_K_M, 1);
    for (ubatch, tokens) in [(1, 10), (8, 20), (64, 80), (512, 300)] {
        let prompt = Prompt { ubatch, tokens };
        let resident = prompt.resident(path);
        prompt.check_uploads(path, &resident, &[(60.0, 0.3)]);
        prompt.check_in_place(path, &resident, 60.0);
    }
}
