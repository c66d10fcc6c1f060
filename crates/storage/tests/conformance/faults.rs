//! The simulated disk: order, determinism and faults. Virtual time makes exact expectations possible.

use std::sync::Arc;
use std::time::Duration;

use hypura_storage::reader::{Eio, Latency, SimConfig, SimReader, Stall};
use hypura_storage::{
    Arena, Completion, PAGE, Priority, ReadError, ReadRequest, Reader, ReaderConfig, SourceFile,
};

use crate::kit::{EIO, answers, arena, bytes_of, content, file_of, request, small_chunks};

fn one_at_a_time() -> ReaderConfig {
    ReaderConfig { depth: 1, ..ReaderConfig::default() }
}

fn pages(file: &Arc<SourceFile>, memory: &Arc<Arena>, count: usize) -> Vec<ReadRequest> {
    (0..count)
        .map(|page| request(page as u64, file, (page * PAGE) as u64, PAGE, memory, page * PAGE))
        .collect()
}

fn order(reader: &mut SimReader) -> Vec<u64> {
    let mut completions = Vec::new();
    reader.drain(&mut completions);
    completions.iter().map(|completion| completion.tag).collect()
}

#[test]
fn demand_overtakes_prefetches_that_have_not_started() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let mut reader = SimReader::new(SimConfig::default(), &one_at_a_time());
    let mut requests = pages(&file, &memory, 6);
    for request in &mut requests[..4] {
        request.priority = Priority::Prefetch;
    }
    reader.submit(requests.drain(..4).collect());
    // The first prefetch is at the device now; the others are not.
    reader.poll(&mut Vec::new());
    reader.submit(requests);
    reader.promote(&[3]);
    assert_eq!(order(&mut reader), [0, 4, 5, 3, 1, 2]);
}

#[test]
fn prefetches_leave_room_at_the_device() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let config = ReaderConfig { depth: 4, prefetch_depth: 2, ..ReaderConfig::default() };
    let mut reader = SimReader::new(SimConfig::default(), &config);
    let mut requests = pages(&file, &memory, 8);
    for request in &mut requests[..6] {
        request.priority = Priority::Prefetch;
    }
    let demands = requests.split_off(6);
    reader.submit(requests);
    reader.poll(&mut Vec::new());
    reader.submit(demands);
    // Only prefetches 0 and 1 were ahead of the demand reads.
    assert_eq!(order(&mut reader)[..4], [0, 1, 6, 7]);
}

#[test]
fn only_what_has_not_started_can_be_cancelled() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let mut reader = SimReader::new(SimConfig::default(), &one_at_a_time());
    reader.submit(pages(&file, &memory, 5));
    reader.poll(&mut Vec::new());
    assert_eq!(reader.cancel_queued(Some(&[0, 2, 4])), [2, 4]);
    assert_eq!(order(&mut reader), [0, 1, 3]);
    assert_eq!(reader.stats().cancelled, 2);
}

fn stormy(seed: u64) -> SimConfig {
    SimConfig {
        seed,
        latency: Latency::Uniform { min: Duration::from_micros(5), max: Duration::from_millis(5) },
        out_of_order: true,
        short_read_probability: 0.5,
        eio: Eio::Probability(0.05),
        corruption_probability: 0.2,
        ..SimConfig::default()
    }
}

fn storm(seed: u64, file: &Arc<SourceFile>) -> (Vec<Completion>, Vec<u8>, Duration) {
    let memory = arena(64 * PAGE);
    let mut reader = SimReader::new(stormy(seed), &small_chunks());
    reader.submit(
        (0..8).map(|tag| request(tag, file, 0, 8 * PAGE, &memory, tag as usize * 8 * PAGE)).collect(),
    );
    let mut completions = Vec::new();
    reader.drain(&mut completions);
    (completions, bytes_of(&memory, 0, 64 * PAGE), reader.now())
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    assert!(storm(1, &file) == storm(1, &file));
    let tags = |seed| storm(seed, &file).0.iter().map(|completion| completion.tag).collect::<Vec<_>>();
    assert!((2..10).any(|seed| tags(seed) != tags(1)), "eight seeds, one order");
    assert_ne!(tags(1), [0, 1, 2, 3, 4, 5, 6, 7], "nothing was out of order");
}

