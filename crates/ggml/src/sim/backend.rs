//! The functions of a simulated backend: each hands something to its queue.

use crate::exec::{STATUS_FAILED, STATUS_OK};
use crate::sys::{self, raw};
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use super::capture::Captured;
use super::memory::{host_address, span};
use super::order::{Access, QueueId};
use super::queue::{Flag, Queue, Work, copy};

/// `struct ggml_backend_event` of ggml-backend-impl.h.
#[repr(C)]
pub(super) struct EventObject {
    pub device: *mut raw::ggml_backend_device,
    pub context: *mut c_void,
}

/// An event: where it was recorded last.
#[derive(Default)]
pub(super) struct SimEvent(Mutex<Option<Recorded>>);

#[derive(Clone)]
struct Recorded {
    flag: Arc<Flag>,
    queue: QueueId,
    number: u64,
}

impl SimEvent {
    fn recorded(&self) -> Option<Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the queue has come there.
    pub fn synchronize(&self) {
        if let Some(Recorded { flag, .. }) = self.recorded() {
            flag.wait();
        }
    }
}

static GUID: [u8; 16] = *b"hypura-simulated";

/// A backend around a queue.
pub(super) fn wrap(device: sys::ggml_backend_dev_t, queue: Queue) -> sys::ggml_backend_t {
    let backend = raw::ggml_backend {
        guid: (&raw const GUID).cast_mut().cast(),
        iface: raw::ggml_backend_i {
            get_name: Some(name),
            free: Some(free),
            set_tensor_async: Some(set_async),
            get_tensor_async: Some(get_async),
            set_tensor_2d_async: None,
            get_tensor_2d_async: None,
            cpy_tensor_async: Some(copy_async),
            synchronize: Some(synchronize),
            graph_plan_create: None,
            graph_plan_free: None,
            graph_plan_update: None,
            graph_plan_compute: None,
            graph_compute: Some(graph_compute),
            event_record: Some(event_record),
            event_wait: Some(event_wait),
            graph_optimize: None,
        },
        device,
        context: Box::into_raw(Box::new(queue)).cast(),
    };
    Box::into_raw(Box::new(backend)).cast()
}

/// The queue of a backend; `None` for a backend of somebody else.
///
/// # Safety
/// `backend` is alive.
unsafe fn queue<'a>(backend: sys::ggml_backend_t) -> Option<&'a Queue> {
    // SAFETY: the caller's promise; a backend with our guid has our context.
    unsafe {
        let backend = backend.cast::<raw::ggml_backend>();
        let ours = std::ptr::eq((*backend).guid.cast_const().cast(), &raw const GUID);
        ours.then(|| &*(*backend).context.cast::<Queue>())
    }
}

/// # Safety
/// `event` is alive and of a simulated device.
unsafe fn event_of<'a>(event: sys::ggml_backend_event_t) -> &'a SimEvent {
    // SAFETY: the caller's promise.
    unsafe { &*(*event.cast::<EventObject>()).context.cast::<SimEvent>() }
}

unsafe extern "C" fn name(_: sys::ggml_backend_t) -> *const c_char {
    c"SIM".as_ptr()
}
unsafe extern "C" fn free(backend: sys::ggml_backend_t) {
    // SAFETY: ggml frees a backend once; both boxes were made by `wrap`.
    unsafe {
        let backend = Box::from_raw(backend.cast::<raw::ggml_backend>());
        drop(Box::from_raw(backend.context.cast::<Queue>()));
    }
}
unsafe extern "C" fn set_async(
    backend: sys::ggml_backend_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml passes our live backend, a live tensor and a range inside it; `data` lives until it is
    // waited for.
    unsafe {
        let (Some(queue), Some(address)) = (queue(backend), host_address(tensor)) else { return };
        let accesses = vec![Access { span: span(tensor, offset, size), writes: true }];
        queue.push(copy(data, address.add(offset).cast(), size), accesses, "set_tensor_async");
    }
}
unsafe extern "C" fn get_async(
    backend: sys::ggml_backend_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as above.
    unsafe {
        let (Some(queue), Some(address)) = (queue(backend), host_address(tensor)) else { return };
        let accesses = vec![Access { span: span(tensor, offset, size), writes: false }];
        queue.push(copy(address.add(offset).cast(), data, size), accesses, "get_tensor_async");
    }
}
unsafe extern "C" fn copy_async(
    from: sys::ggml_backend_t,
    to: sys::ggml_backend_t,
    source: *const sys::ggml_tensor,
    target: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes live backends and tensors of one size; either may be somebody else's.
    unsafe {
        let (Some(from), Some(to)) = (queue(from), queue(to)) else { return false };
        let (Some(source_address), Some(target_address)) = (host_address(source), host_address(target))
        else {
            return false;
        };
        if from.id() != to.id() {
            // The target's queue goes on when the source is there.
            let flag = Arc::<Flag>::default();
            let number = from.push(Work::Record(Arc::clone(&flag)), Vec::new(), "record");
            to.push(Work::Wait(flag), Vec::new(), "wait");
            to.order().wait(to.id(), from.id(), number);
        }
        let size = sys::ggml_nbytes(source);
        let accesses = vec![
            Access { span: span(source, 0, size), writes: false },
            Access { span: span(target, 0, size), writes: true },
        ];
        let work = copy(source_address.cast(), target_address.cast(), size);
        to.push(work, accesses, "cpy_tensor_async");
    }
    true
}
unsafe extern "C" fn synchronize(backend: sys::ggml_backend_t) {
    // SAFETY: ggml passes our live backend.
    if let Some(queue) = unsafe { queue(backend) } {
        queue.synchronize();
    }
}
unsafe extern "C" fn graph_compute(backend: sys::ggml_backend_t, graph: *mut raw::ggml_cgraph) -> c_int {
    // SAFETY: ggml passes our live backend and a live graph.
    unsafe {
        let Some(queue) = queue(backend) else { return STATUS_FAILED };
        if queue.order().graph_fails() {
            return STATUS_FAILED;
        }
        let upcoming = |address: *const u8| queue.upcoming(address);
        let Some((captured, accesses)) = Captured::new(graph, queue.order(), &upcoming) else {
            return STATUS_FAILED;
        };
        queue.push(Work::Graph(captured), accesses, "a graph");
    }
    STATUS_OK
}
unsafe extern "C" fn event_record(backend: sys::ggml_backend_t, event: sys::ggml_backend_event_t) {
    // SAFETY: ggml passes our live backend and a live event of its device.
    unsafe {
        let Some(queue) = queue(backend) else { return };
        let flag = Arc::<Flag>::default();
        let number = queue.push(Work::Record(Arc::clone(&flag)), Vec::new(), "record");
        let recorded = Recorded { flag, queue: queue.id(), number };
        *event_of(event).0.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
    }
}
unsafe extern "C" fn event_wait(backend: sys::ggml_backend_t, event: sys::ggml_backend_event_t) {
    // SAFETY: as above.
    unsafe {
        let (Some(queue), Some(recorded)) = (queue(backend), event_of(event).recorded()) else { return };
        queue.push(Work::Wait(recorded.flag), Vec::new(), "wait");
        queue.order().wait(queue.id(), recorded.queue, recorded.number);
    }
}
