//! What every reader promises, with healthy files and with files that misbehave.

use std::sync::Arc;

use hypura_storage::{Arena, PAGE, Priority, ReadError, ReadRequest, Reader, ReaderConfig, SourceFile};
use proptest::prelude::*;

use crate::kit::{answers, arena, by_tag, bytes_of, content, file_of, readers, request, small_chunks};

/// An aligned range that starts inside a file of `pages` pages (and a bit) and may end beyond it.
fn ranges(pages: usize) -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    prop::collection::vec((0..pages, 1..40_usize, any::<bool>()), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Required bytes arrive, and nothing outside the destinations is touched.
    #[test]
    fn random_ranges_arrive_in_place(ranges in ranges(100), tail in 1..PAGE, chunk_pages in 1..9_usize, depth in 1..9_usize) {
        let bytes = content(100 * PAGE + tail);
        let (_keep, file) = file_of(&bytes);
        let config = ReaderConfig { depth, chunk_bytes: chunk_pages * PAGE, threads: depth, ..ReaderConfig::default() };
        for mut reader in readers(&config) {
            let total: usize = ranges.iter().map(|&(_, pages, _)| (pages + 1) * PAGE).sum();
            let memory = arena(total);
            memory.fill(0..total, 0xCC);
            let (mut requests, mut at) = (Vec::new(), 0);
            for (tag, &(start, pages, prefetch)) in ranges.iter().enumerate() {
                let (offset, len) = (start * PAGE, pages * PAGE);
                let required = len.min(bytes.len() - offset);
                let priority = if prefetch { Priority::Prefetch } else { Priority::Demand };
                requests.push(ReadRequest { required, priority, ..request(tag as u64, &file, offset as u64, len, &memory, at) });
                at += len + PAGE;
            }
            let expected = requests.clone();
            reader.submit(requests);
            let answers = answers(reader.as_mut());
            prop_assert_eq!(answers.len(), expected.len());
            for request in &expected {
                prop_assert_eq!(&answers[&request.tag], &Ok(()), "{}", reader.name());
                let start = request.offset as usize;
                let got = bytes_of(&memory, request.dst_offset, request.required);
                prop_assert!(got == bytes[start..start + request.required], "{}: wrong bytes", reader.name());
                let guard = bytes_of(&memory, request.dst_offset + request.len, PAGE);
                prop_assert!(guard.iter().all(|&byte| byte == 0xCC), "{}: wrote too far", reader.name());
            }
            let stats = reader.stats();
            prop_assert_eq!(stats.bytes, expected.iter().map(|request| request.required as u64).sum::<u64>());
            prop_assert!(stats.device_bytes >= stats.bytes);
            prop_assert_eq!(stats.completed, expected.len() as u64);
        }
    }
}

#[test]
fn the_tail_of_a_file_is_read_with_a_whole_page() {
    let bytes = content(3 * PAGE + 10);
    let (_keep, file) = file_of(&bytes);
    for mut reader in readers(&small_chunks()) {
        let memory = arena(PAGE);
        reader.submit(vec![ReadRequest {
            required: 10,
            ..request(1, &file, 3 * PAGE as u64, PAGE, &memory, 0)
        }]);
        assert_eq!(answers(reader.as_mut())[&1], Ok(()), "{}", reader.name());
        assert_eq!(bytes_of(&memory, 0, 10), bytes[3 * PAGE..], "{}", reader.name());
    }
}

#[test]
fn missing_bytes_are_an_error_that_counts_those_that_are_there() {
    let (_keep, file) = file_of(&content(10 * PAGE + 10));
    for mut reader in readers(&small_chunks()) {
        let memory = arena(16 * PAGE);
        let across = ReadRequest {
            required: 8 * PAGE + 11,
            ..request(1, &file, 2 * PAGE as u64, 9 * PAGE, &memory, 0)
        };
        let beyond = request(2, &file, 100 * PAGE as u64, PAGE, &memory, 10 * PAGE);
        reader.submit(vec![across, beyond]);
        let answers = answers(reader.as_mut());
        let truncated =
            |offset: u64, len, got| Err(ReadError::Truncated { path: file.path().clone(), offset, len, got });
        assert_eq!(
            answers[&1],
            truncated(2 * PAGE as u64, 8 * PAGE + 11, 8 * PAGE + 10),
            "{}",
            reader.name()
        );
        assert_eq!(answers[&2], truncated(100 * PAGE as u64, PAGE, 0), "{}", reader.name());
        assert_eq!(reader.stats().failed, 2);
    }
}

