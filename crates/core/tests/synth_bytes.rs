//! Bytes of synthetic models: the same however they are cut, different where they must be, and readable as a
//! file.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use hypura_core::gguf::read_header;
use hypura_core::synth::{ExtentSource, Quant, Shape, SynthOptions, SynthPlan};
use proptest::prelude::*;

fn options(shape: Shape, quant: Quant) -> SynthOptions {
    SynthOptions::new(shape, quant)
}

fn file(plan: &SynthPlan, shard: usize) -> Vec<u8> {
    let mut bytes = vec![0; plan.shards()[shard].file_bytes as usize];
    plan.fill_file(shard, 0, &mut bytes);
    bytes
}

fn tensor(plan: &SynthPlan, name: &str) -> (usize, Vec<u8>) {
    let index = plan.tensors().iter().position(|tensor| tensor.name == name).unwrap();
    let mut bytes = vec![0; plan.tensors()[index].bytes as usize];
    plan.fill(index, 0, &mut bytes);
    (index, bytes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_others() {
    for &shape in Shape::ALL.iter().filter(|shape| shape.name().starts_with("tiny-")) {
        let mut options = options(shape, shape.usual_quant());
        let first = file(&SynthPlan::new(&options).unwrap(), 0);
        assert!(first == file(&SynthPlan::new(&options).unwrap(), 0), "{shape}");
        options.seed = 1;
        assert!(first != file(&SynthPlan::new(&options).unwrap(), 0), "{shape}");
    }
}

#[test]
fn bytes_have_not_changed_since_they_were_pinned() {
    // FNV-1a over the file. Someone who changes this changes every file that was ever made: bench results no
    // longer compare.
    let hash = |bytes: &[u8]| {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
    };
    let of = |shape, quant| {
        let plan = SynthPlan::new(&options(shape, quant)).unwrap();
        let data_start = plan.shards()[0].header.len();
        hash(&file(&plan, 0)[data_start..])
    };
    assert_eq!(of(Shape::TinyQwen3Moe, Quant::Q4_K_M), 15_278_747_465_762_374_184);
    assert_eq!(of(Shape::TinyGptOss, Quant::MXFP4), 7_795_876_162_989_611_288);
}

#[test]
fn sharding_does_not_change_the_weights() {
    let mut options = options(Shape::TinyGptOss, Quant::MXFP4);
    let one = SynthPlan::new(&options).unwrap();
    options.shards = 4;
    let four = SynthPlan::new(&options).unwrap();
    for info in one.tensors() {
        assert!(tensor(&one, &info.name).1 == tensor(&four, &info.name).1, "{}", info.name);
    }
}

#[test]
fn padding_is_zero_and_files_end_where_planned() {
    let plan = SynthPlan::new(&options(Shape::TinyGptOss, Quant::Q2_K)).unwrap();
    let bytes = file(&plan, 0);
    let mut end = plan.shards()[0].header.len() as u64;
    for tensor in plan.tensors() {
        assert!(bytes[end as usize..tensor.offset as usize].iter().all(|&byte| byte == 0), "{}", tensor.name);
        end = tensor.offset + tensor.bytes;
    }
    assert!(bytes.len() as u64 - end < 32);
    let mut beyond = vec![7; 100];
    plan.fill_file(0, bytes.len() as u64 - 10, &mut beyond);
    assert_eq!(beyond[..10], bytes[bytes.len() - 10..]);
    assert!(beyond[10..].iter().all(|&byte| byte == 0));
}

#[test]
fn no_two_experts_of_a_model_are_equal() {
    for (shape, quant) in [(Shape::TinyMixtral, Quant::Q4_K), (Shape::TinyGptOss, Quant::MXFP4)] {
        let plan = SynthPlan::new(&options(shape, quant)).unwrap();
        let mut slices = HashSet::new();
        let mut pages = HashSet::new();
        for info in plan.tensors().iter().filter(|info| info.name.contains("_exps.weight")) {
            let (_, bytes) = tensor(&plan, &info.name);
            for slice in bytes.chunks(bytes.len() / info.shape[2] as usize) {
                assert!(slices.insert(slice.to_vec()), "{shape}: a slice of {} repeats", info.name);
                assert!(slice.chunks_exact(4096).all(|page| pages.insert(page.to_vec())));
            }
        }
    }
}

#[test]
fn floats_are_finite_and_norms_are_near_one() {
    for &shape in Shape::ALL.iter().filter(|shape| shape.name().starts_with("tiny-")) {
        let plan = SynthPlan::new(&options(shape, Quant::Q4_K)).unwrap();
        for info in plan.tensors().iter().filter(|info| info.ty.name() == "f32") {
            let values = floats(&tensor(&plan, &info.name).1);
            assert!(values.iter().all(|value| value.is_finite()), "{}", info.name);
            if info.name.contains("norm") {
                assert!(values.iter().all(|value| (0.8..=1.2).contains(value)), "{}", info.name);
            }
        }
    }
}

#[test]
fn llama_rope_factors_are_in_the_file() {
    let plan = SynthPlan::new(&options(Shape::Llama70b, Quant::Q4_K)).unwrap();
    let factors = floats(&tensor(&plan, "rope_freqs.weight").1);
    assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
}

/// How often each expert is among the `k` of highest logit over random normalised inputs.
fn popularity(router: &[f32], width: usize, k: usize, inputs: usize) -> Vec<usize> {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 3.0_f32.sqrt()
    };
    let mut counts = vec![0; router.len() / width];
    for _ in 0..inputs {
        let input: Vec<f32> = (0..width).map(|_| random()).collect();
        let logit = |row: &[f32]| row.iter().zip(&input).map(|(w, x)| w * x).sum::<f32>();
        let mut ranked: Vec<(f32, usize)> = router.chunks(width).map(logit).zip(0..).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked[..k].iter().for_each(|&(_, expert)| counts[expert] += 1);
    }
    counts
}

#[test]
fn routing_is_skewed_but_not_degenerate() {
    let plan = SynthPlan::new(&options(Shape::Qwen3_30bA3b, Quant::Q4_K)).unwrap();
    let router = floats(&tensor(&plan, "blk.7.ffn_gate_inp.weight").1);
    let counts = popularity(&router, 2048, 8, 600);
    let mean = 600.0 * 8.0 / 128.0;
    let hottest = *counts.iter().max().unwrap() as f64 / mean;
    assert!((1.8..6.0).contains(&hottest), "the hottest expert is used {hottest:.2} times the mean");
    let unused = counts.iter().filter(|&&count| count == 0).count();
    assert!(unused <= 20, "{unused} of 128 experts are never used");
}

#[test]
fn repeated_bytes_are_where_the_extents_say() {
    let mut options = options(Shape::TinyMixtral, Quant::Q4_K);
    options.unique_bytes = Some(300 << 10);
    options.shards = 2;
    let plan = SynthPlan::new(&options).unwrap();
    let files = [file(&plan, 0), file(&plan, 1)];
    let mut made = 0;
    for (shard, bytes) in files.iter().enumerate() {
        let mut end = 0;
        for extent in plan.extents(shard) {
            assert_eq!(extent.offset, end);
            assert!(extent.bytes > 0);
            end += extent.bytes;
            let own = &bytes[extent.offset as usize..end as usize];
            let ExtentSource::Copied { shard: from, offset } = extent.source else {
                made += extent.bytes;
                continue;
            };
            assert!([extent.offset, extent.bytes, offset].iter().all(|n| n % 4096 == 0));
            assert!(
                (from, offset + extent.bytes) <= (shard, extent.offset),
                "copies come after what they copy"
            );
            assert!(own == &files[from][offset as usize..][..own.len()], "{extent:?}");
        }
        assert_eq!(end, bytes.len() as u64);
    }
    assert!(made < plan.file_bytes() / 2, "{made} of {} bytes are made", plan.file_bytes());
}

#[test]
fn a_trillion_parameters_need_little_disk() {
    let mut options = options(Shape::KimiK2, Quant::Q2_K);
    options.unique_bytes = Some(1 << 30);
    let plan = SynthPlan::new(&options).unwrap();
    let made = |extent: &hypura_core::synth::Extent| extent.source == ExtentSource::Made;
    let bytes: u64 = plan.extents(0).iter().filter(|extent| made(extent)).map(|extent| extent.bytes).sum();
    assert!(bytes < 8 << 30, "{bytes}");
    assert!(plan.file_bytes() > 330_000_000_000);
    // Experts of a layer still differ: their first bytes do.
    let gate = plan.tensors().iter().position(|tensor| tensor.name == "blk.5.ffn_gate_exps.weight").unwrap();
    let slice = plan.tensors()[gate].bytes / 384;
    let starts: HashSet<[u8; 84]> = (0..384)
        .map(|expert| {
            let mut block = [0; 84];
            plan.fill(gate, expert * slice, &mut block);
            block
        })
        .collect();
    assert_eq!(starts.len(), 384);
}

#[test]
fn without_a_limit_all_is_made() {
    let plan = SynthPlan::new(&options(Shape::TinyLlama, Quant::Q4_K)).unwrap();
    let extents = plan.extents(0);
    assert_eq!(extents.len(), 1);
    assert_eq!((extents[0].bytes, extents[0].source), (plan.file_bytes(), ExtentSource::Made));
    assert!(plan.extents(1).is_empty());
}

#[test]
fn a_written_file_reads_back() {
    let plan = SynthPlan::new(&options(Shape::TinyQwen3Moe, Quant::Q4_K)).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(plan.file_name("synth-read-back", 0));
    fs::write(&path, file(&plan, 0)).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    let header = read_header(File::open(&path).unwrap(), size).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(header.tensors, plan.tensors());
    assert_eq!(header.metadata.str("general.architecture").unwrap(), Some("qwen3moe"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any cutting of the file into ranges gives the file.
    #[test]
    fn ranges_are_independent_of_cutting(
        cuts in proptest::collection::vec(0_u64..1_200_000, 0..20),
        quant in proptest::sample::select(Quant::ALL),
        unique in proptest::option::of(40_000_u64..200_000),
    ) {
        let mut options = options(Shape::TinyGptOss, quant);
        options.layers = Some(1);
        options.unique_bytes = unique;
        let plan = SynthPlan::new(&options).unwrap();
        let whole = file(&plan, 0);
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut % whole.len() as u64).collect();
        cuts.extend([0, whole.len() as u64]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let mut part = vec![0xaa; (pair[1] - pair[0]) as usize];
            plan.fill_file(0, pair[0], &mut part);
            prop_assert!(part == whole[pair[0] as usize..pair[1] as usize], "{pair:?}");
        }
    }
}
