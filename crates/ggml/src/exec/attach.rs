//! How a context's executors get to the backends that llama.cpp makes for it.
//!
//! llama.cpp gives every backend of a context the question whether to go on, with the data pointer that the
//! context was made with. That pointer is the [`Hooks`] of the context, so a backend finds in it the executor
//! for its device: nothing depends on threads or on the order in which backends are made.
//!
//! Invariant: a context's hooks are in [`LIVE`] exactly as long as they exist, so a pointer found there is
//! theirs.

use crate::device::Device;
use crate::error::ExecError;
use crate::guard;
use crate::sys;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::run::{Executor, GraphRun};

/// An executor and the device whose graphs it runs.
pub type DeviceExecutor = (Device, Box<dyn Executor>);

/// Hooks of all contexts.
static LIVE: Mutex<Vec<Weak<Hooks>>> = Mutex::new(Vec::new());

struct Attached {
    device: Device,
    executor: Mutex<Box<dyn Executor>>,
    /// A backend of the context has found it.
    taken: AtomicBool,
}

/// What a context hands to its backends.
pub(crate) struct Hooks {
    abort: Arc<AtomicBool>,
    /// Grows with every node after which ggml asked.
    nodes: Arc<AtomicU64>,
    reference_kernels: bool,
    executors: Vec<Attached>,
    failure: Mutex<Option<ExecError>>,
}

/// What a backend keeps of it.
pub(crate) struct Attachment {
    hooks: Arc<Hooks>,
    index: usize,
}

impl Hooks {
    pub fn new(abort: Arc<AtomicBool>, executors: Vec<DeviceExecutor>, reference_kernels: bool) -> Arc<Self> {
        let attached = |(device, executor)| Attached {
            device,
            executor: Mutex::new(executor),
            taken: AtomicBool::new(false),
        };
        let executors = executors.into_iter().map(attached).collect();
        let nodes = Arc::default();
        let hooks = Arc::new(Self { abort, nodes, reference_kernels, executors, failure: Mutex::default() });
        let mut live = lock(&LIVE);
        live.retain(|known| known.strong_count() > 0);
        live.push(Arc::downgrade(&hooks));
        drop(live);
        hooks
    }

    /// Whether the abort flag is up.
    pub fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// How many nodes were computed, as far as ggml asks after them.
    pub fn nodes(&self) -> &Arc<AtomicU64> {
        &self.nodes
    }

    /// After a node: whether to stop.
    fn asked(&self) -> bool {
        // One thread at a time computes with a context, so nothing is lost between the two.
        self.nodes.store(self.nodes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.is_aborted()
    }

    /// Whether some executor runs graphs that may be unfinished when the backend returns.
    pub fn is_asynchronous(&self) -> bool {
        self.executors.iter().any(|attached| !attached.device.is_host())
    }

    /// A device whose executor no backend has found.
    pub fn untaken(&self) -> Option<Device> {
        let untaken = |attached: &&Attached| !attached.taken.load(Ordering::Relaxed);
        self.executors.iter().find(untaken).map(|attached| attached.device)
    }

    /// A decode begins.
    pub fn begin_step(&self) -> Result<(), ExecError> {
        *lock(&self.failure) = None;
        self.each(|executor| executor.begin_step())
    }

    /// A decode has ended; nothing of it is being computed any more.
    pub fn end_step(&self, ok: bool) -> Result<(), ExecError> {
        self.each(|executor| executor.end_step(ok))
    }

    fn each(&self, mut call: impl FnMut(&mut dyn Executor)) -> Result<(), ExecError> {
        let all = || self.executors.iter().for_each(|attached| call(lock(&attached.executor).as_mut()));
        guard::catch(all).map_err(ExecError::Panic)
    }

    /// Why the decode failed, as its executors say.
    pub fn take_failure(&self) -> Option<ExecError> {
        lock(&self.failure).take()
    }
}

impl Attachment {
    /// Computes a graph. One context computes at a time: nobody else holds the lock.
    pub fn compute(&self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        lock(&self.hooks.executors[self.index].executor).compute(run)
    }

    /// Leaves an error for the decode that caused it; the first one counts.
    pub fn fail(&self, failure: ExecError) {
        lock(&self.hooks.failure).get_or_insert(failure);
    }
}

fn live(hooks: *const c_void) -> Option<Arc<Hooks>> {
    let is_wanted = |known: &&Weak<Hooks>| std::ptr::eq(known.as_ptr().cast::<c_void>(), hooks);
    lock(&LIVE).iter().find(is_wanted)?.upgrade()
}

/// Whether the context with these hooks wants the kernels that compute each row by itself.
pub(crate) fn wants_reference_kernels(hooks: *const c_void) -> bool {
    live(hooks).is_some_and(|hooks| hooks.reference_kernels)
}

/// The executor that the context with these hooks has for a device.
pub(crate) fn find(hooks: *const c_void, device: Device) -> Option<Attachment> {
    let hooks = live(hooks)?;
    let index = hooks.executors.iter().position(|attached| attached.device == device)?;
    hooks.executors[index].taken.store(true, Ordering::Relaxed);
    Some(Attachment { hooks, index })
}

/// llama.cpp's question whether to stop; its data is the context's [`Hooks`].
pub(crate) unsafe extern "C" fn on_abort_query(hooks: *mut c_void) -> bool {
    // SAFETY: the context keeps its hooks alive as long as llama.cpp's context, and only shared references
    // exist.
    unsafe { (*hooks.cast::<Hooks>()).asked() }
}

/// The question, as llama.cpp wants it.
pub(crate) const ABORT_QUERY: sys::ggml_abort_callback = Some(on_abort_query);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
