//! Between two nodes of a graph: ggml's CPU backend then asks the thread that called it whether to go on.
//! That question is passed to the callback that was set, and the moment is lent to the engine, which keeps
//! its disk busy in it.
//!
//! Invariant: `work` is set only inside [`BetweenNodes::during`], whose borrow of the work outlives every
//! call of it.

use crate::guard;
use crate::sys;
use std::cell::Cell;
use std::ffi::c_void;

type Query = unsafe extern "C" fn(*mut c_void) -> bool;

/// What happens between two nodes. Used by one thread at a time, the one that computes with the backend.
#[derive(Default)]
pub(crate) struct BetweenNodes {
    query: Cell<Option<(Query, *mut c_void)>>,
    work: Cell<Option<*mut (dyn FnMut() + 'static)>>,
    panic: Cell<Option<String>>,
}

impl BetweenNodes {
    /// Who says whether to go on.
    pub(crate) fn set_query(&self, callback: sys::ggml_abort_callback, data: *mut c_void) {
        self.query.set(callback.map(|query| (query, data)));
    }

    /// Computes, doing `work` between nodes. A panic of the work ends the graph and is returned.
    pub(crate) fn during<T>(&self, work: &mut dyn FnMut(), compute: impl FnOnce() -> T) -> Result<T, String> {
        struct Forget<'a>(&'a BetweenNodes);
        impl Drop for Forget<'_> {
            fn drop(&mut self) {
                self.0.work.set(None);
            }
        }
        // SAFETY: only the lifetime changes; `Forget` takes the pointer away before the borrow of `work`
        // ends, also when `compute` unwinds.
        let lent = unsafe { std::mem::transmute::<*mut dyn FnMut(), *mut (dyn FnMut() + 'static)>(work) };
        self.work.set(Some(lent));
        let forget = Forget(self);
        let outcome = compute();
        drop(forget);
        self.panic.take().map_or(Ok(outcome), Err)
    }

    /// Whether to stop.
    fn pause(&self) -> bool {
        // Taken while it runs: it cannot be entered twice.
        if let Some(work) = self.work.take() {
            // SAFETY: set by `during`, which is still running; nobody else has the work, because its borrow
            // is exclusive.
            if let Err(panic) = guard::catch(|| unsafe { (*work)() }) {
                self.panic.set(Some(panic));
                return true;
            }
            self.work.set(Some(work));
        }
        match self.query.get() {
            // SAFETY: the callback gets the data that it was set with, as ggml promises.
            Some((query, data)) => unsafe { query(data) },
            None => false,
        }
    }
}

/// ggml's abort callback; its data is a [`BetweenNodes`].
///
/// # Safety
/// `between` is alive, and the calling thread is the one that computes with it.
pub(crate) unsafe extern "C" fn on_node(between: *mut c_void) -> bool {
    // SAFETY: the caller's promise. Only shared references to it exist.
    unsafe { (*between.cast::<BetweenNodes>()).pause() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(between: &BetweenNodes) -> bool {
        // SAFETY: the between is alive and this is the only thread that uses it.
        unsafe { on_node(std::ptr::from_ref(between).cast_mut().cast()) }
    }

    unsafe extern "C" fn answer(data: *mut c_void) -> bool {
        // SAFETY: the tests pass a bool.
        unsafe { *data.cast::<bool>() }
    }

    #[test]
    fn work_is_done_between_nodes_and_not_afterwards() {
        let between = BetweenNodes::default();
        let mut done = 0;
        let outcome = between.during(&mut || done += 1, || (pause(&between), pause(&between)));
        assert_eq!(outcome, Ok((false, false)));
        assert!(!pause(&between));
        assert_eq!(done, 2);
    }

    #[test]
    fn the_question_is_passed_on() {
        let between = BetweenNodes::default();
        let mut stop = false;
        between.set_query(Some(answer), (&raw mut stop).cast());
        assert!(!pause(&between));
        stop = true;
        between.set_query(Some(answer), (&raw mut stop).cast());
        assert!(pause(&between));
        assert_eq!(between.during(&mut || (), || pause(&between)), Ok(true));
    }

    #[test]
    fn a_panic_ends_the_graph_and_the_work() {
        let between = BetweenNodes::default();
        let mut calls = 0;
        let mut work = || {
            calls += 1;
            panic!("the disk is gone")
        };
        let outcome = between.during(&mut work, || assert!(pause(&between)));
        assert_eq!(outcome, Err("the disk is gone".to_owned()));
        assert!(!pause(&between));
        assert_eq!(calls, 1);
    }

    #[test]
    fn work_is_forgotten_when_computing_unwinds() {
        let between = BetweenNodes::default();
        let mut calls = 0;
        let unwound = guard::catch(|| between.during(&mut || calls += 1, || panic!("no graph")));
        assert!(unwound.is_err());
        assert!(!pause(&between));
        assert_eq!(calls, 0);
    }
}
