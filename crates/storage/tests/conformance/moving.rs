//! Readers with reads in flight that change threads, end or are forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;

use hypura_storage::{Arena, OpenMode, PAGE, Reader, ReaderConfig, SourceFile};
use tempfile::NamedTempFile;

use crate::kit::{answers, arena, bytes_of, content, file_of, readers, request};

const REQUESTS: usize = 24;
const LEN: usize = 64 * PAGE;

/// Less room at the device than chunks, so that a waiter must also submit.
fn little_room() -> ReaderConfig {
    ReaderConfig { depth: 8, threads: 4, chunk_bytes: LEN / 2, ..ReaderConfig::default() }
}

/// The same file, read directly and through the page cache.
fn both_ways(bytes: &[u8]) -> (NamedTempFile, [Arc<SourceFile>; 2]) {
    let (keep, direct) = file_of(bytes);
    let buffered = SourceFile::open_as(keep.path(), OpenMode::Buffered).unwrap();
    (keep, [direct, buffered])
}

fn load(reader: &mut dyn Reader, file: &Arc<SourceFile>, memory: &Arc<Arena>) {
    let all = (0..REQUESTS).map(|tag| request(tag as u64, file, (tag * LEN) as u64, LEN, memory, tag * LEN));
    reader.submit(all.collect());
}

fn check(reader: &mut dyn Reader, memory: &Arena, bytes: &[u8]) {
    let answers = answers(reader);
    assert_eq!(answers.len(), REQUESTS);
    for (tag, answer) in answers {
        assert_eq!(answer, Ok(()), "{}: {tag}", reader.name());
    }
    assert!(bytes_of(memory, 0, bytes.len()) == bytes, "{}", reader.name());
}

#[test]
fn the_thread_that_submitted_may_end_before_another_waits() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for mut reader in readers(&little_room()) {
            for _ in 0..20 {
                let memory = arena(bytes.len());
                reader = thread::scope(|scope| {
                    let submit = scope.spawn(|| {
                        load(reader.as_mut(), file, &memory);
                        reader
                    });
                    submit.join().unwrap()
                });
                check(reader.as_mut(), &memory, &bytes);
            }
        }
    }
}

#[test]
fn the_thread_that_submitted_may_compute_while_another_waits() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for mut reader in readers(&little_room()) {
            let (memory, over) = (&arena(bytes.len()), &AtomicBool::new(false));
            thread::scope(|scope| {
                let (give, take) = channel();
                scope.spawn(move || {
                    load(reader.as_mut(), file, memory);
                    give.send(reader).unwrap();
                    // Computing without a system call: the kernel must not need this thread's help for long.
                    while !over.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
                let mut reader = take.recv().unwrap();
                check(reader.as_mut(), memory, &bytes);
                over.store(true, SeqCst);
            });
        }
    }
}

#[test]
fn the_thread_that_submitted_may_sleep_while_another_waits() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for mut reader in readers(&little_room()) {
            let memory = arena(bytes.len());
            thread::scope(|scope| {
                let (give, take) = channel();
                let (release, released) = channel::<()>();
                let memory = &memory;
                scope.spawn(move || {
                    load(reader.as_mut(), file, memory);
                    give.send(reader).unwrap();
                    // Ends when the other side drops its end.
                    assert!(released.recv().is_err());
                });
                let mut reader = take.recv().unwrap();
                check(reader.as_mut(), memory, &bytes);
                drop(release);
            });
        }
    }
}

#[test]
fn a_reader_may_change_threads_at_every_call() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for mut reader in readers(&little_room()) {
            let memory = arena(bytes.len());
            load(reader.as_mut(), file, &memory);
            let mut completions = Vec::new();
            while reader.in_flight() > 0 {
                thread::scope(|scope| scope.spawn(|| reader.wait(&mut completions)).join().unwrap());
            }
            assert_eq!(completions.len(), REQUESTS, "{}", reader.name());
            assert!(completions.iter().all(|completion| completion.result.is_ok()), "{completions:?}");
            assert!(bytes_of(&memory, 0, bytes.len()) == bytes, "{}", reader.name());
        }
    }
}

#[test]
fn after_a_drop_in_any_thread_nothing_writes_any_more() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for elsewhere in [false, true] {
            for mut reader in readers(&little_room()) {
                let name = reader.name();
                let memory = arena(bytes.len());
                load(reader.as_mut(), file, &memory);
                if elsewhere {
                    thread::spawn(move || drop(reader)).join().unwrap();
                } else {
                    drop(reader);
                }
                assert_eq!(Arc::strong_count(&memory), 1, "{name} kept memory");
                memory.fill(0..bytes.len(), 0x11);
                // As much again, through the same disk and page cache, so that late writes would have had
                // their time.
                for mut other in readers(&little_room()) {
                    let memory = arena(bytes.len());
                    load(other.as_mut(), file, &memory);
                    check(other.as_mut(), &memory, &bytes);
                }
                assert!(
                    bytes_of(&memory, 0, bytes.len()).iter().all(|&byte| byte == 0x11),
                    "{name} wrote late"
                );
            }
        }
    }
}

#[test]
fn a_forgotten_reader_leaks_the_memory_that_it_reads_into() {
    let bytes = content(REQUESTS * LEN);
    let (_keep, files) = both_ways(&bytes);
    for file in &files {
        for mut reader in readers(&little_room()) {
            let memory = arena(bytes.len());
            load(reader.as_mut(), file, &memory);
            let (name, held) = (reader.name(), Arc::downgrade(&memory));
            drop(memory);
            std::mem::forget(reader);
            // Threads go on with what they have, and give it up; nothing else may free it before it was read.
            assert!(name == "pread" || held.strong_count() > 0, "{name} freed memory that is read into");
        }
    }
}
