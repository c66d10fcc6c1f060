//! The gate: a streamed run gives bit for bit the logits of a run with all weights in the CPU's memory, for
//! every architecture, budget, reader, policy, ubatch, shard count and mix of quantisations. Memory is
//! poisoned before each reuse.
//!
//! Written once, for every way that weights can be divided among devices ([`At`]).

use crate::common::rewrite::{with_expert_scales, with_fused_gate_up, with_table_in};
use crate::common::{TinyModel, demo_path, forced_run, hash, least_bytes, session, settings, tiny};
use hypura_core::gguf::GgmlType;
use hypura_core::plan::{CacheSize, Mode, Residency};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::load::{DeviceSettings, LoadSettings, PolicyKind};
use hypura_engine::session::GenerateOptions;
use hypura_engine::stream::Prefetch;
use hypura_engine::{KvType, ReaderKind, SamplerOptions, Token};
use std::collections::HashSet;
use std::path::Path;

/// Which device computes what.
#[derive(Default)]
pub struct At {
    pub devices: DeviceSettings,
}

impl At {
    fn settings(&self, residency: Residency) -> LoadSettings {
        settings(residency).with_devices(self.devices.clone())
    }

    fn streaming(&self, percent: f64) -> LoadSettings {
        self.settings(Residency::Stream).with_cache(Some(CacheSize::Percent(percent)))
    }
}

/// A test for each part of the gate; `$run` gets the part as a function of [`At`].
#[macro_export]
macro_rules! exactness {
    ($run:expr) => {
        $crate::exactness! { $run; mixtral qwen3_moe gpt_oss kimi_k2 dense_llama dense_qwen2 dense_weights_and_experts_stream_at_once leading_dense_layers_and_shared_experts_stream_beside_routed_ones mixed_quantisations_make_two_size_classes gate_and_up_of_experts_in_one_tensor a_scale_for_each_expert shards readers_and_policies readers_of_dense_weights row_tables more_rows_than_the_cache_holds tables_of_every_type rows_at_the_ends_of_tables_and_tokens_that_repeat a_kv_cache_in_8_bits_changes_nothing_about_streaming large_ubatches_equal_the_resident_run_at_the_same_ubatch every_ubatch_equals_the_resident_run_at_the_same_ubatch prefetching_right_or_wrong_changes_no_bit two_threads_equal_one the_demo_model_answers_the_same_from_a_third_of_its_experts }
    };
    ($run:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $run($crate::exact::$name);
            }
        )*
    };
}

/// Streams at several sizes of the cache, from none to everything.
fn check(at: &At, path: &Path, mode: Mode) {
    let resident = hash(path, settings(Residency::Resident));
    for percent in [0.0, 10.0, 45.0, 100.0] {
        let mut session = session(path, at.streaming(percent));
        assert_eq!(session.loaded().planned.plan.mode(), mode);
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{percent}% in memory");
        let read = outcome.prefill_stats.bytes_read + outcome.decode_stats.bytes_read;
        assert!(read > 0 || percent > 99.0, "{percent}%: nothing was streamed");
    }
}

fn check_synthetic(at: &At, shape: Shape, quant: Quant, mode: Mode) {
    let TinyModel { path, .. } = &tiny(shape, quant, 1);
    check(at, path, mode);
}

pub fn mixtral(at: &At) {
    check_synthetic(at, Shape::TinyMixtral, Quant::Q5_K, Mode::ExpertStreaming);
}

pub fn qwen3_moe(at: &At) {
    check_synthetic(at, Shape::TinyQwen3Moe, Quant::Q4_K, Mode::ExpertStreaming);
}

pub fn gpt_oss(at: &At) {
    check_synthetic(at, Shape::TinyGptOss, Quant::MXFP4, Mode::ExpertStreaming);
}

pub fn kimi_k2(at: &At) {
    check_synthetic(at, Shape::TinyKimiK2, Quant::Q2_K, Mode::ExpertStreaming);
}

pub fn dense_llama(at: &At) {
    check_synthetic(at, Shape::TinyLlama, Quant::Q4_K, Mode::DenseStreaming);
}

pub fn dense_qwen2(at: &At) {
    check_synthetic(at, Shape::TinyQwen2, Quant::Q6_K, Mode::DenseStreaming);
}

