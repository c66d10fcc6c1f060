//! The GPU tier on whatever GPU ggml finds, in CI the software driver lavapipe: a model whose experts stream
//! beside a GPU gives bit for bit the logits of one whose experts are resident beside it, and a model that is
//! all on the GPU says what llama.cpp alone says there.
//!
//! `make test-gpu GPU=vulkan` runs these. Otherwise they are ignored, because ggml leaves software drivers
//! out unless `GGML_VK_VISIBLE_DEVICES` names one.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "common/gpu_dense.rs"]
mod gpu_dense;

use common::{TinyModel, demo_path, forced_run, hash, session, settings, streaming, tiny};
use hypura_core::plan::{ExpertHome, Homes, Mode, PoolId, Purpose, Residency};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::SamplerOptions;
use hypura_engine::baseline::{Baseline, Experts, Weights};
use hypura_engine::device::{DeviceChoice, DeviceOptions};
use hypura_engine::error::LoadError;
use hypura_engine::load::{Kernels, LoadSettings, prepare};
use hypura_engine::profile::gpu_rates;
use hypura_engine::session::GenerateOptions;
use hypura_engine::source::ModelSource;
use hypura_engine::stream::Prefetch;
use std::path::Path;

fn gpu() -> DeviceOptions {
    let found = hypura_engine::device::choose(&DeviceOptions {
        choice: DeviceChoice::Auto,
        ..DeviceOptions::default()
    });
    assert!(
        found.unwrap().is_some(),
        "no GPU was found: `make test-gpu GPU=vulkan` names the software driver"
    );
    DeviceOptions { choice: DeviceChoice::Auto, ..DeviceOptions::default() }
}

/// Dense weights on the GPU, experts with the CPU.
fn hybrid(settings: LoadSettings) -> LoadSettings {
    settings.with_device(DeviceOptions { experts: ExpertHome::Host, ..gpu() })
}

