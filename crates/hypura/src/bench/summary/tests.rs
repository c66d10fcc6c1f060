//! Tests of the figures, on runs made up for them.

use super::super::snapshot::Phase;
use super::super::work::ArmRun;
use super::*;

fn phase(tokens: u64, tps: f64) -> Phase {
    Phase {
        tokens,
        wall_s: tokens as f64 / tps,
        tps,
        experts_hit: 75,
        experts_missed: 25,
        experts_prefetched: 5,
        bytes_read: 1000 * tokens,
        bytes_read_kernel: Some(1100 * tokens),
        // The disk is never idle.
        disk_busy_s: Some(tokens as f64 / tps),
        read_stall_s: 0.01 * tokens as f64,
        compute_s: Some(0.05 * tokens as f64),
        cpu_compute_s: Some(0.1 * tokens as f64),
        cpu_reader_s: Some(0.002 * tokens as f64),
        other_load: Some(0.0),
        stolen: Some(0.0),
        other_disk_bytes_per_s: Some(0.0),
    }
}

pub(in super::super) fn run(round: usize, mode: &str, decode_tps: f64) -> Run {
    let arm = ArmRun {
        mode: mode.to_owned(),
        reader: Some("uring".to_owned()),
        notes: Vec::new(),
        budget_bytes: Some(6 << 30),
        planned_bytes: Some(5 << 30),
        streamable_bytes: 4_000_000,
        cached_fraction: 0.75,
        load_ms: 100.0 + round as f64,
        prepare_ms: 10.0,
        load_cpu_ms: None,
        prefill: phase(32, 10.0 * decode_tps),
        decode: phase(8, decode_tps),
        token_ms: vec![1e3 / decode_tps; 8],
        peak_rss_bytes: Some(1000 + round as u64),
        soak: None,
    };
    Run { round, arm, cgroup_peak_bytes: None, roofline: None, disturbed: None }
}

const LIMITS: Limits = Limits { routed_bytes: 800_000, routed_experts: 10, resident_token_s: None };

#[test]
fn figures_are_per_token_and_medians() {
    let runs = vec![
        run(0, "expert-streaming", 4.0),
        run(1, "expert-streaming", 5.0),
        run(2, "expert-streaming", 9.0),
    ];
    let found = summarise(Arm::Auto, None, runs).unwrap();
    assert_eq!(found.decode_tps.unwrap().median, 5.0);
    assert_eq!((found.read_bytes_per_token, found.kernel_read_bytes_per_token), (Some(1000.0), Some(1100.0)));
    assert_eq!((found.hit_rate, found.peak_rss_bytes), (Some(0.75), Some(1002)));
    assert_eq!(found.token_ms_p50, Some(200.0));
    assert!((found.read_stall_ms_per_token.unwrap() - 10.0).abs() < 1e-9);
    assert_eq!(found.load_ms, Some(101.0));
    assert_eq!(found.efficiency, None, "no roofline was measured");
    assert_eq!(found.bound_by, Some(BoundBy::Disk), "known from the run alone");
    assert!(summarise(Arm::Auto, None, Vec::new()).is_none());
}

#[test]
fn arms_that_do_not_stream_have_no_bytes_of_ours() {
    let found = summarise(Arm::Mmap, None, vec![run(0, "mmap", 2.0)]).unwrap();
    assert_eq!((found.read_bytes_per_token, found.read_stall_ms_per_token), (None, None));
    assert_eq!(found.kernel_read_bytes_per_token, Some(1100.0));
}

#[test]
fn a_peak_beyond_the_budget_is_told() {
    let with = |rss: u64, group: Option<u64>| {
        let mut run = run(0, "expert-streaming", 3.0);
        run.arm.budget_bytes = Some(1 << 30);
        run.arm.peak_rss_bytes = Some(rss);
        Run { cgroup_peak_bytes: group, ..run }
    };
    assert_eq!(over_budget(&with((1 << 30) + (20 << 20), None)), None, "within what a plan may be wrong by");
    let why = over_budget(&with(1 << 20, Some(3 << 29))).unwrap();
    assert_eq!(why, "a run took 50.0% more memory than its budget of 1.00 GiB");
}