/// Dense weights and experts stream at once, at several sizes of both.
fn check_mixed(at: &At, shape: Shape, quant: Quant) {
    let TinyModel { path, .. } = &tiny(shape, quant, 1);
    let resident = hash(path, settings(Residency::Resident));
    for asked in [at.settings(Residency::Stream), at.streaming(30.0)] {
        let least = least_bytes(path, &asked);
        for more in [0, 150_000, 300_000] {
            let mut session = session(path, asked.clone().with_budget_bytes(least + more));
            let plan = &session.loaded().planned.plan;
            assert_eq!(plan.mode(), Mode::MixedStreaming, "{shape} {more}");
            assert_eq!(plan.slot_bytes() > 0, asked.model.cache.is_some());
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{shape} {more}");
            let stats = outcome.decode_stats;
            assert!(stats.dense_weights > 0 && stats.decode.misses > 0, "{stats:?}");
        }
    }
}

pub fn dense_weights_and_experts_stream_at_once(at: &At) {
    check_mixed(at, Shape::TinyMixtral, Quant::Q5_K);
    check_mixed(at, Shape::TinyQwen3Moe, Quant::Q4_K_M);
    check_mixed(at, Shape::TinyGptOss, Quant::MXFP4);
}

/// An embedding that streams by the row, alone, beside experts and beside dense weights.
pub fn row_tables(at: &At) {
    for (shape, quant, shards) in [
        (Shape::TinyMixtral, Quant::Q5_K, 1),
        (Shape::TinyLlama, Quant::Q4_K, 3),
        (Shape::TinyGptOss, Quant::MXFP4, 1),
        (Shape::TinyGemma4, Quant::Q4_K, 1),
    ] {
        let TinyModel { path, .. } = &tiny(shape, quant, shards);
        let resident = hash(path, settings(Residency::Resident));
        for asked in [at.settings(Residency::Auto), at.streaming(45.0)] {
            for reader in readers() {
                let asked = asked.clone().with_tables(Residency::Stream).with_reader(reader.clone());
                let streams_more = asked.model.cache.is_some();
                let mut session = session(path, asked);
                let plan = &session.loaded().planned.plan;
                assert_eq!(plan.mode() == Mode::TableStreaming, !streams_more, "{shape}");
                let tables = plan.streamed_tables();
                assert_eq!(tables.len(), tables_of(shape), "{shape}");
                let rows: u64 = tables.iter().map(|table| u64::from(table.rows_per_token)).sum();
                let outcome = forced_run(&mut session, 40, 8).unwrap();
                assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{shape} {reader:?}");
                let (prompt, decode) = (outcome.prefill_stats, outcome.decode_stats);
                // Prompts are computed but for their last token, and nothing but rows is read for it.
                assert_eq!(prompt.table_rows + decode.table_rows, 48 * rows, "{prompt:?} {decode:?}");
                assert!(prompt.table_bytes_read >= 4096 && prompt.table_reads > 0, "{prompt:?}");
                assert!(streams_more || prompt.table_bytes_read == prompt.bytes_read, "{prompt:?}");
            }
        }
    }
}

/// Tables that are not the projection to the vocabulary too.
fn tables_of(shape: Shape) -> usize {
    if matches!(shape, Shape::TinyQwen4Exp | Shape::TinyDeepSeek41) { 2 } else { 1 }
}

/// Every type whose rows llama.cpp can gather on a CPU, and that a weight of a file can have.
const GATHERED: &[GgmlType] = &[
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q1_0,
    GgmlType::Q2_0,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::MXFP4,
    GgmlType::NVFP4,
    GgmlType::F8_E4M3,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::TQ1_0,
    GgmlType::TQ2_0,
    GgmlType::IQ1_S,
    GgmlType::IQ1_M,
    GgmlType::IQ2_XXS,
    GgmlType::IQ2_XS,
    GgmlType::IQ2_S,
    GgmlType::IQ3_XXS,
    GgmlType::IQ3_S,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
];

/// A table in each type, whose rows begin anywhere in a page.
pub fn tables_of_every_type(at: &At) {
    let plain = tiny(Shape::TinyGemma4, Quant::Q4_K, 1);
    let mut hashes = HashSet::new();
    for ty in GATHERED {
        let model = with_table_in(&plain.path, *ty);
        let resident = hash(&model.path, settings(Residency::Resident));
        let asked = at.settings(Residency::Auto).with_tables(Residency::Stream);
        assert_eq!(hash(&model.path, asked), resident, "{ty}");
        assert!(hashes.insert(resident), "{ty}: the table has no effect");
    }
}