#[test]
fn a_file_that_shrinks_under_the_reader_is_noticed() {
    for mut reader in readers(&small_chunks()) {
        let bytes = content(64 * PAGE);
        let (keep, file) = file_of(&bytes);
        keep.as_file().set_len(20 * PAGE as u64 + 5).unwrap();
        let memory = arena(64 * PAGE);
        reader.submit(vec![
            request(1, &file, 0, 64 * PAGE, &memory, 0),
            request(2, &file, PAGE as u64, PAGE, &arena(PAGE), 0),
        ]);
        let answers = answers(reader.as_mut());
        let expected =
            ReadError::Truncated { path: file.path().clone(), offset: 0, len: 64 * PAGE, got: 20 * PAGE + 5 };
        assert_eq!(answers[&1], Err(expected), "{}", reader.name());
        assert_eq!(answers[&2], Ok(()), "{}", reader.name());
        assert_eq!(file.current_len().unwrap(), 20 * PAGE as u64 + 5);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_of_the_system_names_file_place_and_cause() {
    // The memory of this process is a file whose first pages cannot be read (EIO): nothing is ever mapped
    // there.
    let file = SourceFile::open("/proc/self/mem").unwrap();
    assert!(!file.is_direct());
    for mut reader in readers(&small_chunks()) {
        let memory = arena(PAGE);
        reader.submit(vec![request(1, &file, 0, PAGE, &memory, 0)]);
        let error = answers(reader.as_mut())[&1].clone().unwrap_err();
        assert!(
            matches!(error, ReadError::Io { errno: crate::kit::EIO, offset: 0, len: PAGE, .. }),
            "{}: {error:?}",
            reader.name()
        );
        let text = error.to_string();
        assert!(text.contains("/proc/self/mem") && text.contains("Input/output error"), "{text}");
    }
}

#[test]
fn impossible_requests_are_refused_without_reading() {
    let (_keep, file) = file_of(&content(8 * PAGE));
    for mut reader in readers(&small_chunks()) {
        let memory = arena(2 * PAGE);
        let good = request(0, &file, 0, PAGE, &memory, 0);
        let mut wrong = vec![
            ReadRequest { required: PAGE + 1, ..good.clone() },
            ReadRequest { dst_offset: 2 * PAGE, ..good.clone() },
            ReadRequest { dst_offset: usize::MAX, ..good.clone() },
            ReadRequest { len: usize::MAX, ..good.clone() },
            ReadRequest { offset: u64::MAX - 5, ..good.clone() },
        ];
        if file.is_direct() {
            wrong.push(ReadRequest { offset: 1, ..good.clone() });
            wrong.push(ReadRequest { len: PAGE - 1, required: 1, ..good.clone() });
        }
        let count = wrong.len() as u64;
        for (tag, request) in wrong.iter_mut().enumerate() {
            request.tag = tag as u64;
        }
        reader.submit(wrong);
        for (tag, answer) in answers(reader.as_mut()) {
            assert!(matches!(answer, Err(ReadError::Invalid { .. })), "{tag}: {answer:?}");
        }
        assert_eq!((reader.stats().failed, reader.stats().device_reads), (count, 0));
    }
}

#[test]
fn a_request_that_needs_nothing_completes_without_reading() {
    let (_keep, file) = file_of(&[]);
    for mut reader in readers(&small_chunks()) {
        let memory = arena(PAGE);
        reader.submit(vec![ReadRequest { required: 0, ..request(9, &file, 0, PAGE, &memory, 0) }]);
        assert_eq!(answers(reader.as_mut())[&9], Ok(()));
        assert_eq!(reader.stats().device_reads, 0);
    }
}

#[test]
fn waiting_for_nothing_returns() {
    for mut reader in readers(&small_chunks()) {
        let mut completions = Vec::new();
        reader.wait(&mut completions);
        reader.poll(&mut completions);
        assert!(completions.is_empty());
        assert_eq!(reader.quiesce(&mut completions), Vec::<u64>::new());
    }
}

#[test]
fn a_huge_request_is_split_and_completes_once() {
    let bytes = content(512 * PAGE + 77);
    let (_keep, file) = file_of(&bytes);
    for mut reader in readers(&small_chunks()) {
        let memory = arena(513 * PAGE);
        reader.submit(vec![ReadRequest {
            required: bytes.len(),
            ..request(1, &file, 0, 513 * PAGE, &memory, 0)
        }]);
        assert_eq!(answers(reader.as_mut())[&1], Ok(()));
        assert!(bytes_of(&memory, 0, bytes.len()) == bytes, "{}", reader.name());
        assert!(reader.stats().device_reads >= 129, "{}: {:?}", reader.name(), reader.stats());
    }
}

#[test]
fn ten_thousand_requests_are_all_answered() {
    let bytes = content(256 * PAGE);
    let (_keep, file) = file_of(&bytes);
    for mut reader in readers(&ReaderConfig::default()) {
        let memory = arena(10_000 * PAGE);
        let page = |tag: usize| tag * 7 % 256;
        let all = (0..10_000)
            .map(|tag| request(tag as u64, &file, (page(tag) * PAGE) as u64, PAGE, &memory, tag * PAGE));
        reader.submit(all.collect());
        let answers = answers(reader.as_mut());
        assert_eq!(answers.len(), 10_000);
        for tag in 0..10_000 {
            assert_eq!(answers[&(tag as u64)], Ok(()));
            let start = page(tag) * PAGE;
            assert!(
                bytes_of(&memory, tag * PAGE, PAGE) == bytes[start..start + PAGE],
                "{}: {tag}",
                reader.name()
            );
        }
    }
}

/// Submits many requests of eight chunks each to a reader with little room.
fn flood(reader: &mut dyn Reader, file: &Arc<SourceFile>, memory: &Arc<Arena>) -> u64 {
    let len = 32 * PAGE;
    let requests: Vec<_> = (0..memory.len() / len)
        .map(|tag| ReadRequest {
            priority: if tag % 2 == 0 { Priority::Demand } else { Priority::Prefetch },
            ..request(tag as u64, file, 0, len, memory, tag * len)
        })
        .collect();
    let count = requests.len() as u64;
    reader.submit(requests);
    count
}

#[test]
fn every_request_is_either_cancelled_or_completed() {
    let (_keep, file) = file_of(&content(32 * PAGE));
    for mut reader in readers(&small_chunks()) {
        let memory = arena(64 * 32 * PAGE);
        let count = flood(reader.as_mut(), &file, &memory);
        let mut cancelled = reader.cancel_queued(Some(&[3, 5, 7, 62, 63, 1000]));
        assert!(cancelled.iter().all(|tag| [3, 5, 7, 62, 63].contains(tag)), "{cancelled:?}");
        let mut completions = Vec::new();
        cancelled.extend(reader.quiesce(&mut completions));
        assert_eq!(reader.in_flight(), 0);
        let mut tags: Vec<u64> = by_tag(completions).into_keys().chain(cancelled.iter().copied()).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..count).collect::<Vec<_>>(), "{}", reader.name());
        let stats = reader.stats();
        assert_eq!((stats.requests, stats.cancelled), (count, cancelled.len() as u64));
        assert_eq!(Arc::strong_count(&memory), 1, "{} kept memory of answered requests", reader.name());
    }
}

