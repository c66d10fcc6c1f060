//! The thread behind a backend: does what it is given, late.
//!
//! Copies between two points of order (a graph, an event, a wait) are done in an order of their own.

use crate::device::CpuFunctions;
use crate::sys;
use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::capture::Captured;
use super::order::{Access, Order, QueueId};

/// Raised when a queue has come to a point.
#[derive(Debug, Default)]
pub(super) struct Flag {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub fn wait(&self) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(raised, |raised| !*raised).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A piece of work.
pub(super) enum Work {
    Graph(Captured),
    /// Bytes from one address to another; the source is read when its turn comes.
    Copy {
        from: *const u8,
        to: *mut u8,
        bytes: usize,
    },
    Record(Arc<Flag>),
    Wait(Arc<Flag>),
}
// SAFETY: addresses point to memory that whoever handed the work over keeps until it is finished, as ggml's
// asynchronous functions demand; captured graphs own their tensors.
unsafe impl Send for Work {}

struct Numbered {
    number: u64,
    work: Work,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Numbered>,
    busy: bool,
    closed: bool,
    next: u64,
    /// Where copies that are not finished copy from, by where to: the last one's source and number.
    sources: HashMap<usize, (usize, u64)>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    order: Arc<Order>,
    id: QueueId,
    /// Longest delay before a piece of work.
    delay: Duration,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue of a backend.
pub(super) struct Queue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    /// `cpu` is ggml's own CPU device.
    pub fn new(id: QueueId, order: Arc<Order>, delay: Duration, seed: u64, cpu: Cpu) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), order, id, delay });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || work(&theirs, seed, cpu));
        Self { shared, thread: Some(thread) }
    }

    pub fn id(&self) -> QueueId {
        self.shared.id
    }

    pub fn order(&self) -> &Order {
        &self.shared.order
    }

    /// Hands over work, which uses this memory; returns its number.
    pub fn push(&self, work: Work, accesses: Vec<Access>, what: &str) -> u64 {
        let mut state = self.shared.state();
        state.next += 1;
        let number = state.next;
        self.shared.order.hand_over(self.shared.id, number, accesses, what);
        if let Work::Copy { from, to, .. } = work {
            state.sources.insert(to as usize, (from as usize, number));
        }
        state.waiting.push_back(Numbered { number, work });
        drop(state);
        self.shared.changed.notify_all();
        number
    }

    /// Where the bytes are that will be at `address` when all that was handed over is done: there, or where a
    /// copy to it begins.
    pub fn upcoming(&self, address: *const u8) -> *const u8 {
        let state = self.shared.state();
        state.sources.get(&(address as usize)).map_or(address, |(from, _)| *from as *const u8)
    }

    /// Waits until all is done.
    pub fn synchronize(&self) {
        let done = |state: &mut State| !state.waiting.is_empty() || state.busy;
        let state = self.shared.changed.wait_while(self.shared.state(), done);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// ggml's own CPU device.
#[derive(Clone, Copy)]
pub(super) struct Cpu(pub sys::ggml_backend_dev_t);
// SAFETY: a device lives for the whole process, and ggml itself shares it between threads.
unsafe impl Send for Cpu {}

/// The thread: takes the next piece, or any of the copies at the head of the queue, after a while.
fn work(shared: &Shared, seed: u64, cpu: Cpu) {
    let Cpu(device) = cpu;
    // SAFETY: the device is alive, and so is its registry entry. One thread: many queues share the machine.
    let backend = unsafe {
        let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
        if let Some(set) = CpuFunctions::of(sys::ggml_backend_dev_backend_reg(device)).set_threads {
            set(backend, 1);
        }
        backend
    };
    let mut random = seed | 1;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below.max(1)
    };
    loop {
        let waiting = |state: &mut State| state.waiting.is_empty() && !state.closed;
        let state = shared.changed.wait_while(shared.state(), waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let copies = state.waiting.iter().take_while(|next| matches!(next.work, Work::Copy { .. })).count();
        let chosen = usize::try_from(draw(copies as u64)).unwrap_or(0);
        let Some(Numbered { number, work }) = state.waiting.remove(chosen) else { break };
        state.busy = true;
        drop(state);
        let delay = draw(u64::try_from(shared.delay.as_micros()).unwrap_or(u64::MAX));
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
        match work {
            // SAFETY: the backend is alive and only this thread's.
            Work::Graph(graph) => unsafe {
                if !graph.compute(backend) {
                    shared.order.violation("a graph could not be computed".to_owned());
                }
            },
            // SAFETY: whoever handed it over keeps both until this is finished (`Work`).
            Work::Copy { from, to, bytes } => unsafe { std::ptr::copy(from, to, bytes) },
            Work::Record(flag) => flag.raise(),
            Work::Wait(flag) => flag.wait(),
        }
        shared.order.finish(shared.id, number);
        let mut state = shared.state();
        state.busy = false;
        state.sources.retain(|_, (_, of)| *of != number);
        drop(state);
        shared.changed.notify_all();
    }
    // SAFETY: made above, freed once.
    unsafe { sys::ggml_backend_free(backend) };
}

/// What `get_tensor_async` and `set_tensor_async` hand over.
pub(super) fn copy(from: *const c_void, to: *mut c_void, bytes: usize) -> Work {
    Work::Copy { from: from.cast(), to: to.cast(), bytes }
}
