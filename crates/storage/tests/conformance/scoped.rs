//! `read_scoped` over every reader: arbitrary ranges into borrowed memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use hypura_storage::reader::{Eio, SimConfig, SimReader};
use hypura_storage::{PAGE, ReadError, Reader, ReaderConfig, ScopedRead, read_scoped};
use proptest::prelude::*;

use crate::kit::{EIO, arena, content, file_of, readers, request, small_chunks};

fn cells(len: usize) -> Vec<AtomicU8> {
    (0..len).map(|_| AtomicU8::new(0xCC)).collect()
}

fn values(cells: &[AtomicU8]) -> Vec<u8> {
    cells.iter().map(|cell| cell.load(Relaxed)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_range_arrives_anywhere(
        ranges in prop::collection::vec((0..1_400_000_usize, 0..900_000_usize, 0..200_usize), 1..8),
    ) {
        let bytes = content(2_300_000 + 17);
        let (_keep, file) = file_of(&bytes);
        for mut reader in readers(&ReaderConfig::default()) {
            let memory = cells(ranges.iter().map(|&(_, len, gap)| len + gap).sum());
            let (mut rest, mut reads) = (&memory[..], Vec::new());
            for &(start, len, gap) in &ranges {
                let (dst, tail) = rest[gap..].split_at(len);
                reads.push(ScopedRead { file: file.clone(), offset: start as u64, dst });
                rest = tail;
            }
            let mut seen = 0;
            prop_assert_eq!(read_scoped(reader.as_mut(), &reads, &mut |bytes| seen += bytes), Ok(()));
            prop_assert_eq!(seen, ranges.iter().map(|&(_, len, _)| len as u64).sum::<u64>());
            let mut at = 0;
            let got = values(&memory);
            for &(start, len, gap) in &ranges {
                prop_assert!(got[at..at + gap].iter().all(|&byte| byte == 0xCC), "{}: wrote into a gap", reader.name());
                prop_assert!(got[at + gap..at + gap + len] == bytes[start..start + len], "{}: {start} {len}", reader.name());
                at += gap + len;
            }
        }
    }
}

#[test]
fn aligned_memory_is_read_directly() {
    let bytes = content(64 * PAGE);
    let (_keep, file) = file_of(&bytes);
    for mut reader in readers(&small_chunks()) {
        let memory = arena(64 * PAGE);
        let reads = [ScopedRead { file: file.clone(), offset: 0, dst: memory.cells() }];
        assert_eq!(read_scoped(reader.as_mut(), &reads, &mut |_| ()), Ok(()));
        assert!(values(memory.cells()) == bytes);
        assert_eq!(reader.stats().bytes, bytes.len() as u64, "{}: no byte was read twice", reader.name());
    }
}

#[test]
fn a_range_beyond_the_file_is_an_error() {
    let (_keep, file) = file_of(&content(1_000_000));
    for mut reader in readers(&ReaderConfig::default()) {
        let memory = cells(900_000);
        let reads = [
            ScopedRead { file: file.clone(), offset: 3, dst: &memory[..400_000] },
            ScopedRead { file: file.clone(), offset: 600_001, dst: &memory[400_000..] },
        ];
        let error = read_scoped(reader.as_mut(), &reads, &mut |_| ()).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { .. }), "{}: {error:?}", reader.name());
        assert_eq!(reader.in_flight(), 0);
    }
}

#[test]
fn one_failed_call_fails_the_load() {
    let (_keep, file) = file_of(&content(1_000_000));
    let sim = SimConfig { eio: Eio::OnceAt(3), ..SimConfig::default() };
    let mut reader = SimReader::new(sim, &small_chunks());
    let memory = cells(1_000_000);
    let reads = [ScopedRead { file, offset: 0, dst: &memory }];
    let error = read_scoped(&mut reader, &reads, &mut |_| ()).unwrap_err();
    assert!(matches!(error, ReadError::Io { errno: EIO, .. }), "{error:?}");
    assert_eq!(reader.in_flight(), 0);
}

#[test]
fn a_panic_while_reading_waits_for_the_reads() {
    let bytes = content(4_000_000);
    let (_keep, file) = file_of(&bytes);
    for mut reader in readers(&small_chunks()) {
        let memory = cells(4_000_000);
        let reads = [
            ScopedRead { file: file.clone(), offset: 0, dst: &memory[..100_000] },
            ScopedRead { file: file.clone(), offset: 100_000, dst: &memory[100_000..] },
        ];
        let load = || read_scoped(reader.as_mut(), &reads, &mut |_| panic!("the progress bar broke"));
        assert!(catch_unwind(AssertUnwindSafe(load)).is_err());
        assert_eq!(reader.in_flight(), 0, "{}", reader.name());
        // The memory is ours again: what is written now must stay.
        memory.iter().for_each(|cell| cell.store(0x11, Relaxed));
        drop(reader);
        assert!(memory.iter().all(|cell| cell.load(Relaxed) == 0x11));
    }
}

#[test]
fn a_busy_reader_is_refused() {
    let (_keep, file) = file_of(&content(PAGE));
    for mut reader in readers(&small_chunks()) {
        reader.submit(vec![request(1, &file, 0, PAGE, &arena(PAGE), 0)]);
        assert_eq!(
            read_scoped(reader.as_mut(), &[], &mut |_| ()),
            Err(ReadError::Busy { in_flight: 1 }),
            "{}",
            reader.name()
        );
    }
}