#[test]
fn dropping_a_reader_gives_up_all_memory_at_once() {
    let (_keep, file) = file_of(&content(32 * PAGE));
    for mut reader in readers(&small_chunks()) {
        let (name, memory) = (reader.name(), arena(64 * 32 * PAGE));
        flood(reader.as_mut(), &file, &memory);
        drop(reader);
        assert_eq!(Arc::strong_count(&memory), 1, "{name}");
        assert_eq!(Arc::strong_count(&file), 1, "{name}");
    }
}

#[test]
fn memory_is_given_up_before_its_completion_is_seen() {
    let (_keep, file) = file_of(&content(4 * PAGE));
    for mut reader in readers(&small_chunks()) {
        for _ in 0..200 {
            let memory = arena(4 * PAGE);
            reader.submit(vec![request(1, &file, 0, 4 * PAGE, &memory, 0)]);
            let mut completions = Vec::new();
            while completions.is_empty() {
                reader.wait(&mut completions);
            }
            assert_eq!(Arc::strong_count(&memory), 1, "{}", reader.name());
        }
    }
}

#[test]
fn polling_alone_gets_everything_done() {
    let (_keep, file) = file_of(&content(32 * PAGE));
    for mut reader in readers(&small_chunks()) {
        let memory = arena(8 * 32 * PAGE);
        let count = flood(reader.as_mut(), &file, &memory);
        let mut completions = Vec::new();
        while reader.in_flight() > 0 {
            reader.poll(&mut completions);
            std::thread::yield_now();
        }
        assert_eq!(by_tag(completions).len() as u64, count);
    }
}

#[test]
fn a_reader_outlives_many_files() {
    for mut reader in readers(&small_chunks()) {
        for round in 0..200_usize {
            let bytes = content(PAGE + round);
            let (_keep, file) = file_of(&bytes);
            let memory = arena(2 * PAGE);
            reader.submit(vec![ReadRequest {
                required: bytes.len(),
                ..request(1, &file, 0, 2 * PAGE, &memory, 0)
            }]);
            assert_eq!(answers(reader.as_mut())[&1], Ok(()));
            assert!(bytes_of(&memory, 0, bytes.len()) == bytes, "{}: round {round}", reader.name());
        }
    }
}
