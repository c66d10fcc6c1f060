//! A decorated backend: owns the inner backend, offers what that offers, and hands each graph to the executor
//! that the context attached for its device, or straight to the inner backend where there is none.

use crate::error::ExecError;
use crate::exec::attach::{self, Attachment};
use crate::exec::between::{BetweenNodes, on_node};
use crate::exec::{GraphRun, STATUS_ABORTED, STATUS_FAILED, STATUS_OK, Scratch};
use crate::guard;
use crate::sys::{self, raw};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::rc::Rc;

use super::functions::CpuFunctions;
use super::handle::Device;

struct State {
    inner: sys::ggml_backend_t,
    device: Device,
    /// Set once, by the context that the backend was made for.
    attachment: RefCell<Option<Attachment>>,
    scratch: RefCell<Scratch>,
    /// Shared with the inner backend, which calls back into it while the rest is borrowed.
    between: Rc<BetweenNodes>,
}

/// A private identity, so that nobody takes our backend for one of ggml's and reads its context.
static GUID: [u8; 16] = *b"hypura-decorated";

/// Wraps an inner backend.
///
/// # Safety
/// `inner` is a live backend of the inner device that from now on belongs to the result.
pub(super) unsafe fn decorate(device: Device, inner: sys::ggml_backend_t) -> sys::ggml_backend_t {
    // SAFETY: the backend is alive and of the layout that was linked.
    let iface = interface(unsafe { &(*inner.cast::<raw::ggml_backend>()).iface });
    let state = State {
        inner,
        device,
        attachment: RefCell::default(),
        scratch: RefCell::default(),
        between: Rc::default(),
    };
    let backend = raw::ggml_backend {
        guid: (&raw const GUID).cast_mut().cast(),
        iface,
        device: device.handle(),
        context: Box::into_raw(Box::new(state)).cast::<c_void>(),
    };
    Box::into_raw(Box::new(backend)).cast()
}

/// The functions of a backend whose inner one offers these. Graph plans are left out: ggml does not use them.
fn interface(offered: &raw::ggml_backend_i) -> raw::ggml_backend_i {
    raw::ggml_backend_i {
        get_name: Some(name),
        free: Some(free),
        set_tensor_async: offered.set_tensor_async.map(|_| set_tensor_async as _),
        get_tensor_async: offered.get_tensor_async.map(|_| get_tensor_async as _),
        set_tensor_2d_async: offered.set_tensor_2d_async.map(|_| set_tensor_2d_async as _),
        get_tensor_2d_async: offered.get_tensor_2d_async.map(|_| get_tensor_2d_async as _),
        cpy_tensor_async: offered.cpy_tensor_async.map(|_| cpy_tensor_async as _),
        synchronize: offered.synchronize.map(|_| synchronize as _),
        graph_plan_create: None,
        graph_plan_free: None,
        graph_plan_update: None,
        graph_plan_compute: None,
        graph_compute: Some(graph_compute),
        event_record: offered.event_record.map(|_| event_record as _),
        event_wait: offered.event_wait.map(|_| event_wait as _),
        graph_optimize: offered.graph_optimize.map(|_| graph_optimize as _),
    }
}

/// The state of a backend of ours; `None` for a backend of ggml's.
///
/// # Safety
/// `backend` is alive. Only shared references to its state exist: ggml uses a backend from one thread at a
/// time, and what changes is behind cells.
unsafe fn state<'a>(backend: sys::ggml_backend_t) -> Option<&'a State> {
    // SAFETY: the caller's promise; the guid is ours alone, and the context of such a backend the boxed
    // state.
    unsafe {
        let shell = backend.cast::<raw::ggml_backend>();
        let ours = std::ptr::eq((*shell).guid.cast_const().cast(), &raw const GUID);
        ours.then(|| &*(*shell).context.cast::<State>())
    }
}

/// The backend of ggml's in a backend, which may be one already.
///
/// # Safety
/// As for [`state`].
unsafe fn inner(backend: sys::ggml_backend_t) -> sys::ggml_backend_t {
    // SAFETY: the caller's promise is the same.
    unsafe { state(backend) }.map_or(backend, |state| state.inner)
}

/// The wrapped backend, and what its registry offers by name.
///
/// # Safety
/// As for [`state`].
pub(super) unsafe fn unwrap(backend: sys::ggml_backend_t) -> (sys::ggml_backend_t, CpuFunctions) {
    // SAFETY: the caller's promise is the same.
    match unsafe { state(backend) } {
        Some(state) => (state.inner, *state.device.0.functions()),
        None => (backend, CpuFunctions::default()),
    }
}

/// Sets who says between nodes whether to go on, which is also how a context brings its executor: its
/// question names it. With an executor the question comes through the nodes' pauses.
pub(super) unsafe extern "C" fn set_abort_callback(
    backend: sys::ggml_backend_t,
    callback: sys::ggml_abort_callback,
    data: *mut c_void,
) {
    // SAFETY: ggml passes a live backend that was made by a decorated device.
    let Some(state) = (unsafe { state(backend) }) else { return };
    let attachment = attach::find(data, state.device);
    let set = state.device.0.functions().set_abort_callback;
    // SAFETY: the inner backend is alive as long as ours; so are the pauses, and only the thread that
    // computes with the backend is called back. `data` is what `callback` wants for as long as it is set.
    unsafe {
        if attachment.is_some() {
            state.between.set_query(callback, data);
            if let Some(set) = set {
                set(state.inner, Some(on_node), Rc::as_ptr(&state.between).cast_mut().cast());
            }
        } else if let Some(set) = set {
            set(state.inner, callback, data);
        }
    }
    *state.attachment.borrow_mut() = attachment;
    if let Some(set) = state.device.0.functions().set_use_ref
        && attach::wants_reference_kernels(data)
    {
        // SAFETY: the inner backend is alive as long as ours, and of the registry that offers the function.
        unsafe { set(state.inner, true) };
    }
}

