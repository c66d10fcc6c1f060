//! How many threads compute the graphs that another machine asks for.
//!
//! ggml's server computes each graph with the threads that it was started with, in a pool that it makes for
//! this graph alone. Here the pools stay, and whoever serves says before each graph how many threads it gets.
//!
//! Invariants: a process serves once, on one thread, with one backend; its pools live as long as the process.

use hypura_ggml::{BackendThreads, LoadError};
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn hypura_rpc_watch_graphs(
        begin: extern "C" fn(backend: *mut c_void, rows: i64),
        end: extern "C" fn(rows: i64),
    );
}

/// Decides how many threads compute a graph.
pub trait ChooseThreads: Send {
    /// Threads for the next graph, of so many tokens.
    fn begin(&mut self, tokens: u32) -> u32;
    /// It was computed, for so long.
    fn end(&mut self, tokens: u32, took: Duration);
}

/// What is computed with.
struct Watched {
    choose: Box<dyn ChooseThreads>,
    threads: BackendThreads,
    began: Instant,
}

static WATCHED: Mutex<Option<Watched>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on graphs are computed with as many threads as `choose` says, at most `most`, which have the name
/// of the calling thread. For devices of the CPU alone.
///
/// # Errors
/// No threads.
pub(crate) fn watch(most: u32, choose: Box<dyn ChooseThreads>) -> Result<(), LoadError> {
    *watched() = Some(Watched { choose, threads: BackendThreads::new(most)?, began: Instant::now() });
    // SAFETY: two functions that live for ever; nothing is computed yet.
    unsafe { hypura_rpc_watch_graphs(begin, end) };
    Ok(())
}

fn tokens(rows: i64) -> u32 {
    u32::try_from(rows.max(0)).unwrap_or(u32::MAX)
}

extern "C" fn begin(backend: *mut c_void, rows: i64) {
    if let Some(watched) = watched().as_mut() {
        let threads = watched.choose.begin(tokens(rows));
        // SAFETY: ggml passes the backend that it is about to compute with, the one that there is; the pools
        // are in a static and never dropped. Threads that cannot be started leave those that there are.
        let _ = unsafe { watched.threads.give(backend, threads) };
        watched.began = Instant::now();
    }
}

extern "C" fn end(rows: i64) {
    if let Some(watched) = watched().as_mut() {
        watched.choose.end(tokens(rows), watched.began.elapsed());
    }
}
