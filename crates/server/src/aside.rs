//! Work that takes long beside the threads that serve everybody: reading and decompressing large bodies.
//!
//! A thread that serves is replaced by another one meanwhile, and only so many do such work at a time, so
//! that others find a processor.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes that take no time worth mentioning.
const FEW_BYTES: usize = 64 << 10;

/// Places for such work: a processor is left to everybody else.
static PLACES: LazyLock<(Mutex<usize>, Condvar)> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (Mutex::new(processors.saturating_sub(1).max(1)), Condvar::new())
});

struct Place;

impl Place {
    fn take() -> Self {
        let (free, changed) = &*PLACES;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        *changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        PLACES.1.notify_one();
    }
}

/// Does work on so many bytes.
pub(super) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let many_threads =
        Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes <= FEW_BYTES || !many_threads {
        return work();
    }
    tokio::task::block_in_place(|| {
        let _place = Place::take();
        work()
    })
}