/// The first and the last row of a table, rows again and again, in ubatches of all sizes.
pub fn rows_at_the_ends_of_tables_and_tokens_that_repeat(at: &At) {
    for (shape, shards) in [(Shape::TinyLlama, 1), (Shape::TinyGemma4, 3), (Shape::TinyQwen4Exp, 1)] {
        let model = tiny(shape, Quant::Q4_K, shards);
        let run = |asked: LoadSettings, ubatch: u32| {
            let mut session = session(&model.path, asked.with_context(640).with_ubatch(ubatch));
            let last = Token::try_from(session.vocab().len() - 1).unwrap();
            let of = |at: i32| [0, last, 0, 0, last, last, at % 7, 1, last - 1, at][at as usize % 10];
            let all: Vec<Token> = (0..600).map(of).collect();
            let options = GenerateOptions {
                hash_logits: true,
                forced: Some(vec![last, 0, 0, last]),
                ignore_end: true,
                ..GenerateOptions::default()
            };
            let outcome = session.generate(&all, &options, &mut |_| Ok(())).unwrap();
            (outcome.logits_hash.unwrap().to_string(), outcome.prefill_stats)
        };
        for ubatch in [1, 8, 64, 512] {
            let (resident, _) = run(at.settings(Residency::Resident), ubatch);
            let (streamed, stats) = run(at.settings(Residency::Auto).with_tables(Residency::Stream), ubatch);
            assert_eq!(streamed, resident, "{shape}, ubatch {ubatch}");
            assert!(stats.table_hits > 0 && stats.table_bytes_read > 0, "{stats:?}");
        }
    }
}

/// A prompt has more rows than the cache: the node is computed in pieces.
pub fn more_rows_than_the_cache_holds(at: &At) {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let run = |asked: LoadSettings| {
        let mut session = session(&model.path, asked.with_context(1600).with_ubatch(1500));
        let rows = session.loaded().planned.plan.streamed_tables().first().map(|table| table.cache_rows);
        let outcome = forced_run(&mut session, 1500, 4).unwrap();
        (outcome.logits_hash.unwrap().to_string(), rows, outcome.prefill_stats)
    };
    let (resident, none, _) = run(at.settings(Residency::Resident));
    let (streamed, rows, stats) = run(at.settings(Residency::Auto).with_tables(Residency::Stream));
    assert!(none.is_none() && rows.is_some_and(|rows| rows < 600), "{rows:?}");
    assert!(streamed == resident && stats.table_rows >= 1500, "{stats:?}");
}

pub fn leading_dense_layers_and_shared_experts_stream_beside_routed_ones(at: &At) {
    let model = tiny(Shape::TinyKimiK2, Quant::Q4_K, 1);
    let least = least_bytes(&model.path, &at.settings(Residency::Stream));
    let opened = session(&model.path, at.settings(Residency::Stream).with_budget_bytes(least));
    let planned = &opened.loaded().planned;
    let names =
        planned.plan.streamed_dense().iter().map(|index| &planned.source.shape.tensors[*index].info.name);
    let names: Vec<&str> = names.map(String::as_str).collect();
    for name in ["blk.0.ffn_down.weight", "blk.2.ffn_up_shexp.weight", "blk.1.attn_output.weight"] {
        assert!(names.contains(&name), "{names:?}");
    }
    drop(opened);
    check_mixed(at, Shape::TinyKimiK2, Quant::Q4_K);
}

pub fn mixed_quantisations_make_two_size_classes(at: &At) {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K_M, 1);
    let opened = session(&model.path, at.streaming(30.0));
    assert_eq!(opened.loaded().planned.layout.classes.len(), 2);
    drop(opened);
    check(at, &model.path, Mode::ExpertStreaming);
}

pub fn gate_and_up_of_experts_in_one_tensor(at: &At) {
    let model = with_fused_gate_up(&tiny(Shape::TinyKimiK2, Quant::Q4_K, 1).path);
    let opened = session(&model.path, at.streaming(30.0));
    assert!(opened.loaded().planned.layout.layers.iter().all(|layer| layer.parts.len() == 2));
    drop(opened);
    check(at, &model.path, Mode::ExpertStreaming);
}

pub fn a_scale_for_each_expert(at: &At) {
    let plain = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let scaled = with_expert_scales(&plain.path);
    let of = |path| hash(path, settings(Residency::Resident));
    assert_ne!(of(&plain.path), of(&scaled.path), "the scales have no effect");
    check(at, &scaled.path, Mode::ExpertStreaming);
}

pub fn shards(at: &At) {
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyLlama, Quant::Q4_K)] {
        let (whole, sharded) = (tiny(shape, quant, 1), tiny(shape, quant, 3));
        assert_eq!(hash(&whole.path, settings(Residency::Resident)), hash(&sharded.path, at.streaming(25.0)));
    }
    let (whole, sharded) =
        (tiny(Shape::TinyMixtral, Quant::Q5_K, 1), tiny(Shape::TinyMixtral, Quant::Q5_K, 3));
    let least = least_bytes(&sharded.path, &at.settings(Residency::Stream));
    let mixed = at.settings(Residency::Stream).with_budget_bytes(least);
    assert_eq!(hash(&whole.path, settings(Residency::Resident)), hash(&sharded.path, mixed));
}

