//! Replays of seeded synthetic traces: what must hold of hit rates, counts and predictions on any of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use hypura_core::cache::policy::Belady;
use hypura_core::cache::{Admission, Counters, ExpertCache, PolicyKind};
use hypura_core::roofline::BoundBy;
use hypura_core::sim::{Machine, Replay, ReplayOptions, belady_for, replay};
use hypura_core::trace::{LayerRoutes, Phase, Trace, TraceHeader, TraceToken};
use proptest::prelude::*;

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from((self.next() >> 32) % u64::from(bound)).unwrap()
    }
}

struct Shape {
    layers: u32,
    experts: u32,
    used: u32,
    prefill: usize,
    decode: usize,
}

const SHAPE: Shape = Shape { layers: 8, experts: 32, used: 4, prefill: 16, decode: 200 };

/// Routes that look like a real router's: each layer has favourites, a token often repeats the last one's
/// choice, and the rest is chance.
fn synthetic(seed: u64, shape: &Shape) -> Trace {
    let mut random = Random(seed | 1);
    let header = TraceHeader::new("synthetic", shape.layers, shape.experts, shape.used, 1000);
    let mut last: Vec<Vec<u32>> = vec![Vec::new(); shape.layers as usize];
    let tokens = (0..shape.prefill + shape.decode)
        .map(|index| {
            let phase = if index < shape.prefill { Phase::Prefill } else { Phase::Decode };
            let layers = (0..shape.layers)
                .map(|layer| {
                    let before = &mut last[layer as usize];
                    let experts = choose(&mut random, layer, before, shape);
                    before.clone_from(&experts);
                    LayerRoutes { layer, experts, weights: Vec::new() }
                })
                .collect();
            TraceToken { phase, layers }
        })
        .collect();
    Trace { header, tokens }
}

fn choose(random: &mut Random, layer: u32, before: &[u32], shape: &Shape) -> Vec<u32> {
    let mut experts: Vec<u32> = Vec::new();
    while experts.len() < shape.used as usize {
        let expert = match random.below(10) {
            0..=3 if !before.is_empty() => before[random.below(shape.used) as usize],
            0..=7 => {
                // Favourites: the less of two tries, rotated by layer.
                let least = random.below(shape.experts).min(random.below(shape.experts)) / 2;
                (least + layer * 5) % shape.experts
            }
            _ => random.below(shape.experts),
        };
        if !experts.contains(&expert) {
            experts.push(expert);
        }
    }
    experts
}

fn run(trace: &Trace, slots: u32, kind: PolicyKind, options: ReplayOptions) -> Replay {
    let mut cache = ExpertCache::new(slots, kind.build(slots, trace.header.layers));
    let result = replay(trace, &mut cache, options);
    assert_eq!((cache.table().pinned(), cache.table().loading()), (0, 0), "a replay leaves nothing open");
    result
}

fn misses(result: &Replay) -> u64 {
    result.prefill.misses() + result.decode.misses()
}

#[test]
fn lru_hits_nothing_below_the_working_set_of_a_token() {
    // Every token uses the same experts, and the cache is one layer short.
    let tokens = (0..20)
        .map(|_| {
            let layers =
                (0..4).map(|layer| LayerRoutes { layer, experts: vec![1, 2], weights: Vec::new() }).collect();
            TraceToken { phase: Phase::Decode, layers }
        })
        .collect();
    let trace = Trace { header: TraceHeader::new("cyclic", 4, 8, 2, 1), tokens };
    let lru = run(&trace, 6, PolicyKind::Lru, ReplayOptions::default());
    assert_eq!((lru.decode.hits, lru.decode.lookups()), (0, 160));
    let enough = run(&trace, 8, PolicyKind::Lru, ReplayOptions::default());
    assert_eq!(enough.decode.hits, 152);
    // The default misses what is short and what had to leave for it, not everything.
    let lfru = run(&trace, 6, PolicyKind::Lfru, ReplayOptions::default());
    assert!(lfru.decode.misses() <= 8 + 4 * 19, "{:?}", lfru.decode);
}

#[test]
fn a_cache_of_all_experts_misses_each_once() {
    let trace = synthetic(1, &SHAPE);
    let mut seen: Vec<(u32, u32)> = trace
        .tokens
        .iter()
        .flat_map(|token| &token.layers)
        .flat_map(|routes| routes.experts.iter().map(|expert| (routes.layer, *expert)))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    for kind in PolicyKind::ALL {
        let result = run(&trace, SHAPE.layers * SHAPE.experts, kind, ReplayOptions::default());
        assert_eq!(misses(&result), seen.len() as u64, "{}", kind.name());
        assert_eq!(result.bytes(), seen.len() as u64 * 1000);
    }
}

