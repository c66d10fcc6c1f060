//! Memory that several models share: each one asks before it takes more.

use std::fmt::Debug;
use std::sync::Arc;

/// One budget of several models. Its calls are quick and never wait for a model.
pub trait SharedMemory: Debug + Send + Sync {
    /// Bytes that nobody holds and nobody was promised.
    fn free_bytes(&self) -> u64;
    /// Promises what is free of `wanted_bytes`, until [`Self::release`]. Returns how many bytes that is.
    fn reserve(&self, wanted_bytes: u64) -> u64;
    /// Takes a promise back: what was made of it is seen in the status of the model by now.
    fn release(&self, bytes: u64);
}

/// Bytes that were promised; dropping this takes the promise back.
#[derive(Debug)]
#[must_use = "the promise ends when this is dropped"]
pub(crate) struct Reserved {
    memory: Option<Arc<dyn SharedMemory>>,
    pub bytes: u64,
}

impl Reserved {
    /// Asks the shared memory, or, where nothing is shared, takes from the `own_bytes` that are left.
    pub fn new(memory: Option<&Arc<dyn SharedMemory>>, own_bytes: u64, wanted_bytes: u64) -> Self {
        let bytes = match memory {
            Some(memory) => memory.reserve(wanted_bytes).min(wanted_bytes),
            None => own_bytes.min(wanted_bytes),
        };
        Self { memory: memory.cloned(), bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.release(self.bytes);
        }
    }
}