pub fn readers_and_policies(at: &At) {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let asked = at.streaming(20.0);
    let mixed = asked.clone().with_budget_bytes(least_bytes(&model.path, &asked));
    for reader in readers() {
        for policy in [PolicyKind::Lru, PolicyKind::Lfru, PolicyKind::S3Fifo] {
            for asked in [&asked, &mixed] {
                let settings = asked.clone().with_reader(reader.clone()).with_policy(policy);
                assert_eq!(hash(&model.path, settings), resident, "{reader:?} {policy:?}");
            }
        }
    }
}

pub fn readers_of_dense_weights(at: &At) {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    for reader in readers() {
        let settings = at.streaming(20.0).with_reader(reader.clone());
        assert_eq!(hash(&model.path, settings), resident, "{reader:?}");
    }
}

/// Every reader that this system has.
fn readers() -> Vec<ReaderKind> {
    let mut kinds = vec![ReaderKind::Auto, ReaderKind::Pread];
    if cfg!(target_os = "linux") {
        kinds.push(ReaderKind::Uring);
    }
    kinds
}

pub fn a_kv_cache_in_8_bits_changes_nothing_about_streaming(at: &At) {
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyLlama, Quant::Q4_K)] {
        let model = tiny(shape, quant, 1);
        let resident = at.settings(Residency::Resident).with_kv(KvType::Q8_0);
        let streamed = at.streaming(20.0).with_kv(KvType::Q8_0);
        let resident = hash(&model.path, resident);
        assert_eq!(hash(&model.path, streamed), resident, "{shape}");
        assert_ne!(
            hash(&model.path, settings(Residency::Resident)),
            resident,
            "{shape}: the cache was in f16"
        );
    }
}

/// Prompts of hundreds of tokens, beyond what counts as decoding, through slots and cells.
pub fn large_ubatches_equal_the_resident_run_at_the_same_ubatch(at: &At) {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyLlama, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        for ubatch in [65, 150, 300] {
            let run = |asked: LoadSettings| {
                let mut session = session(&model.path, asked.with_context(320).with_ubatch(ubatch));
                forced_run(&mut session, 300, 4).unwrap().logits_hash.unwrap().to_string()
            };
            let resident = run(at.settings(Residency::Resident));
            for percent in [0.0, 30.0] {
                assert_eq!(run(at.streaming(percent)), resident, "{shape}, ubatch {ubatch}, {percent}%");
            }
        }
    }
}

pub fn every_ubatch_equals_the_resident_run_at_the_same_ubatch(at: &At) {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for ubatch in [1, 2, 7, 16, 17, 40, 64] {
        let resident = at.settings(Residency::Resident).with_ubatch(ubatch);
        let streamed = at.streaming(15.0).with_ubatch(ubatch);
        assert_eq!(hash(&model.path, resident), hash(&model.path, streamed), "ubatch {ubatch}");
    }
}

pub fn prefetching_right_or_wrong_changes_no_bit(at: &At) {
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyKimiK2, Quant::Q2_K)] {
        let model = tiny(shape, quant, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        let kinds =
            [Prefetch::Off, Prefetch::Auto, Prefetch::Router, Prefetch::Random(1), Prefetch::Random(99)];
        for prefetch in kinds {
            for percent in [12.0, 40.0] {
                let streamed = at.streaming(percent).with_prefetch(prefetch);
                assert_eq!(hash(&model.path, streamed), resident, "{prefetch:?} {percent}%");
            }
        }
    }
}

pub fn two_threads_equal_one(at: &At) {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let streamed = at.streaming(30.0).with_threads(2);
    assert_eq!(hash(&model.path, streamed), resident);
}

pub fn the_demo_model_answers_the_same_from_a_third_of_its_experts(at: &At) {
    let answer = |settings: LoadSettings| {
        let mut session = session(&demo_path(), settings.with_context(256));
        let prompt = session.render(r#"[{"role":"user","content":"What is a lynx?"}]"#).unwrap();
        let tokens = session.tokenize_chat(&prompt);
        let options = GenerateOptions {
            max_tokens: Some(40),
            sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
            hash_logits: true,
            ..GenerateOptions::default()
        };
        let mut text = String::new();
        let outcome = session
            .generate(&tokens, &options, &mut |piece| {
                text.push_str(piece);
                Ok(())
            })
            .unwrap();
        (text, outcome.tokens, outcome.logits_hash)
    };
    let resident = answer(at.settings(Residency::Resident));
    assert!(resident.0.starts_with("A lynx is a kind of wildcat"), "{}", resident.0);
    assert_eq!(answer(at.streaming(33.0)), resident);
}