#[test]
fn phases_and_tokens_are_counted_apart() {
    let trace = synthetic(2, &SHAPE);
    let lookups = |tokens: usize| tokens as u64 * u64::from(SHAPE.layers * SHAPE.used);
    let single = run(&trace, 64, PolicyKind::Lfru, ReplayOptions::default());
    assert_eq!(single.prefill.lookups(), lookups(SHAPE.prefill));
    assert_eq!(single.decode.lookups(), lookups(SHAPE.decode));
    assert_eq!(single.decode_tokens, SHAPE.decode as u64);
    // In a ubatch each expert is looked up once, however many tokens use it; decode stays one token a step.
    let batched = run(&trace, 64, PolicyKind::Lfru, ReplayOptions { ubatch_tokens: 16 });
    assert!(batched.prefill.lookups() <= u64::from(SHAPE.layers * SHAPE.experts));
    assert_eq!(batched.decode.lookups(), lookups(SHAPE.decode));
}

#[test]
fn the_default_beats_the_queues_on_a_trace_with_favourites() {
    let (mut lfru, mut lru, mut s3fifo) = (0, 0, 0);
    for seed in 1..=8 {
        let trace = synthetic(seed, &SHAPE);
        let of = |kind| misses(&run(&trace, 40, kind, ReplayOptions::default()));
        lfru += of(PolicyKind::Lfru);
        lru += of(PolicyKind::Lru);
        s3fifo += of(PolicyKind::S3Fifo);
    }
    assert!(lfru < lru && lfru < s3fifo, "misses: lfru {lfru}, lru {lru}, s3fifo {s3fifo}");
}

fn belady(trace: &Trace, slots: u32, admission: Admission) -> u64 {
    let policy: Belady = belady_for(trace, slots, ReplayOptions::default());
    let mut cache = ExpertCache::new(slots, Box::new(policy)).with_admission(admission);
    misses(&replay(trace, &mut cache, ReplayOptions::default()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// If anything beats the optimum, the simulator or the optimum is wrong.
    #[test]
    fn nothing_beats_belady(seed in any::<u64>(), slots in 4..120_u32, layers in 1..6_u32) {
        let shape = Shape { layers, experts: 16, used: 3, prefill: 4, decode: 40 };
        let trace = synthetic(seed, &shape);
        let always = belady(&trace, slots, Admission::Always);
        prop_assert!(belady(&trace, slots, Admission::IfWorth) <= always);
        for kind in PolicyKind::ALL {
            let real = misses(&run(&trace, slots, kind, ReplayOptions::default()));
            prop_assert!(real >= always, "{} missed {real}, belady {always}", kind.name());
        }
    }

    #[test]
    fn a_replay_is_repeatable(seed in any::<u64>(), slots in 0..200_u32, ubatch_tokens in 1..20_u32) {
        let trace = synthetic(seed, &Shape { decode: 30, ..SHAPE });
        for kind in PolicyKind::ALL {
            let options = ReplayOptions { ubatch_tokens };
            prop_assert_eq!(run(&trace, slots, kind, options), run(&trace, slots, kind, options));
        }
    }
}

#[test]
fn speed_is_the_slower_of_disk_and_compute() {
    let decode = Counters { hits: 600, loads: 300, streamed: 100, ..Counters::default() };
    let result = Replay {
        decode,
        decode_tokens: 10,
        decode_reading_layers: 200,
        expert_bytes: 1 << 20,
        ..Replay::default()
    };
    let disk = Machine { compute_s: 0.01, disk_bytes_per_s: f64::from(1 << 30), disk_latency_s: 0.0005 };
    let slow = result.predict(&disk).unwrap();
    // 40 experts of 1 MiB at 1 GiB/s and 20 waits of half a millisecond.
    assert_eq!(slow.disk_s, 40.0 / 1024.0 + 20.0 * 0.0005);
    assert_eq!((slow.bound, slow.tokens_per_s), (BoundBy::Disk, 1.0 / slow.disk_s));
    let busy = result.predict(&Machine { compute_s: 0.5, ..disk }).unwrap();
    assert_eq!((busy.bound, busy.tokens_per_s), (BoundBy::Compute, 2.0));
    assert_eq!(Replay::default().predict(&disk), None);
    assert_eq!(result.hit_rate(), Some(0.6));
}