#[test]
fn eio_hits_the_calls_it_was_told_to() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let failed = |eio| {
        let memory = arena(8 * PAGE);
        let mut reader = SimReader::new(SimConfig { eio, ..SimConfig::default() }, &one_at_a_time());
        reader.submit(pages(&file, &memory, 6));
        let mut failed: Vec<u64> = answers(&mut reader)
            .into_iter()
            .filter_map(|(tag, answer)| {
                let error = answer.err()?;
                assert!(matches!(error, ReadError::Io { errno: EIO, .. }), "{error:?}");
                Some(tag)
            })
            .collect();
        failed.sort_unstable();
        assert_eq!(reader.injected().eio, failed.len() as u64);
        failed
    };
    assert_eq!(failed(Eio::Never), Vec::<u64>::new());
    assert_eq!(failed(Eio::OnceAt(2)), [2]);
    assert_eq!(failed(Eio::ForeverFrom(3)), [3, 4, 5]);
    assert_eq!(failed(Eio::Probability(1.0)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn short_reads_are_continued_until_everything_is_there() {
    let bytes = content(40 * PAGE + 123);
    let (_keep, file) = file_of(&bytes);
    let memory = arena(41 * PAGE);
    let sim = SimConfig { short_read_probability: 0.9, ..SimConfig::default() };
    let mut reader = SimReader::new(sim, &ReaderConfig::default());
    reader.submit(vec![ReadRequest { required: bytes.len(), ..request(1, &file, 0, 41 * PAGE, &memory, 0) }]);
    assert_eq!(answers(&mut reader)[&1], Ok(()));
    assert!(bytes_of(&memory, 0, bytes.len()) == bytes);
    assert!(reader.injected().short_reads > 0);
    assert_eq!(reader.stats().short_reads, reader.injected().short_reads);
}

#[test]
fn corruption_flips_one_bit_and_says_nothing() {
    let bytes = content(PAGE);
    let (_keep, file) = file_of(&bytes);
    let memory = arena(PAGE);
    let sim = SimConfig { corruption_probability: 1.0, ..SimConfig::default() };
    let mut reader = SimReader::new(sim, &one_at_a_time());
    reader.submit(pages(&file, &memory, 1));
    assert_eq!(answers(&mut reader)[&0], Ok(()));
    let flipped: u32 =
        bytes_of(&memory, 0, PAGE).iter().zip(&bytes).map(|(got, want)| (got ^ want).count_ones()).sum();
    assert_eq!((flipped, reader.injected().corruptions), (1, 1));
}

#[test]
fn time_is_virtual_and_exact() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let sim = SimConfig {
        latency: Latency::Fixed(Duration::from_secs(1)),
        stall: Some(Stall { at: 1, delay: Duration::from_secs(3600) }),
        ..SimConfig::default()
    };
    let mut reader = SimReader::new(sim, &one_at_a_time());
    reader.submit(pages(&file, &memory, 3));
    assert_eq!(order(&mut reader), [0, 1, 2]);
    assert_eq!(reader.now(), Duration::from_secs(3603));
    assert_eq!(reader.stats().busy, Duration::from_secs(3603));
    assert_eq!(reader.injected().stalls, 1);
}

#[test]
fn bandwidth_is_shared_by_all_reads() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let sim = SimConfig {
        latency: Latency::Fixed(Duration::ZERO),
        bytes_per_s: Some(2 * PAGE as u64),
        ..SimConfig::default()
    };
    let mut reader = SimReader::new(sim, &ReaderConfig::default());
    reader.submit(pages(&file, &memory, 8));
    assert_eq!(order(&mut reader).len(), 8);
    assert_eq!(reader.now(), Duration::from_secs(4));
}

#[test]
fn a_destination_is_poisoned_until_its_read_ends() {
    let bytes = content(PAGE);
    let (_keep, file) = file_of(&bytes);
    let memory = arena(PAGE);
    let mut reader = SimReader::new(SimConfig::default(), &one_at_a_time());
    reader.submit(pages(&file, &memory, 1));
    reader.poll(&mut Vec::new());
    assert!(bytes_of(&memory, 0, PAGE).iter().all(|&byte| byte == 0xA5));
    assert_eq!(answers(&mut reader)[&0], Ok(()));
    assert!(bytes_of(&memory, 0, PAGE) == bytes);
}

#[test]
fn a_wait_ends_when_its_patience_does_and_the_read_lands_later() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    let memory = arena(8 * PAGE);
    let sim =
        SimConfig { stall: Some(Stall { at: 0, delay: Duration::from_secs(60) }), ..SimConfig::default() };
    let mut reader = SimReader::new(sim, &one_at_a_time());
    reader.submit(pages(&file, &memory, 1));
    let mut completions = Vec::new();
    for second in 1..=59 {
        reader.wait_for(&mut completions, Duration::from_secs(1));
        assert_eq!((completions.len(), reader.in_flight()), (0, 1), "after {second} s");
    }
    reader.wait(&mut completions);
    assert_eq!((completions.len(), reader.in_flight()), (1, 0));
    // Nothing is in flight: no reason to sleep.
    reader.wait_for(&mut completions, Duration::from_secs(3600));
    assert!(reader.now() < Duration::from_secs(62));
}
