//! What happens when the ring breaks or its owner is dropped: everything is answered with an error, and no
//! memory is freed or handed back while the kernel may write to it.

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::required::skip_without;
use crate::{Arena, HugePages, PAGE, Priority, SourceFile};

const REQUESTS: usize = 6;
const DEPTH: usize = 4;

/// A reader that has taken its requests in, and pushed the first chunks, without having entered the kernel
/// yet; and the memory. `None` without io_uring.
fn loaded_reader() -> Option<(UringReader, Arc<Arena>)> {
    let mut reader = match open_uring(&ReaderConfig { depth: DEPTH, ..ReaderConfig::default() }) {
        Ok(reader) => reader,
        Err(refusal) => {
            skip_without("io_uring", refusal);
            return None;
        }
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[1; REQUESTS * PAGE]).unwrap();
    let file = SourceFile::open(file.path()).unwrap();
    let memory = Arena::new(REQUESTS * PAGE, HugePages::No).unwrap();
    for tag in 0..REQUESTS {
        reader.schedule.submit(page(tag, &file, &memory));
    }
    reader.exchange().unwrap();
    Some((reader, memory))
}

fn page(tag: usize, file: &Arc<SourceFile>, memory: &Arc<Arena>) -> ReadRequest {
    ReadRequest {
        tag: tag as u64,
        file: Arc::clone(file),
        offset: (tag * PAGE) as u64,
        len: PAGE,
        required: PAGE,
        dst: Arc::clone(memory),
        dst_offset: tag * PAGE,
        priority: Priority::Demand,
    }
}

#[test]
fn a_broken_ring_answers_everything_and_keeps_no_memory() {
    for flush in [false, true] {
        let Some((mut reader, memory)) = loaded_reader() else { return };
        assert!(!reader.ring.is_idle());
        if flush {
            reader.ring.flush().unwrap();
        }
        reader.settle(Err(io::Error::other("a test broke it")));
        assert!(reader.ring.is_idle());
        let mut completions = Vec::new();
        reader.drain(&mut completions);
        let mut tags: Vec<u64> = completions.iter().map(|completion| completion.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, [0, 1, 2, 3, 4, 5]);
        let error = ReadError::Stopped { reader: NAME, reason: "io_uring: a test broke it".to_owned() };
        assert!(completions.iter().all(|completion| completion.result == Err(error.clone())));
        assert_eq!(Arc::strong_count(&memory), 1);
        // And whoever comes later learns it at once.
        let file = tempfile::NamedTempFile::new().unwrap();
        reader.submit(vec![page(0, &SourceFile::open(file.path()).unwrap(), &memory)]);
        completions.clear();
        reader.wait(&mut completions);
        assert_eq!(completions[0].result, Err(error));
    }
}

#[test]
fn a_ring_that_was_given_up_is_never_entered() {
    let Some((mut reader, memory)) = loaded_reader() else { return };
    reader.settle(Err(io::Error::other("a test broke it")));
    // The entries that the kernel never took still lie in the queue; their memory is ours again.
    assert!(reader.ring.sleep(None).is_err());
    reader.promote(&[0]);
    reader.poll(&mut Vec::new());
    drop(reader);
    let mut bytes = vec![0; REQUESTS * PAGE];
    memory.copy_out(0, &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn chunks_that_the_kernel_has_not_seen_yet_do_not_keep_a_reader_from_ending() {
    let Some((reader, memory)) = loaded_reader() else { return };
    drop(reader);
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn a_forgotten_reader_keeps_the_memory_that_is_read_into() {
    let Some((mut reader, memory)) = loaded_reader() else { return };
    reader.ring.flush().unwrap();
    let memory = Arc::downgrade(&memory);
    std::mem::forget(reader);
    assert!(memory.strong_count() > 0);
}

#[test]
fn a_wait_with_little_patience_loses_nothing() {
    let Some((mut reader, _memory)) = loaded_reader() else { return };
    let mut completions = Vec::new();
    while reader.in_flight() > 0 {
        reader.wait_for(&mut completions, Duration::from_nanos(1));
    }
    let mut tags: Vec<u64> = completions.iter().map(|completion| completion.tag).collect();
    tags.sort_unstable();
    assert_eq!(tags, [0, 1, 2, 3, 4, 5]);
    assert!(completions.iter().all(|completion| completion.result.is_ok()));
}
