//! Plans and predictions with other machines, whose speeds are known.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use hypura_core::gguf::{merge, read_header};
use hypura_core::model::ModelShape;
use hypura_core::plan::{
    ContextShape, CostInput, ExpertLayout, Homes, Ledger, PlanRequest, PoolId, Pools, Prediction, Residency,
    Settled, Workload, predict, settle,
};
use hypura_core::profile::{MatmulRate, Pattern, Profile, ReadRate, Storage, WorkerRates};
use hypura_core::roofline::BoundBy;
use hypura_core::synth::{Shape, SynthOptions, SynthPlan};
use std::convert::Infallible;
use std::sync::Arc;

const DISK: f64 = 1e9;

fn dense() -> ModelShape {
    let options = SynthOptions {
        layers: Some(16),
        ..SynthOptions::new(Shape::Qwen2_5_14b, Shape::Qwen2_5_14b.usual_quant())
    };
    let synth = SynthPlan::new(&options).unwrap();
    let shard = &synth.shards()[0];
    let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
    ModelShape::from_gguf(&merge(vec![header], vec![shard.file_bytes]).unwrap()).unwrap()
}

/// Rates of so many bytes a second for every type.
fn matmul(bytes_per_s: f64) -> Vec<MatmulRate> {
    let of = |quant: &str| MatmulRate {
        quant: quant.to_owned(),
        decode_bytes_per_s: Some(bytes_per_s),
        expert_bytes_per_s: Some(bytes_per_s),
        prefill_flops_per_s: Some(bytes_per_s * 20.0),
        expert_prefill_flops_per_s: Some(bytes_per_s * 20.0),
    };
    ["q4_K", "q6_K"].map(of).to_vec()
}

fn worker(name: &str, bytes_per_s: f64, round_trip_s: f64, link: f64) -> WorkerRates {
    let (name, matmul) = (name.to_owned(), matmul(bytes_per_s));
    WorkerRates { name, round_trip_s, bytes_per_s: link, matmul, ..WorkerRates::default() }
}

fn profile(workers: Vec<WorkerRates>) -> Profile {
    let read = |pattern| ReadRate {
        reader: "uring".to_owned(),
        pattern,
        request_bytes: 1 << 20,
        depth: 64,
        bytes_per_s: Some(DISK),
    };
    let storage =
        Storage { reads: vec![read(Pattern::Sequential), read(Pattern::Random)], ..Storage::default() };
    Profile { matmul: matmul(10e9), storage: Some(storage), workers, ..Profile::default() }
}

/// Half of the model fits here, and a quarter on each worker.
fn settled(shape: &ModelShape, profile: &Profile) -> Settled {
    let total = shape.total_bytes();
    let host = Pools::host(total * 5 / 8);
    let pools = profile.workers.iter().fold(host, |pools, _| pools.with_worker(total / 4));
    let speeds = Some(Arc::new(profile.clone()));
    let request = PlanRequest { pools, speeds, tables: Residency::Resident, ..PlanRequest::default() };
    let needs = |_: &ContextShape, _: &Homes| Ok::<_, Infallible>(Ledger::new());
    settle(shape, &ExpertLayout::new(shape), &request, needs).unwrap()
}

fn predicted(shape: &ModelShape, settled: &Settled, profile: &Profile) -> Prediction {
    let layout = ExpertLayout::new(shape);
    let workload = Workload { ubatch_tokens: settled.plan.context.ubatch_tokens, ..Workload::default() };
    predict(&CostInput { shape, layout: &layout, plan: &settled.plan, profile, workload })
}

fn layers_of(settled: &Settled, worker: usize) -> usize {
    let pool = PoolId::of_device(worker);
    settled.plan.homes.layers.iter().filter(|home| home.dense == pool).count()
}

#[test]
fn a_worker_on_a_slow_link_or_a_slow_machine_is_left_out_and_the_reason_names_the_speeds() {
    let shape = dense();
    let good = || worker("good", 10e9, 2e-4, 117e6);
    for (slow, words) in [
        (worker("far", 10e9, 0.5, 117e6), "500.00 ms"),
        (worker("narrow", 10e9, 2e-4, 2e5), "0.2 MB/s"),
        (worker("weak", 2e8, 2e-4, 117e6), "tok/s instead of"),
    ] {
        for workers in [vec![good(), slow.clone()], vec![slow.clone(), good()]] {
            let profile = profile(workers);
            let settled = settled(&shape, &profile);
            let out = profile.workers.iter().position(|worker| worker.name == slow.name).unwrap();
            assert_eq!(layers_of(&settled, out), 0, "{}", slow.name);
            assert!(layers_of(&settled, 1 - out) > 0, "the other one of {} helps", slow.name);
            let [(pool, why)] = settled.left_out.as_slice() else { panic!("{:?}", settled.left_out) };
            assert_eq!(*pool, PoolId::of_device(out));
            assert!(why.contains(words), "{why}");
        }
    }
    let both = profile(vec![good(), worker("also good", 10e9, 2e-4, 117e6)]);
    let settled = settled(&shape, &both);
    assert!(settled.left_out.is_empty() && layers_of(&settled, 1) > 0, "{:?}", settled.left_out);
}

#[test]
fn without_speeds_no_worker_is_left_out() {
    let shape = dense();
    let mut unmeasured = worker("far", 10e9, 0.5, 2e5);
    unmeasured.matmul.clear();
    let profile = profile(vec![unmeasured]);
    let settled = settled(&shape, &profile);
    assert!(settled.left_out.is_empty() && layers_of(&settled, 0) > 0);
    let prediction = predicted(&shape, &settled, &profile);
    assert!(prediction.decode.is_none());
    assert_eq!(prediction.missing, ["the speed of the worker far"]);
}

#[test]
fn machines_compute_in_turns_and_links_take_round_trips_and_hidden_states() {
    let shape = dense();
    let token_s = |round_trip_s: f64, link: f64, rate: f64| {
        let profile =
            profile(vec![worker("w", rate, round_trip_s, link), worker("v", rate, round_trip_s, link)]);
        let mut settled = settled(&shape, &profile);
        settled.left_out.clear();
        let decode = predicted(&shape, &settled, &profile).decode.unwrap();
        (1.0 / decode.tokens_per_s.mid, decode, settled)
    };
    let (fast_s, fast, plan) = token_s(0.0, 1e12, 10e9);
    assert_eq!(plan.plan.homes.device_layers() as usize, layers_of(&plan, 0) + layers_of(&plan, 1));
    // The same rate everywhere, and nothing streams: as one machine that has room for all.
    let alone = profile(Vec::new());
    let request = PlanRequest::default();
    let needs = |_: &ContextShape, _: &Homes| Ok::<_, Infallible>(Ledger::new());
    let all_here = settle(&shape, &ExpertLayout::new(&shape), &request, needs).unwrap();
    let alone_s = 1.0 / predicted(&shape, &all_here, &alone).decode.unwrap().tokens_per_s.mid;
    assert!((fast_s / alone_s - 1.0).abs() < 1e-3, "{fast_s} instead of {alone_s}");
    let (slow_s, slow, _) = token_s(1e-3, 50e6, 10e9);
    let hidden = shape.embedding as f64 * 4.0;
    let link_s = 2.0 * (1e-3 + 2.0 * hidden / 50e6);
    assert!((slow.link_s - link_s).abs() < 1e-9, "{} instead of {link_s}", slow.link_s);
    assert!((slow_s - fast_s - link_s).abs() < 1e-3 * link_s, "{slow_s} {fast_s}");
    assert_ne!(fast.bound, BoundBy::Link);
}