#[test]
fn ratios_are_taken_within_a_round() {
    let arm = |speeds: [f64; 3]| {
        let runs = speeds.iter().enumerate().map(|(round, tps)| run(round, "mmap", *tps)).collect();
        summarise(Arm::Mmap, None, runs).unwrap()
    };
    // The machine is four times as fast in the last round; the ratio stays.
    let found = compare(&arm([3.0, 6.0, 12.0]), &arm([1.0, 2.0, 4.0]));
    assert_eq!(found.decode_by_round, [3.0, 3.0, 3.0]);
    assert_eq!(found.prefill.unwrap().median, 3.0);
    let mut other = arm([1.0, 2.0, 4.0]);
    other.runs.remove(0);
    assert_eq!(
        compare(&arm([3.0, 6.0, 12.0]), &other).decode_by_round.len(),
        2,
        "a round without it has no ratio"
    );
}

#[test]
fn the_roofline_of_a_run_follows_its_mode() {
    // (1 - 0.75) * 1 MB at 1 MB/s: 250 ms, above the 50 ms of computing.
    let moe = roofline(&run(0, "expert-streaming", 3.0), &LIMITS, Some(1e6)).unwrap();
    assert!((moe.limit_tps - 4.0).abs() < 1e-9 && (moe.efficiency - 0.75).abs() < 1e-9);
    assert_eq!((moe.bound_by, moe.compute_source), (BoundBy::Disk, ComputeSource::SameRun));
    // (1 - 0.75) * 4 MB at 1 MB/s: a second.
    let dense = roofline(&run(0, "dense-streaming", 0.5), &LIMITS, Some(1e6)).unwrap();
    assert!((dense.efficiency - 0.5).abs() < 1e-9);
    assert_eq!(roofline(&run(0, "full-resident", 3.0), &LIMITS, Some(1e6)), None);
    assert_eq!(roofline(&run(0, "expert-streaming", 3.0), &LIMITS, None), None);
}

#[test]
fn forced_routes_that_use_fewer_experts_need_fewer_bytes() {
    // 100 lookups in 8 tokens: 12.5 a token, of 80 kB each; a quarter of them misses.
    let full = roofline(&run(0, "expert-streaming", 3.0), &LIMITS, Some(1e6)).unwrap();
    let mut half = run(0, "expert-streaming", 3.0);
    half.arm.decode.tokens *= 2;
    let half = roofline(&half, &LIMITS, Some(1e6)).unwrap();
    assert!((full.read_bytes - 250_000.0).abs() < 1e-6 && (half.read_bytes - 125_000.0).abs() < 1e-6);
}

#[test]
fn the_resident_arm_says_what_computing_takes() {
    let limits = Limits { resident_token_s: Some(0.5), ..LIMITS };
    let found = roofline(&run(0, "expert-streaming", 1.0), &limits, Some(1e6)).unwrap();
    assert_eq!((found.bound_by, found.compute_source), (BoundBy::Compute, ComputeSource::ResidentArm));
    assert!((found.efficiency - 0.5).abs() < 1e-9);
}

#[test]
fn most_runs_decide_what_bound_an_arm() {
    assert_eq!(most([BoundBy::Compute, BoundBy::Disk, BoundBy::Compute].into_iter()), Some(BoundBy::Compute));
    assert_eq!(most([BoundBy::Compute, BoundBy::Disk].into_iter()), Some(BoundBy::Disk));
    assert_eq!(most([BoundBy::Disk, BoundBy::Sync, BoundBy::Sync].into_iter()), Some(BoundBy::Sync));
    assert_eq!(most(std::iter::empty()), None);
}
