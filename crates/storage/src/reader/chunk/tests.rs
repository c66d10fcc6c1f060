//! What follows a read: every outcome that a system call can have.

use std::io::Write as _;

use super::*;
use crate::{HugePages, OpenMode, PAGE};

/// A chunk of `len` bytes, at `start` of a request, on a file that is read buffered or directly.
fn chunk(start: usize, len: usize, required: usize, mode: OpenMode) -> Chunk {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[1; 64 * PAGE]).unwrap();
    let request = ReadRequest {
        tag: 1,
        file: SourceFile::open_as(file.path(), mode).unwrap(),
        offset: 8 * PAGE as u64,
        len: start + len,
        required,
        dst: Arena::new(start + len, HugePages::No).unwrap(),
        dst_offset: 0,
        priority: Priority::Demand,
    };
    Chunk::new(0, &request, start, len, Priority::Demand)
}

fn errno(number: i32) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(number))
}

#[test]
fn a_full_read_is_over() {
    let mut chunk = chunk(0, 2 * PAGE, 2 * PAGE, OpenMode::Direct);
    assert_eq!(chunk.advance(Ok(2 * PAGE)), Step::Over(Ok(())));
    assert_eq!(chunk.counts().bytes, 2 * PAGE as u64);
}

#[test]
fn a_short_read_that_has_what_is_required_is_over() {
    let mut chunk = chunk(0, 2 * PAGE, PAGE + 7, OpenMode::Direct);
    assert_eq!(chunk.advance(Ok(PAGE + 7)), Step::Over(Ok(())));
    assert_eq!(chunk.counts().short_reads, 0);
}

#[test]
fn short_reads_continue_where_they_ended() {
    let mut chunk = chunk(PAGE, 4 * PAGE, 5 * PAGE, OpenMode::Buffered);
    assert_eq!(chunk.position(), 9 * PAGE as u64);
    assert_eq!(chunk.advance(Ok(100)), Step::Again);
    assert_eq!((chunk.position(), chunk.dst_position()), (9 * PAGE as u64 + 100, PAGE + 100));
    assert_eq!(chunk.remaining(), 4 * PAGE - 100);
    assert_eq!(chunk.advance(Ok(4 * PAGE - 100)), Step::Over(Ok(())));
}

#[test]
fn a_direct_read_continues_at_a_whole_block() {
    let mut chunk = chunk(0, 4 * PAGE, 4 * PAGE, OpenMode::Direct);
    if !chunk.file().is_direct() {
        return;
    }
    assert_eq!(chunk.advance(Ok(2 * PAGE + 100)), Step::Again);
    assert_eq!(chunk.position(), 10 * PAGE as u64);
    // The same 100 bytes again: that is the end of the file.
    let Step::Over(Err(ReadError::Truncated { got, len, offset, .. })) = chunk.advance(Ok(100)) else {
        panic!("the end of the file was not seen")
    };
    assert_eq!((got, len, offset), (2 * PAGE + 100, 4 * PAGE, 8 * PAGE as u64));
}

#[test]
fn nothing_read_is_the_end_of_the_file() {
    let mut chunk = chunk(PAGE, PAGE, 2 * PAGE, OpenMode::Buffered);
    assert_eq!(chunk.advance(Ok(5)), Step::Again);
    let Step::Over(Err(ReadError::Truncated { got, .. })) = chunk.advance(Ok(0)) else {
        panic!("the end of the file was not seen")
    };
    assert_eq!(got, PAGE + 5);
}

#[test]
fn interruptions_are_retried_but_not_for_ever() {
    let mut chunk = chunk(0, PAGE, PAGE, OpenMode::Direct);
    for _ in 0..MAX_RETRIES / 2 {
        assert_eq!(chunk.advance(errno(libc::EINTR)), Step::Again);
        assert_eq!(chunk.advance(errno(libc::EAGAIN)), Step::Again);
    }
    let Step::Over(Err(error)) = chunk.advance(errno(libc::EAGAIN)) else { panic!("retried for ever") };
    assert!(matches!(error, ReadError::Io { errno: libc::EAGAIN, .. }), "{error:?}");
}

#[test]
fn other_errors_end_the_chunk_with_their_number() {
    for number in [libc::EIO, libc::EINVAL, libc::EBADF, libc::ENOMEM] {
        let mut chunk = chunk(0, PAGE, PAGE, OpenMode::Direct);
        let expected = chunk.io_error(number);
        assert_eq!(chunk.advance(errno(number)), Step::Over(Err(expected)));
    }
}
