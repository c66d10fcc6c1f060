//! What handles and the scheduler share: the queue of waiting requests, the step in progress, and the latest
//! status.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::types::RunnerStatus;
use crate::request::{EmbedSink, Sink, SubmitError};
use crate::session::embed::EmbedWork;
use crate::session::sequence::Setup;
use crate::stream::ExpertMap;

/// A request on its way to the scheduler.
pub(super) struct Job {
    pub id: u64,
    pub task: Task,
    pub cancelled: Arc<AtomicBool>,
    pub since: Instant,
}

/// What a request wants.
pub(super) enum Task {
    /// An answer.
    Generate(Box<Setup>, Sink),
    /// Vectors.
    Embed(EmbedWork, EmbedSink),
}

/// Whether the runner continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Stop {
    /// It does.
    #[default]
    No,
    /// What was accepted is finished first.
    Drain,
    /// Everything ends now.
    Now,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Job>,
    /// Requests that the scheduler has taken and not finished.
    running: usize,
    stop: Stop,
    /// The scheduler is gone and the model freed.
    freed: bool,
    next_id: u64,
}

/// Requests in the step that is being computed.
#[derive(Default)]
struct InStep(Vec<(Arc<AtomicBool>, usize)>);

/// Somebody who asked for the map of experts within so long watches it.
const WATCHES: Duration = Duration::from_secs(3);
/// Between two maps of a model at work.
const MAP_EVERY: Duration = Duration::from_millis(400);

/// The map of experts, which is made only while somebody watches.
#[derive(Default)]
struct Watched {
    asked: Option<Instant>,
    made: Option<Instant>,
    map: Option<ExpertMap>,
}

/// Shared by the handles and the scheduler of one runner.
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    step: Mutex<InStep>,
    status: Mutex<RunnerStatus>,
    experts: Mutex<Watched>,
    /// Stops the decode in progress.
    abort: Arc<AtomicBool>,
    /// What grows while a step computes.
    within_steps: Vec<Arc<AtomicU64>>,
    /// Grows when a step begins or ends.
    steps: AtomicU64,
    parallel: usize,
    max_queue: usize,
}

/// What the scheduler has to do next.
pub(super) struct Work {
    pub jobs: Vec<Job>,
    pub stop: Stop,
}

impl Queue {
    /// `within_steps`: counters that grow as long as the step in progress gets on.
    pub fn new(
        abort: Arc<AtomicBool>,
        within_steps: Vec<Arc<AtomicU64>>,
        parallel: usize,
        max_queue: usize,
    ) -> Self {
        Self {
            inbox: Mutex::default(),
            changed: Condvar::new(),
            step: Mutex::default(),
            status: Mutex::default(),
            experts: Mutex::default(),
            abort,
            within_steps,
            steps: AtomicU64::new(0),
            parallel,
            max_queue,
        }
    }

    /// Lets a request wait. Its id is made by `make`'s argument.
    pub fn push(&self, make: impl FnOnce(u64) -> Job) -> Result<u64, SubmitError> {
        let mut inbox = lock(&self.inbox);
        if inbox.stop != Stop::No || inbox.freed {
            return Err(SubmitError::Stopped);
        }
        let free = self.parallel.saturating_sub(inbox.running);
        if inbox.waiting.len() >= self.max_queue.saturating_add(free) {
            return Err(SubmitError::QueueFull(inbox.waiting.len()));
        }
        let id = inbox.next_id;
        inbox.next_id += 1;
        inbox.waiting.push_back(make(id));
        self.changed.notify_all();
        Ok(id)
    }

