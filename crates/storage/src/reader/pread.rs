//! The `pread` reader: worker threads, each with one read at the device. The only reader on macOS, and the
//! way out where io_uring is refused. Workers sleep on a condition variable; nothing spins.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::chunk::{Chunk, Step};
use super::hub::{Hub, ThreadedReader};
use super::{OpenReaderError, ReaderConfig};
use crate::ReadError;

const NAME: &str = "pread";

/// Opens a reader of [`ReaderConfig::threads`] threads that call `pread`.
pub fn open_pread(config: &ReaderConfig) -> Result<ThreadedReader, OpenReaderError> {
    let config = config.in_range();
    let threads = config.threads;
    // At least a quarter of the threads stay free for demand reads.
    let prefetch_depth = config.prefetch_depth.min((threads - threads / 4).max(1));
    let hub = Hub::new(&ReaderConfig { depth: threads, prefetch_depth, ..config });
    let mut reader = ThreadedReader::new(NAME, Arc::clone(&hub));
    for index in 0..threads {
        let hub = Arc::clone(&hub);
        // On failure the reader is dropped, which ends and joins the threads started so far.
        let worker = thread::Builder::new()
            .name(format!("hypura-pread-{index}"))
            .spawn(move || work(&hub))
            .map_err(|source| OpenReaderError::Thread { reader: NAME, source })?;
        reader.add_worker(worker);
    }
    Ok(reader)
}

fn work(hub: &Hub) {
    while let Some(mut chunk) = hub.next_chunk() {
        // A panic must not leave the owner waiting for this chunk for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&mut chunk)));
        let stopped = || ReadError::Stopped { reader: NAME, reason: "a worker panicked".to_owned() };
        hub.finish(chunk, outcome.unwrap_or_else(|_| Err(stopped())));
    }
}

fn read(chunk: &mut Chunk) -> Result<(), ReadError> {
    loop {
        let outcome = chunk.read_once(usize::MAX);
        if let Step::Over(result) = chunk.advance(outcome) {
            return result;
        }
    }
}
