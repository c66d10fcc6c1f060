//! Models and machines for tests of the planner.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use hypura_core::gguf::{merge, read_header};
use hypura_core::model::ModelShape;
use hypura_core::profile::{MatmulRate, Memory, Overhead, Pattern, Profile, ReadRate, Storage};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use proptest::prelude::*;

/// Each test file uses its own part of this one; this uses the rest.
const _: fn() = || {
    let _ = (cases, model, model_of_layers, model_of_at_least, model_of_quant, fixed_machine, || machine());
};

/// How many cases of a property: what `PROPTEST_CASES` says, else `usual`.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// A synthetic model in its usual quantisation.
pub fn model(shape: Shape) -> ModelShape {
    of_options(&SynthOptions::new(shape, shape.usual_quant()))
}

/// The same with another number of layers.
pub fn model_of_layers(shape: Shape, layers: u32) -> ModelShape {
    let mut options = SynthOptions::new(shape, shape.usual_quant());
    options.layers = Some(layers);
    of_options(&options)
}

/// The same with at least so many layers: as few as there can be.
pub fn model_of_at_least(shape: Shape, layers: u32) -> ModelShape {
    let options =
        |layers| SynthOptions { layers: Some(layers), ..SynthOptions::new(shape, shape.usual_quant()) };
    let fewest = (layers..).find(|layers| SynthPlan::new(&options(*layers)).is_ok()).unwrap();
    of_options(&options(fewest))
}

/// The same in another quantisation.
pub fn model_of_quant(shape: Shape, quant: Quant, layers: u32) -> ModelShape {
    let mut options = SynthOptions::new(shape, quant);
    options.layers = Some(layers);
    of_options(&options)
}

fn of_options(options: &SynthOptions) -> ModelShape {
    let plan = SynthPlan::new(options).unwrap();
    let headers =
        plan.shards().iter().map(|shard| read_header(shard.header.as_slice(), shard.file_bytes).unwrap());
    let sizes = plan.shards().iter().map(|shard| shard.file_bytes).collect();
    ModelShape::from_gguf(&merge(headers.collect(), sizes).unwrap()).unwrap()
}

const TYPES: [&str; 9] = ["f32", "f16", "q8_0", "q4_K", "q5_K", "q6_K", "mxfp4", "q2_K", "q3_K"];

pub fn matmul(decode: f64, flops: f64) -> Vec<MatmulRate> {
    let rate = |quant: &&str| MatmulRate {
        quant: (*quant).to_owned(),
        decode_bytes_per_s: Some(decode),
        expert_bytes_per_s: Some(decode * 0.9),
        prefill_flops_per_s: Some(flops),
        expert_prefill_flops_per_s: Some(flops * 0.5),
    };
    TYPES.iter().map(rate).collect()
}

/// Two cores and a disk of `disk` bytes per second.
pub fn fixed_machine(disk: f64) -> Profile {
    let read = |pattern, request_bytes, depth, share: f64| ReadRate {
        reader: "uring".to_owned(),
        pattern,
        request_bytes,
        depth,
        bytes_per_s: Some(disk * share),
    };
    let reads = vec![
        read(Pattern::Sequential, 1 << 20, 1, 0.5),
        read(Pattern::Sequential, 1 << 20, 8, 1.0),
        read(Pattern::Random, 1 << 16, 1, 0.1),
        read(Pattern::Random, 1 << 16, 32, 0.6),
        read(Pattern::Random, 1 << 20, 1, 0.4),
        read(Pattern::Random, 1 << 20, 8, 1.0),
    ];
    Profile {
        matmul: matmul(1e10, 8e10),
        overhead: Overhead { node_s: Some(5e-6), call_s: Some(8e-6), wake_s: Some(1e-4) },
        memory: Memory { read_bytes_per_s: Some(2e10), ..Memory::default() },
        storage: Some(Storage { reads, ..Storage::default() }),
        ..Profile::default()
    }
}

/// Machines whose measurements are noisy: a rate need not rise with size or depth.
pub fn machine() -> impl Strategy<Value = Profile> {
    let cell = (0..2_u8, 12..23_u32, 0..7_u32, 1e7..1e10_f64);
    let reads = prop::collection::vec(cell, 1..12);
    (reads, 1e8..1e11_f64, 1e9..1e13_f64, 0.0..1e-4_f64).prop_map(|(cells, decode, flops, call_s)| {
        let read = |(pattern, size, depth, rate)| ReadRate {
            reader: "pread".to_owned(),
            pattern: if pattern == 0 { Pattern::Sequential } else { Pattern::Random },
            request_bytes: 1_u64 << size,
            depth: 1_u32 << depth,
            bytes_per_s: Some(rate),
        };
        let reads = cells.into_iter().map(read).collect();
        Profile {
            matmul: matmul(decode, flops),
            overhead: Overhead {
                node_s: Some(call_s / 2.0),
                call_s: Some(call_s),
                wake_s: Some(call_s * 3.0),
            },
            memory: Memory { read_bytes_per_s: Some(decode * 2.0), ..Memory::default() },
            storage: Some(Storage { reads, ..Storage::default() }),
            ..Profile::default()
        }
    })
}