    /// For the scheduler: the next requests, as far as there are sequences for them. Waits while `idle` and
    /// nothing is to do.
    pub fn take(&self, running: usize, idle: bool) -> Work {
        let mut inbox = lock(&self.inbox);
        inbox.running = running;
        loop {
            inbox.waiting.retain(|job| !job.cancelled.load(Ordering::Relaxed));
            let room = self.parallel.saturating_sub(running).min(inbox.waiting.len());
            let jobs: Vec<Job> = inbox.waiting.drain(..room).collect();
            let done = inbox.stop != Stop::No && (inbox.waiting.is_empty() || inbox.stop == Stop::Now);
            if !jobs.is_empty() || !idle || done {
                inbox.running += jobs.len();
                return Work { jobs, stop: inbox.stop };
            }
            inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the scheduler: what still waits, when everything ends.
    pub fn rest(&self) -> Vec<Job> {
        lock(&self.inbox).waiting.drain(..).collect()
    }

    /// The context that a sequence has now, as of the latest status.
    pub fn context(&self) -> u32 {
        lock(&self.status).context_length
    }

    /// Whether there is something to do at once.
    pub fn is_busy(&self) -> bool {
        let inbox = lock(&self.inbox);
        !inbox.waiting.is_empty() || inbox.stop != Stop::No
    }

    /// For the scheduler: a step of these requests and their tokens begins. False: one of them is cancelled
    /// already, or everything is to end now.
    pub fn begin_step(&self, parts: Vec<(Arc<AtomicBool>, usize)>) -> bool {
        let mut step = lock(&self.step);
        // With the step locked: a stop or a cancellation after this finds the step, and raises the flag.
        if self.stops_now() || parts.iter().any(|(cancelled, _)| cancelled.load(Ordering::Relaxed)) {
            return false;
        }
        self.abort.store(false, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        step.0 = parts;
        true
    }

    /// For the scheduler: the step is over.
    pub fn end_step(&self) {
        let mut step = lock(&self.step);
        step.0.clear();
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.abort.store(false, Ordering::Relaxed);
    }

    /// Cancels a request. The step in progress is stopped when it is mostly for cancelled requests; otherwise
    /// it ends by itself soon, and nobody else's work is lost.
    pub fn cancel(&self, cancelled: &AtomicBool) {
        cancelled.store(true, Ordering::Relaxed);
        let step = lock(&self.step);
        let all: usize = step.0.iter().map(|(_, tokens)| tokens).sum();
        let gone = step.0.iter().filter(|(cancelled, _)| cancelled.load(Ordering::Relaxed));
        let gone: usize = gone.map(|(_, tokens)| tokens).sum();
        if gone > 0 && gone * 2 >= all {
            self.abort.store(true, Ordering::Relaxed);
        }
        drop(step);
        // A request that waits leaves at once.
        self.changed.notify_all();
    }

    /// Asks the scheduler to end.
    pub fn stop(&self, stop: Stop) {
        let mut inbox = lock(&self.inbox);
        if inbox.stop != Stop::Now {
            inbox.stop = stop;
        }
        drop(inbox);
        if stop == Stop::Now {
            let step = lock(&self.step);
            if !step.0.is_empty() {
                self.abort.store(true, Ordering::Relaxed);
            }
        }
        self.changed.notify_all();
    }

    /// Whether everything is to end now.
    pub fn stops_now(&self) -> bool {
        lock(&self.inbox).stop == Stop::Now
    }

    /// For the scheduler: the model is freed.
    pub fn set_freed(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.freed = true;
        inbox.running = 0;
        drop(inbox);
        self.changed.notify_all();
    }

    /// Waits until the model is freed.
    pub fn wait_freed(&self) {
        let mut inbox = lock(&self.inbox);
        while !inbox.freed {
            inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the model is there and takes requests.
    pub fn is_open(&self) -> bool {
        let inbox = lock(&self.inbox);
        !inbox.freed && inbox.stop == Stop::No
    }

    /// The latest status.
    pub fn status(&self) -> RunnerStatus {
        // In this order: when nothing runs any more, the snapshot that shows how it ended is there already.
        let (queued, active) = {
            let inbox = lock(&self.inbox);
            (inbox.waiting.len(), inbox.running)
        };
        RunnerStatus { queued, active, moved: self.moved(), ..lock(&self.status).clone() }
    }

    /// Grows with everything that a step computes or reads.
    fn moved(&self) -> u64 {
        let within = self.within_steps.iter().map(|count| count.load(Ordering::Relaxed));
        within.fold(self.steps.load(Ordering::Relaxed), u64::wrapping_add)
    }

    /// The latest map of experts. From now on the scheduler makes new ones, for a while.
    pub fn experts(&self) -> Option<ExpertMap> {
        let mut watched = lock(&self.experts);
        watched.asked = Some(Instant::now());
        watched.map.clone()
    }

    /// For the scheduler: whether somebody waits for a new map.
    pub fn wants_experts(&self) -> bool {
        let watched = lock(&self.experts);
        let within = |time: Option<Instant>, limit| time.is_some_and(|time| time.elapsed() < limit);
        within(watched.asked, WATCHES) && !within(watched.made, MAP_EVERY)
    }

    /// For the scheduler: a new map.
    pub fn publish_experts(&self, map: Option<ExpertMap>) {
        let mut watched = lock(&self.experts);
        watched.made = Some(Instant::now());
        watched.map = map;
    }

    /// For the scheduler: a new status.
    pub fn publish(&self, status: RunnerStatus) {
        *lock(&self.status) = status;
    }
}

/// The step is locked before the inbox where both are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_with_a_job() -> (Queue, Arc<AtomicBool>, Arc<AtomicBool>) {
        let abort = Arc::<AtomicBool>::default();
        let queue = Queue::new(Arc::clone(&abort), Vec::new(), 1, 1);
        let cancelled = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&cancelled);
        let task = Task::Embed(EmbedWork::new(Vec::new()), Box::new(|_| ()));
        queue.push(|id| Job { id, task, cancelled: flag, since: Instant::now() }).unwrap();
        (queue, abort, cancelled)
    }

    #[test]
    fn whoever_watches_sees_that_a_step_gets_on_and_that_it_does_not() {
        let node = Arc::<AtomicU64>::default();
        let queue = Queue::new(Arc::default(), vec![Arc::clone(&node)], 1, 1);
        let mut last = queue.status().moved;
        let mut has_moved = || std::mem::replace(&mut last, queue.status().moved) != last;
        assert!(!has_moved());
        assert!(queue.begin_step(Vec::new()));
        assert!(has_moved(), "a step has begun");
        assert!(!has_moved(), "and hangs");
        node.fetch_add(1, Ordering::Relaxed);
        assert!(has_moved(), "no longer");
        queue.end_step();
        assert!(has_moved(), "it is over");
    }

    #[test]
    fn a_stop_between_take_and_the_step_is_not_lost() {
        let (queue, abort, cancelled) = queue_with_a_job();
        assert_eq!(queue.take(0, true).jobs.len(), 1);
        // A context grows here, or a KV cache is read.
        queue.stop(Stop::Now);
        assert!(!queue.begin_step(vec![(Arc::clone(&cancelled), 1)]), "no step begins any more");
        assert!(!abort.load(Ordering::Relaxed), "nothing is left to be stopped");
    }

    #[test]
    fn a_stop_during_the_step_raises_the_flag() {
        let (queue, abort, cancelled) = queue_with_a_job();
        queue.take(0, true);
        assert!(queue.begin_step(vec![(Arc::clone(&cancelled), 1)]));
        queue.stop(Stop::Now);
        assert!(abort.load(Ordering::Relaxed));
        queue.end_step();
        assert!(!queue.begin_step(vec![(cancelled, 1)]));
    }

    #[test]
    fn a_map_is_made_only_while_somebody_asks_and_not_at_every_step() {
        let (queue, ..) = queue_with_a_job();
        assert!(!queue.wants_experts(), "nobody watches");
        assert_eq!(queue.experts(), None);
        assert!(queue.wants_experts());
        queue.publish_experts(Some(ExpertMap::default()));
        assert!(!queue.wants_experts(), "there is one of just now");
        assert_eq!(queue.experts(), Some(ExpertMap::default()));
    }

    #[test]
    fn a_drain_lets_the_steps_go_on() {
        let (queue, abort, cancelled) = queue_with_a_job();
        queue.take(0, true);
        queue.stop(Stop::Drain);
        assert!(queue.begin_step(vec![(cancelled, 1)]));
        assert!(!abort.load(Ordering::Relaxed));
    }

    #[test]
    fn a_cancellation_between_take_and_the_step_is_not_lost() {
        let (queue, abort, cancelled) = queue_with_a_job();
        queue.take(0, true);
        queue.cancel(&cancelled);
        assert!(!queue.begin_step(vec![(cancelled, 1)]));
        assert!(!abort.load(Ordering::Relaxed));
    }
}
