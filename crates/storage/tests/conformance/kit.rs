//! What all conformance tests need: files of known content, all readers, and the collection of answers.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hypura_storage::reader::{Latency, SimConfig};
use hypura_storage::{
    Arena, Completion, HugePages, PAGE, Priority, ReadError, ReadRequest, Reader, ReaderConfig, ReaderKind,
    SourceFile, open_reader,
};
use tempfile::NamedTempFile;

use crate::required::skip_without;

/// The kinds to test here: the simulated disk in and out of order, and the real readers that can be opened.
pub fn kinds() -> Vec<ReaderKind> {
    let disorderly = SimConfig {
        seed: 7,
        latency: Latency::Uniform { min: Duration::from_micros(10), max: Duration::from_millis(3) },
        out_of_order: true,
        short_read_probability: 0.3,
        ..SimConfig::default()
    };
    let mut kinds =
        vec![ReaderKind::Pread, ReaderKind::Sim(SimConfig::default()), ReaderKind::Sim(disorderly)];
    match open_reader(&ReaderKind::Uring, &ReaderConfig::default()) {
        Ok(_) => kinds.push(ReaderKind::Uring),
        Err(refusal) => skip_without("io_uring", refusal),
    }
    kinds
}

/// A reader of each kind with the same settings.
pub fn readers(config: &ReaderConfig) -> Vec<Box<dyn Reader>> {
    kinds().iter().map(|kind| open_reader(kind, config).unwrap().reader).collect()
}

/// Settings that make small files behave like large ones.
pub fn small_chunks() -> ReaderConfig {
    ReaderConfig { depth: 4, prefetch_depth: 2, chunk_bytes: 4 * PAGE, threads: 3, ..ReaderConfig::default() }
}

/// Bytes that differ from page to page and have no period that a misplaced read could hide behind.
pub fn content(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file on disk with the given bytes, opened.
pub fn file_of(bytes: &[u8]) -> (NamedTempFile, Arc<SourceFile>) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.as_file().sync_all().unwrap();
    let source = SourceFile::open(file.path()).unwrap();
    (file, source)
}

pub fn arena(bytes: usize) -> Arc<Arena> {
    Arena::new(bytes, HugePages::No).unwrap()
}

/// A demand read of whole pages to the start of the arena's page `at`.
pub fn request(
    tag: u64,
    file: &Arc<SourceFile>,
    offset: u64,
    len: usize,
    dst: &Arc<Arena>,
    at: usize,
) -> ReadRequest {
    ReadRequest {
        tag,
        file: Arc::clone(file),
        offset,
        len,
        required: len,
        dst: Arc::clone(dst),
        dst_offset: at,
        priority: Priority::Demand,
    }
}

/// Waits for everything; each tag must be answered once.
pub fn answers(reader: &mut dyn Reader) -> HashMap<u64, Result<(), ReadError>> {
    let mut completions = Vec::new();
    reader.drain(&mut completions);
    assert_eq!(reader.in_flight(), 0);
    by_tag(completions)
}

pub fn by_tag(completions: Vec<Completion>) -> HashMap<u64, Result<(), ReadError>> {
    let mut answers = HashMap::new();
    for Completion { tag, result } in completions {
        assert!(answers.insert(tag, result).is_none(), "request {tag} was answered twice");
    }
    answers
}

/// The bytes of an arena.
pub fn bytes_of(arena: &Arena, at: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    arena.copy_out(at, &mut bytes);
    bytes
}

/// The error number of a failed device, the same on Linux and macOS.
pub const EIO: i32 = 5;
