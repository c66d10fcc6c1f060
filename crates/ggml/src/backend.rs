//! The decorated backend: one per context. It owns the inner backend and hands each graph to the context's executor,
//! or straight to the inner backend when there is none.

use crate::error::ExecError;
use crate::graph::{Executor, GraphRun, Scratch};
use crate::interlude::{Interlude, on_node};
use crate::sys::{self, raw};
use crate::{abi, buffer, guard};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Where an executor leaves its error for the decode that caused it.
pub(crate) type ErrorSlot = Arc<Mutex<Option<ExecError>>>;

/// An executor that outlives the llama.cpp contexts it serves: a context that is made anew keeps it.
pub(crate) type SharedExecutor = Arc<Mutex<Box<dyn Executor>>>;

/// What a context hands to the backend that llama.cpp is about to create for it.
pub(crate) struct Attachment {
    pub executor: SharedExecutor,
    pub error: ErrorSlot,
}

thread_local! {
    /// Set around `llama_init_from_model`, which creates the backend on the calling thread.
    static PENDING: RefCell<Option<Attachment>> = const { RefCell::new(None) };
}

/// Offers an executor to the next backend created on this thread.
pub(crate) fn offer(attachment: Attachment) {
    PENDING.with_borrow_mut(|pending| *pending = Some(attachment));
}

/// Takes back an offer that no backend took.
pub(crate) fn withdraw() -> Option<Attachment> {
    PENDING.with_borrow_mut(Option::take)
}

struct State {
    inner: sys::ggml_backend_t,
    attachment: Option<Attachment>,
    scratch: Scratch,
    /// Shared with the inner backend, which calls back into it while the rest is borrowed.
    interlude: Rc<Interlude>,
}

/// A private identity, so that nobody takes our backend for the CPU backend and reads its context.
static GUID: [u8; 16] = *b"hypura-decorated";

/// Wraps an inner backend.
///
/// # Safety
/// `inner` is a live backend that from now on belongs to the result.
pub(crate) unsafe fn decorate(
    device: sys::ggml_backend_dev_t,
    inner: sys::ggml_backend_t,
) -> sys::ggml_backend_t {
    let state =
        State { inner, attachment: withdraw(), scratch: Scratch::default(), interlude: Rc::default() };
    let backend = raw::ggml_backend {
        guid: (&raw const GUID).cast_mut().cast(),
        iface: abi::backend(),
        device,
        context: Box::into_raw(Box::new(state)).cast::<c_void>(),
    };
    Box::into_raw(Box::new(backend)).cast()
}

/// # Safety
/// `backend` was made by [`decorate`] and is alive; no other reference to its state exists (ggml uses a backend from
/// one thread at a time).
unsafe fn state<'a>(backend: sys::ggml_backend_t) -> &'a mut State {
    // SAFETY: the context of our backend is the boxed state, per the caller's promise alive and unshared.
    unsafe { &mut *(*backend.cast::<raw::ggml_backend>()).context.cast::<State>() }
}

/// The wrapped backend.
///
/// # Safety
/// As for [`state`].
pub(crate) unsafe fn inner(backend: sys::ggml_backend_t) -> sys::ggml_backend_t {
    // SAFETY: the caller's promise is the same.
    unsafe { state(backend).inner }
}

/// Sets who says between nodes whether to go on. With an executor the question comes through its interlude.
///
/// # Safety
/// As for [`state`]; `data` is what `callback` wants for as long as it is set.
pub(crate) unsafe fn set_abort_callback(
    backend: sys::ggml_backend_t,
    callback: sys::ggml_abort_callback,
    data: *mut c_void,
) {
    // SAFETY: the caller's promise.
    let State { inner, attachment, interlude, .. } = unsafe { state(backend) };
    // SAFETY: the inner backend is alive as long as ours; so is the interlude, and only the thread that computes
    // with the backend is called back.
    unsafe {
        if attachment.is_none() {
            return sys::ggml_backend_cpu_set_abort_callback(*inner, callback, data);
        }
        interlude.set_query(callback, data);
        let interlude = Rc::as_ptr(interlude).cast_mut().cast();
        sys::ggml_backend_cpu_set_abort_callback(*inner, Some(on_node), interlude);
    }
}

pub(crate) unsafe extern "C" fn name(backend: sys::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml passes our live backend; the inner one lives as long.
    unsafe { sys::ggml_backend_name(inner(backend)) }
}

pub(crate) unsafe extern "C" fn free(backend: sys::ggml_backend_t) {
    // SAFETY: ggml frees a backend once; both boxes were made by `decorate`.
    let (state, shell) = unsafe {
        let shell = Box::from_raw(backend.cast::<raw::ggml_backend>());
        (Box::from_raw(shell.context.cast::<State>()), shell)
    };
    let inner = state.inner;
    // The executor waits for its reads when dropped; a panic there must not unwind into C.
    let _ = guard::catch(move || drop(state));
    drop(shell);
    // SAFETY: we own the inner backend and nothing uses it any more.
    unsafe { sys::ggml_backend_free(inner) };
}

pub(crate) unsafe extern "C" fn graph_compute(
    backend: sys::ggml_backend_t,
    graph: *mut raw::ggml_cgraph,
) -> c_int {
    // SAFETY: ggml passes our live backend from one thread at a time.
    let State { inner, attachment, scratch, interlude } = unsafe { state(backend) };
    let Some(Attachment { executor, error }) = attachment else {
        // SAFETY: inner backend and graph are alive for the call.
        return unsafe { sys::ggml_backend_graph_compute(*inner, graph.cast()) };
    };
    // SAFETY: the graph and its nodes live for the call, and nobody else touches them meanwhile.
    let mut run = unsafe { GraphRun::new(*inner, graph, scratch, interlude) };
    // One context computes at a time: nobody else holds the lock.
    let outcome =
        match guard::catch(|| executor.lock().unwrap_or_else(PoisonError::into_inner).compute(&mut run)) {
            Ok(outcome) => outcome,
            Err(panic) => Err(ExecError::Panic(panic)),
        };
    match outcome {
        Ok(()) => buffer::STATUS_OK,
        Err(ExecError::Stopped | ExecError::Backend(buffer::STATUS_ABORTED)) => buffer::STATUS_ABORTED,
        Err(failure) => {
            *error.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            buffer::STATUS_FAILED
        }
    }
}