unsafe extern "C" fn name(backend: sys::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml passes our live backend; the inner one lives as long.
    unsafe { sys::ggml_backend_name(inner(backend)) }
}

unsafe extern "C" fn free(backend: sys::ggml_backend_t) {
    // SAFETY: ggml frees a backend once; both boxes were made by `decorate`.
    let (state, shell) = unsafe {
        let shell = Box::from_raw(backend.cast::<raw::ggml_backend>());
        (Box::from_raw(shell.context.cast::<State>()), shell)
    };
    let inner = state.inner;
    // An executor may be dropped with it; a panic there must not unwind into C.
    let _ = guard::catch(move || drop(state));
    drop(shell);
    // SAFETY: we own the inner backend and nothing uses it any more.
    unsafe { sys::ggml_backend_free(inner) };
}

/// Functions of a backend that are those of the inner backend.
macro_rules! forwarded {
    ($($name:ident($($argument:ident: $ty:ty),*) = $inner:path;)*) => {$(
        unsafe extern "C" fn $name(backend: sys::ggml_backend_t $(, $argument: $ty)*) {
            // SAFETY: ggml passes our live backend, and arguments that the inner one takes as they are. The
            // function is offered only where the inner backend has it.
            unsafe { $inner(inner(backend) $(, $argument)*) }
        }
    )*};
}
forwarded! {
    set_tensor_async(tensor: *mut sys::ggml_tensor, data: *const c_void, offset: usize, size: usize)
        = sys::ggml_backend_tensor_set_async;
    get_tensor_async(tensor: *const sys::ggml_tensor, data: *mut c_void, offset: usize, size: usize)
        = sys::ggml_backend_tensor_get_async;
    set_tensor_2d_async(
        tensor: *mut sys::ggml_tensor, data: *const c_void, offset: usize, size: usize, copies: usize,
        stride_tensor: usize, stride_data: usize
    ) = sys::ggml_backend_tensor_set_2d_async;
    get_tensor_2d_async(
        tensor: *const sys::ggml_tensor, data: *mut c_void, offset: usize, size: usize, copies: usize,
        stride_tensor: usize, stride_data: usize
    ) = sys::ggml_backend_tensor_get_2d_async;
    event_wait(event: sys::ggml_backend_event_t) = sys::ggml_backend_event_wait;
}

/// Tensors that stood in for operands of earlier calls are of no use any more.
unsafe extern "C" fn synchronize(backend: sys::ggml_backend_t) {
    // SAFETY: ggml passes our live backend from one thread at a time.
    let Some(state) = (unsafe { state(backend) }) else { return };
    // SAFETY: the inner backend is alive as long as ours.
    unsafe { sys::ggml_backend_synchronize(state.inner) };
    if let Ok(mut scratch) = state.scratch.try_borrow_mut() {
        scratch.settle();
    }
}

unsafe extern "C" fn event_record(backend: sys::ggml_backend_t, event: sys::ggml_backend_event_t) {
    // SAFETY: as in `forwarded`; the event is the inner device's own.
    unsafe { sys::ggml_backend_event_record(event, inner(backend)) }
}

unsafe extern "C" fn cpy_tensor_async(
    from: sys::ggml_backend_t,
    to: sys::ggml_backend_t,
    source: *const sys::ggml_tensor,
    target: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: both backends are alive, and either may be ours: the inner ones look into each other's
    // contexts.
    unsafe {
        let to = inner(to);
        let copy = (*to.cast::<raw::ggml_backend>()).iface.cpy_tensor_async;
        copy.is_some_and(|copy| copy(inner(from), to, source, target))
    }
}

unsafe extern "C" fn graph_optimize(
    backend: sys::ggml_backend_t,
    graph: *mut raw::ggml_cgraph,
    params: *mut raw::ggml_backend_graph_optimize_params,
) {
    // SAFETY: as in `forwarded`.
    unsafe {
        let inner = inner(backend);
        if let Some(optimize) = (*inner.cast::<raw::ggml_backend>()).iface.graph_optimize {
            optimize(inner, graph, params);
        }
    }
}

unsafe extern "C" fn graph_compute(backend: sys::ggml_backend_t, graph: *mut raw::ggml_cgraph) -> c_int {
    // SAFETY: ggml passes our live backend from one thread at a time.
    let Some(state) = (unsafe { state(backend) }) else { return STATUS_FAILED };
    let attachment = state.attachment.borrow();
    let Some(attachment) = attachment.as_ref() else {
        // SAFETY: inner backend and graph are alive for the call.
        return unsafe { sys::ggml_backend_graph_compute_async(state.inner, graph.cast()) };
    };
    let mut scratch = state.scratch.borrow_mut();
    // SAFETY: the graph and its nodes live for the call, and nobody else touches them meanwhile.
    let mut run = unsafe { GraphRun::new(state.inner, state.device, graph, &mut scratch, &state.between) };
    let outcome = match guard::catch(|| attachment.compute(&mut run)) {
        Ok(outcome) => outcome,
        Err(panic) => Err(ExecError::Panic(panic)),
    };
    match outcome {
        Ok(()) => STATUS_OK,
        Err(ExecError::Stopped | ExecError::Backend(STATUS_ABORTED)) => STATUS_ABORTED,
        Err(failure) => {
            attachment.fail(failure);
            STATUS_FAILED
        }
    }
}