/// Streams at several sizes of the cache, from none to everything.
fn check_streamed(path: &Path, ubatch: u32) {
    let resident = hash(path, hybrid(settings(Residency::Resident)).with_ubatch(ubatch));
    for percent in [0.0, 30.0, 100.0] {
        let mut session = session(path, hybrid(streaming(percent)).with_ubatch(ubatch));
        let planned = &session.loaded().planned;
        assert_eq!(planned.plan.mode(), Mode::ExpertStreaming);
        assert_eq!(planned.plan.homes.device_layers(), Homes::most_layers(&planned.source.shape));
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(
            outcome.logits_hash.unwrap().to_string(),
            resident,
            "{percent}% in memory, ubatch {ubatch}"
        );
        let stats = outcome.decode_stats;
        assert!(stats.decode.misses > 0 || percent > 99.0, "{percent}%: nothing was streamed: {stats:?}");
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_dense_weights_with_streamed_experts_equals_resident_experts() {
    for (shape, quant) in [
        (Shape::TinyMixtral, Quant::Q5_K),
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q2_K),
    ] {
        let TinyModel { path, .. } = &tiny(shape, quant, 1);
        check_streamed(path, 24);
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_ubatches_of_1_8_and_64_equal_resident_experts() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for ubatch in [1, 8, 64] {
        check_streamed(path, ubatch);
    }
}

/// The GPU computes the experts too, from slots in its memory over slots in the host's.
fn on_gpu(settings: LoadSettings, vram_bytes: u64) -> LoadSettings {
    let vram_bytes = Some(vram_bytes);
    settings.with_device(DeviceOptions { experts: ExpertHome::Device, vram_bytes, ..gpu() })
}

/// Bytes of the GPU's memory that a model takes whose experts do not, with frames but without slots.
fn bytes_without_slots(path: &Path, ubatch: u32) -> u64 {
    let asked = on_gpu(streaming(0.0), u64::MAX / 2).with_ubatch(ubatch);
    let plan = prepare(ModelSource::open(path).unwrap(), asked).unwrap().plan;
    assert!(plan.device_slot_bytes() > 0, "everything has a slot where there is room for it");
    plan.ledger.pool_bytes(PoolId::DEVICE) - plan.device_slot_bytes()
}

/// Streams to slots on the GPU, from a few of them to everything, over none to everything in the host's
/// memory.
fn check_slots(path: &Path, ubatch: u32) {
    let whole = bytes_without_slots(path, ubatch);
    let all = settings(Residency::Resident).with_device(gpu()).with_ubatch(ubatch);
    let layout = prepare(ModelSource::open(path).unwrap(), all.clone()).unwrap().layout;
    let mut hashes = Vec::new();
    for (percent, share) in [(0.0, 0.5), (40.0, 0.5), (100.0, 0.3), (30.0, 1.0)] {
        let vram = whole + (layout.total_bytes() as f64 * share) as u64;
        let mut session = session(path, on_gpu(streaming(percent), vram).with_ubatch(ubatch));
        let plan = &session.loaded().planned.plan;
        assert_eq!((plan.mode(), plan.homes.streamed_experts), (Mode::ExpertStreaming, PoolId::DEVICE));
        assert!(plan.ledger.pool_bytes(PoolId::DEVICE) <= vram && plan.device_slot_bytes() > 0);
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        let stats = outcome.decode_stats;
        assert!(stats.device_hits > 0 && stats.uploaded_bytes > 0, "{percent}%, {share}: {stats:?}");
        // The routers of the next layers were asked, and named some that were uploaded in time.
        let guessed = stats.device_prefetched > stats.graphs;
        assert!(guessed || percent < 100.0, "{percent}%, {share}: {stats:?}");
        // A cell is read into again, so that its upload is waited for; a slot of the host is not.
        let layers = layout.layers.len() as u64;
        let few = stats.device_waits <= stats.graphs * (layers + 1);
        assert!(few || percent < 100.0, "{percent}%, {share}: {stats:?}");
        // What the GPU gives up comes back where the host has not room for all.
        let comes_back = (20.0..90.0).contains(&percent) && share < 0.9;
        assert_eq!(stats.demoted_bytes > 0, comes_back, "{percent}%, {share}: {stats:?}");
        hashes.push((percent, share, outcome.logits_hash.unwrap().to_string()));
    }
    let resident = hash(path, all);
    for (percent, share, streamed) in hashes {
        assert_eq!(streamed, resident, "{percent}% in memory, {share} on the GPU, ubatch {ubatch}");
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_slots_give_the_bits_of_a_model_that_is_all_on_the_gpu() {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyMixtral, Quant::Q5_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q2_K),
    ] {
        let TinyModel { path, .. } = &tiny(shape, quant, 1);
        check_slots(path, 24);
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_slots_at_ubatches_of_1_8_and_64() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for ubatch in [1, 8, 64] {
        check_slots(path, ubatch);
    }
}

/// The GPU computes the experts in the host's memory, where they are, as one does whose memory that is.
fn in_place(settings: LoadSettings) -> LoadSettings {
    settings.with_device(DeviceOptions { is_unified: Some(true), ..gpu() })
}

/// Streams to slots that host and GPU share, half of them or all, a prompt of so many tokens.
fn check_in_place(path: &Path, ubatch: u32, prompt: usize) {
    let larger = |settings: LoadSettings| {
        settings.with_ubatch(ubatch).with_context(128 + u32::try_from(prompt).unwrap())
    };
    let mut all = session(path, larger(settings(Residency::Resident).with_device(gpu())));
    let resident = forced_run(&mut all, prompt, 8).unwrap().logits_hash.unwrap().to_string();
    for percent in [50.0, 100.0] {
        let asked = streaming(percent).with_prefetch(Prefetch::Router);
        let mut session = session(path, larger(in_place(asked)));
        let plan = &session.loaded().planned.plan;
        assert_eq!((plan.mode(), plan.homes.streamed_experts), (Mode::ExpertStreaming, PoolId::DEVICE));
        assert!(plan.pools.are_unified() && plan.slot_bytes() > 0 && plan.device_slot_bytes() == 0);
        let layers = session.loaded().planned.layout.layers.len() as u64;
        let outcome = forced_run(&mut session, prompt, 8).unwrap();
        let stats = outcome.decode_stats;
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{percent}% in memory, {ubatch}");
        // The routers of the next layers were asked, and named some that were read in time.
        assert!(stats.decode.prefetched > 0 || percent > 99.0, "{percent}%: nothing was guessed: {stats:?}");
        assert!(stats.uploaded_bytes == 0 && stats.device_waits <= stats.graphs * (layers + 1), "{stats:?}");
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_in_the_hosts_memory_gives_the_bits_of_a_model_that_is_all_on_the_gpu() {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K_M),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q6_K),
    ] {
        let TinyModel { path, .. } = &tiny(shape, quant, 1);
        check_in_place(path, 24, 40);
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_in_the_hosts_memory_at_ubatches_of_1_8_64_and_512() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for (ubatch, prompt) in [(1, 10), (8, 20), (64, 80), (512, 300)] {
        check_in_place(path, ubatch, prompt);
    }
}

/// What is in the host's memory and in the GPU's is in one budget, once.
#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_in_the_hosts_memory_keeps_to_one_budget_for_both() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let whole = prepare(ModelSource::open(path).unwrap(), in_place(streaming(100.0))).unwrap().plan;
    for less in [0, 1 << 20, 2 << 20] {
        let budget = whole.total_bytes() - less;
        // Whichever of the two has less decides.
        for (host, vram) in [(budget, u64::MAX / 2), (u64::MAX, budget)] {
            let asked = settings(Residency::Stream).with_budget_bytes(host).with_device(DeviceOptions {
                vram_bytes: Some(vram),
                is_unified: Some(true),
                ..gpu()
            });
            let plan = prepare(ModelSource::open(path).unwrap(), asked).unwrap().plan;
            assert!(plan.total_bytes() <= budget, "{} of {budget}", plan.total_bytes());
            assert_eq!(plan.homes.streamed_experts, PoolId::DEVICE);
        }
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_with_some_of_the_layers_equals_resident_experts() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for layers in [1, 2] {
        let some = |settings: LoadSettings| {
            settings.with_device(DeviceOptions { layers: Some(layers), experts: ExpertHome::Host, ..gpu() })
        };
        let resident = hash(path, some(settings(Residency::Resident)));
        assert_eq!(hash(path, some(streaming(30.0))), resident, "{layers} layers");
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_beside_dense_streaming_equals_resident() {
    let TinyModel { path, .. } = &tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let some = |settings: LoadSettings| settings.with_device(DeviceOptions { layers: Some(2), ..gpu() });
    let resident = hash(path, some(settings(Residency::Resident)));
    let mut streamed = session(path, some(streaming(20.0)));
    assert_eq!(streamed.loaded().planned.plan.mode(), Mode::DenseStreaming);
    let outcome = forced_run(&mut streamed, 40, 8).unwrap();
    assert_eq!(outcome.logits_hash.unwrap().to_string(), resident);
    assert!(outcome.decode_stats.dense_weights > 0);
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_memory_is_what_the_plan_says_and_within_its_budget() {
    let all = session(&demo_path(), settings(Residency::Auto).with_device(gpu()));
    let (loaded, device) = (all.loaded(), PoolId::DEVICE);
    assert_eq!(loaded.planned.plan.mode(), Mode::FullResident);
    assert!(loaded.planned.plan.homes.layers.iter().all(|home| home.experts == device), "experts too");
    let planned = loaded.planned.plan.ledger.pool_bytes(device);
    let weights = loaded.planned.plan.ledger.bytes(device, Purpose::Weights);
    let used =
        weights + loaded.ledger.bytes(device, Purpose::Kv) + loaded.ledger.bytes(device, Purpose::Compute);
    assert!(used <= planned && used * 103 >= planned * 100, "{used} used, {planned} planned");
    assert!(loaded.ledger.bytes(PoolId::HOST, Purpose::Driver) > 0, "{:?}", loaded.ledger);
    // Too little for all of it: layers go there, as many as fit, and no byte more than allowed.
    let vram_bytes = Some(planned / 2);
    let part =
        session(&demo_path(), settings(Residency::Auto).with_device(DeviceOptions { vram_bytes, ..gpu() }));
    let ledger = &part.loaded().ledger;
    assert!(
        ledger.pool_bytes(device) <= planned / 2 && ledger.bytes(device, Purpose::Weights) > 0,
        "{ledger:?}"
    );
    let none = DeviceOptions { vram_bytes: Some(1 << 20), ..gpu() };
    let cpu = prepare(ModelSource::open(&demo_path()).unwrap(), settings(Residency::Auto).with_device(none))
        .unwrap();
    assert!(cpu.gpu.is_none() && cpu.plan.homes.are_on_host(), "nothing fits: the CPU computes");
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_that_does_not_exist_or_is_too_small_for_what_was_asked_is_an_error_with_a_name() {
    let TinyModel { path, .. } = &tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let refused = |options: DeviceOptions| {
        prepare(ModelSource::open(path).unwrap(), settings(Residency::Auto).with_device(options)).unwrap_err()
    };
    let missing = refused(DeviceOptions { choice: DeviceChoice::named("CUDA7"), ..gpu() });
    assert!(matches!(missing, LoadError::NoDevice { .. }), "{missing}");
    let small = refused(DeviceOptions { layers: Some(3), vram_bytes: Some(1000), ..gpu() }).to_string();
    assert!(small.contains("device 1 needs"), "{small}");
}

/// What the model says after the prompt, the likeliest token each time.
fn greedy(path: &Path, settings: &LoadSettings, prompt: &[i32], count: usize) -> Vec<i32> {
    let mut alone = Baseline::open(path, settings, Weights::Read, Experts::OnGpu).unwrap();
    alone.prefill(prompt).unwrap();
    let mut chosen = Vec::new();
    loop {
        let logits = alone.logits().unwrap();
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        chosen.push(i32::try_from(best).unwrap());
        if chosen.len() == count {
            return chosen;
        }
        alone.decode(chosen[chosen.len() - 1], prompt.len() + chosen.len() - 1).unwrap();
    }
}

/// Run by itself (`make test-gpu` does): a decorated CPU stays decorated, and llama.cpp alone is then not to
/// be had.
#[test]
#[ignore = "#13: needs a GPU and a process of its own: make test-gpu GPU=vulkan"]
fn alone_gpu_with_all_of_a_model_says_what_llama_cpp_alone_says_there() {
    let asked = settings(Residency::Auto).with_poison(false).with_device(gpu());
    let models = [tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1), tiny(Shape::TinyLlama, Quant::Q4_K, 1)];
    let prompt = common::tokens(40, 200);
    let expected = models.each_ref().map(|model| greedy(&model.path, &asked, &prompt, 12));
    let options = GenerateOptions {
        max_tokens: Some(12),
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        ignore_end: true,
        ..GenerateOptions::default()
    };
    for (TinyModel { path, .. }, expected) in models.iter().zip(expected) {
        let mut ours = session(path, asked.clone());
        let planned = &ours.loaded().planned;
        assert_eq!(planned.kernels(), Kernels::Repacked, "none of its weights is ours");
        assert_eq!(planned.plan.homes.device_layers(), Homes::most_layers(&planned.source.shape));
        assert_eq!(ours.generate(&prompt, &options, &mut |_| Ok(())).unwrap().tokens, expected, "{path:?}");
    }
}

#[test]
#[ignore = "#13: needs a GPU: make test-gpu GPU=vulkan"]
fn gpu_rates_are_measured_once_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let rates = gpu_rates(Some(folder.path()), &gpu());
    if hypura_engine::device::choose(&gpu()).unwrap().unwrap().is_software() {
        assert_eq!(rates, None);
        return;
    }
    let rates = rates.unwrap();
    let q4 = rates.matmul.iter().find(|rate| rate.quant == "q4_K").unwrap();
    for rate in [q4.decode_bytes_per_s, q4.expert_bytes_per_s, q4.prefill_flops_per_s] {
        assert!(rate.unwrap() > 0.0, "{q4:?}");
    }
    assert!(rates.overhead.call_s.unwrap() > 0.0 && rates.upload_bytes_per_s.unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // Measured again, times would differ by more than the last digit of a number in the file.
    let again = gpu_rates(Some(folder.path()), &gpu()).unwrap();
    let (one, other) = (again.upload_bytes_per_s.unwrap(), rates.upload_bytes_per_s.unwrap());
    assert!((one / other - 1.0).abs() < 1e-9, "{one} {other}");
    assert_eq!(again.matmul.len(), rates.matmul.len());
}
