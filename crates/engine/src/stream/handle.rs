//! A context's executor, shared: ggml runs graphs through it, and between decodes the engine asks it for
//! memory.

use hypura_ggml::{ExecError, Executor, GraphRun};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::executor::StreamExecutor;
use super::expert_map::ExpertMap;

/// The executor of a streaming context. It lives as long as the context or whoever else keeps it.
#[derive(Clone)]
pub(crate) struct StreamHandle(Arc<Mutex<StreamExecutor>>);

impl StreamHandle {
    pub fn new(executor: StreamExecutor) -> Self {
        Self(Arc::new(Mutex::new(executor)))
    }

    /// One context computes at a time, and nobody asks meanwhile: the lock is always free.
    fn executor(&self) -> MutexGuard<'_, StreamExecutor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slots of each size class that there are now.
    pub fn slots(&self) -> Vec<u32> {
        self.executor().slots()
    }

    /// Which experts are in memory; `None` where none stream.
    pub fn experts(&self) -> Option<ExpertMap> {
        self.executor().expert_map()
    }

    /// Bytes of memory that it could do without.
    pub fn spare_bytes(&self) -> u64 {
        self.executor().spare_bytes()
    }

    /// Gives up at least so many bytes of memory, as far as it can do without them; returns how many.
    pub fn give_back(&self, bytes: u64) -> u64 {
        self.executor().give_back(bytes)
    }
}

impl Executor for StreamHandle {
    fn begin_step(&mut self) {
        self.executor().begin_step();
    }

    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        self.executor().compute(run)
    }

    fn end_step(&mut self, ok: bool) {
        self.executor().end_step(ok);
    }
}
