//! Masks of constraints, computed while the model computes the logits that they are for: the mask of the next
//! token is known as soon as the last token is, and a thread of the model has a whole forward pass for it.
//!
//! What the thread has not begun when the logits are there is not waited for, so a machine without an idle
//! core loses nothing. Invariant: masks change no answer, they are those that would be computed in line.

use llguidance::toktrie::SimpleVob;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::constraint::Constraint;
use crate::sys;
use crate::vocab::Token;

/// A mask costs a core some of the time in which the model computes, and only tokens that are refused need
/// one. So none is made after so many in a row that nobody needed, until the next refusal.
const MOST_UNUSED: u32 = 8;

/// llama.cpp's grammars recurse, as on the stack of whoever samples; address space only.
const STACK: usize = 64 << 20;

/// Computes masks, one after the other. Ends with the model that it belongs to.
pub(crate) struct MaskThread {
    jobs: Sender<Weak<Mutex<Shared>>>,
}

/// A constraint, locked by whoever works with it.
struct Shared {
    /// Taken by its owner in the end: a model is not freed by a thread that belongs to it.
    constraint: Option<Constraint>,
    /// What may come next, where it is known.
    mask: Option<SimpleVob>,
    /// Whether the thread is to compute the mask.
    wanted: bool,
}

/// A constraint whose masks may be computed ahead.
pub(crate) struct MaskedConstraint {
    shared: Arc<Mutex<Shared>>,
    thread: Option<Arc<MaskThread>>,
    /// Masks in a row that were asked for and not needed.
    unused: u32,
}

impl MaskThread {
    /// Starts the thread; `None` where the system has none.
    pub fn start() -> Option<Self> {
        let (jobs, queue) = channel::<Weak<Mutex<Shared>>>();
        let work = move || queue.iter().filter_map(|job| job.upgrade()).for_each(|job| lock(&job).compute());
        std::thread::Builder::new().name("masks".to_owned()).stack_size(STACK).spawn(work).ok()?;
        Some(Self { jobs })
    }
}

impl Shared {
    fn compute(&mut self) {
        if !std::mem::take(&mut self.wanted) {
            return;
        }
        // After a panic the mask is computed again in line, where the panic ends the request.
        self.mask = catch_unwind(AssertUnwindSafe(|| Some(self.constraint.as_mut()?.mask()))).ok().flatten();
    }
}

impl MaskedConstraint {
    pub fn new(constraint: Constraint, thread: Option<Arc<MaskThread>>) -> Self {
        let shared = Shared { constraint: Some(constraint), mask: None, wanted: false };
        Self { shared: Arc::new(Mutex::new(shared)), thread, unused: 0 }
    }

    /// Has the mask of the next token computed, if it is likely to be needed. `lazy`: a grammar that may
    /// sleep has masks only where it is in a value.
    pub fn compute_ahead(&mut self, lazy: bool) {
        let Some(thread) = self.thread.as_ref().filter(|_| self.unused < MOST_UNUSED) else { return };
        let mut shared = lock(&self.shared);
        let is_in_value = shared.constraint.as_ref().is_some_and(Constraint::is_in_value);
        if shared.wanted || shared.mask.is_some() || (lazy && !is_in_value) {
            return;
        }
        shared.wanted = true;
        drop(shared);
        self.unused += 1;
        // Where the thread is gone, masks are computed in line.
        let _gone = thread.jobs.send(Arc::downgrade(&self.shared));
    }

    /// Whether the token may come next.
    pub fn allows(&self, token: Token) -> bool {
        self.take_back().constraint.as_mut().is_some_and(|constraint| constraint.allows(token))
    }

    /// Goes on; false, and nothing changes, where the token is not allowed.
    pub fn accept(&self, token: Token) -> bool {
        let mut shared = self.take_back();
        let Shared { constraint: Some(constraint), mask, .. } = &mut *shared else { return false };
        let accepted = constraint.accept(token);
        if accepted {
            *mask = None;
        }
        accepted
    }

    /// Takes from a row of candidates, one for each token and in their order, what may not come next.
    pub fn apply(&mut self, candidates: &mut [sys::llama_token_data]) {
        self.unused = 0;
        let mut shared = self.take_back();
        match &mut *shared {
            Shared { mask: Some(mask), .. } => Constraint::apply_mask(mask, candidates),
            Shared { constraint: Some(constraint), .. } => constraint.apply(candidates),
            Shared { constraint: None, .. } => {}
        }
    }

    /// Waits where the thread is busy with this constraint; what it has not begun it need not do.
    fn take_back(&self) -> MutexGuard<'_, Shared> {
        let mut shared = lock(&self.shared);
        shared.wanted = false;
        shared
    }
}

impl Drop for MaskedConstraint {
    fn drop(&mut self) {
        let constraint = self.take_back().constraint.take();
        drop(constraint);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
