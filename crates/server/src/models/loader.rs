//! The thread that loads: takes the oldest load request, makes room, loads, and serves everybody who waits
//! for that model.
//!
//! There is one such thread, so there are never two loads at once. It never holds the table's lock while it
//! plans or loads, so nobody waits for it who does not want a model.

use hypura_engine::budget::SharedMemory;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::backend::{Backend, Engine, Fit, LoadHost, LoadProgress, LoadRequest, Plan};
use super::table::{Pool, State, Table, Want};
use crate::Failure;
use hypura_store::ModelEntry;

/// The loader's own.
pub(super) struct Loader {
    pub table: Arc<Table>,
    pub backend: Arc<dyn Backend>,
    /// Most models at once; 0: as many as fit.
    pub max_loaded: usize,
}

/// How often to check whether a waiting request was cancelled: a dropped request sends no notification.
const LOOK: Duration = Duration::from_millis(500);

/// A model that streams anyway gets on with this share of the budget, in quarters, before idle models must
/// leave for it.
const ENOUGH_TO_STREAM_QUARTERS: u64 = 3;

/// Memory that became free while a model was planned counts from this share of the budget on.
const NOTICEABLE_SHARE: u64 = 64;
/// How often it is planned again for that, however memory comes and goes.
const MOST_AGAIN: u32 = 8;

impl Loader {
    /// Works until the table is closed.
    pub fn run(&self) {
        while let Some((entry, load_request)) = self.next() {
            let start = Instant::now();
            tracing::info!(model = %entry.name, "loading");
            let loaded = self.plan(&entry, load_request).and_then(|plan| plan.load(self));
            match &loaded {
                Ok(engine) => announce(&entry, engine.as_ref(), start.elapsed()),
                Err(failure) => tracing::warn!(model = %entry.name, reason = %failure, "not loaded"),
            }
            self.serve(&entry, loaded, start.elapsed());
        }
    }

    /// The next load request that is still open and that no loaded model satisfies.
    fn next(&self) -> Option<(Arc<ModelEntry>, LoadRequest)> {
        let mut state = self.table.lock();
        loop {
            state.wants.retain(|want| !want.reply.is_closed());
            if state.closed {
                return None;
            }
            if let Some(want) = state.wants.front() {
                let found = (Arc::clone(&want.entry), want.load_request);
                state.loading = Some(Arc::clone(&found.0));
                state.load_progress = LoadProgress::default();
                return Some(found);
            }
            state = self.table.wait(state);
        }
    }

    /// Answers everybody who waits for this model: with a lease, or with the failure.
    fn serve(&self, entry: &Arc<ModelEntry>, loaded: Result<Arc<dyn Engine>, Failure>, load_time: Duration) {
        let mut state = self.table.lock();
        if state.closed {
            drop(state);
            // Nobody takes leases any more, and closing the table waits until nothing is left.
            if let Ok(engine) = loaded {
                engine.stop(false);
            }
            self.table.lock().loading = None;
            self.table.ring();
            return;
        }
        state.loading = None;
        state.load_bytes = 0;
        // In one step with the leases, so that a model that nobody keeps does not leave before its first
        // request.
        let failure = match loaded {
            Ok(engine) => {
                self.table.insert(&mut state, Arc::clone(entry), engine, load_time);
                None
            }
            Err(failure) => Some(failure),
        };
        let mut replies = Vec::new();
        let mut others = std::mem::take(&mut state.wants);
        others.retain(|want| !want.reply.is_closed());
        for want in others {
            if !want.entry.same_weights(entry) {
                state.wants.push_back(want);
                continue;
            }
            let answer = match &failure {
                Some(failure) => Err(failure.clone()),
                None => self.table.lease(&mut state, &want.entry, want.keep).ok_or_else(|| {
                    Failure::internal("the model was unloaded again at once, please try again")
                }),
            };
            replies.push((want.reply, answer));
        }
        drop(state);
        for (reply, answer) in replies {
            // A cancelled request drops the lease that nobody took.
            drop(reply.send(answer));
        }
        self.table.ring();
    }

    /// A plan for the model, after idle models left for it as far as needed. Its memory is promised to it
    /// from here on.
    fn plan(&self, entry: &Arc<ModelEntry>, load_request: LoadRequest) -> Result<Box<dyn Plan>, Failure> {
        self.retire_older_versions(entry);
        let mut again = 0;
        loop {
            let free_bytes = self.free_at_rest();
            let fit = if self.is_crowded() {
                None
            } else {
                Some(self.backend.plan(entry, &load_request, free_bytes)?)
            };
            let (plan, fits, too_small) = self.judge(fit, free_bytes);
            let mut state = self.table.lock();
            if state.closed {
                return Err(Failure::internal("the server is shutting down"));
            }
            if !fits && again < MOST_AGAIN && self.has_room_come(&state, free_bytes) {
                again += 1;
                continue;
            }
            let idle = if fits { None } else { Table::oldest_idle(&state) };
            if let Some(idle) = idle {
                self.table.remove(&mut state, idle);
            } else if let Some(plan) = plan {
                // A context may have grown meanwhile; then it is planned again with what is left.
                let now_free = self.table.free(&state);
                if plan.bytes() <= now_free || now_free >= free_bytes {
                    state.load_bytes = plan.bytes();
                    return Ok(plan);
                }
                // The process that it is for takes a while to end; the table is not held meanwhile.
                drop(state);
                drop(plan);
            } else if state.slots.is_empty() {
                return Err(too_small.unwrap_or_else(|| Failure::internal("no model may be loaded")));
            } else {
                self.wait_for_room(state, entry)?;
            }
        }
    }

    /// What there is of a plan; whether nobody has to leave for it; why there is none.
    fn judge(&self, fit: Option<Fit>, free_bytes: u64) -> (Option<Box<dyn Plan>>, bool, Option<Failure>) {
        let enough = self.table.budget_bytes / 4 * ENOUGH_TO_STREAM_QUARTERS;
        match fit {
            Some(Fit::Resident(plan)) => (Some(plan), true, None),
            Some(Fit::Streaming(plan)) => (Some(plan), free_bytes >= enough, None),
            Some(Fit::TooSmall(failure)) => (None, false, Some(failure)),
            None => (None, false, None),
        }
    }

    /// Free memory once all that leaves has left: whoever is planned for while another one leaves would be
    /// refused, or stream, with memory for it to come.
    fn free_at_rest(&self) -> u64 {
        let mut state = self.table.lock();
        self.table.retire_dead(&mut state);
        let state = self.wait_until_freed(state);
        self.table.free(&state)
    }

    /// Whether there is noticeably more memory than was planned with, or will be in a moment.
    fn has_room_come(&self, state: &State, free_bytes: u64) -> bool {
        let noticeable = self.table.budget_bytes / NOTICEABLE_SHARE;
        state.stopping > 0 || self.table.free(state) > free_bytes.saturating_add(noticeable)
    }

    /// Somebody's model is in the way and at work: waits for a change, or for all who want the new one to go
    /// away.
    fn wait_for_room(&self, mut state: MutexGuard<'_, State>, entry: &ModelEntry) -> Result<(), Failure> {
        state.waits_for_room = true;
        loop {
            let (guard, rang) = self.table.wait_for(state, LOOK);
            state = guard;
            let wants = |want: &Want| want.entry.same_weights(entry) && !want.reply.is_closed();
            let wanted = state.wants.iter().any(wants);
            if rang || !wanted {
                state.waits_for_room = false;
                // Restarts the timeout for loads without progress.
                self.table.advance();
                let gone = || Failure::internal("nobody wants the model any more");
                return wanted.then_some(()).ok_or_else(gone);
            }
        }
    }

    fn is_crowded(&self) -> bool {
        self.max_loaded > 0 && self.table.lock().slots.len() >= self.max_loaded
    }

    fn wait_until_freed<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.stopping > 0 {
            state = self.table.wait(state);
            // Another model's end is no load without progress.
            self.table.advance();
        }
        state
    }

    /// A file that was replaced has a new entry: what was loaded from the old one finishes and leaves.
    fn retire_older_versions(&self, entry: &ModelEntry) {
        let mut state = self.table.lock();
        let older: Vec<(u64, bool)> = state
            .slots
            .iter_mut()
            .filter(|slot| slot.entry.name == entry.name && !slot.entry.same_weights(entry))
            .map(|slot| {
                slot.retired = true;
                (slot.id, slot.in_use == 0)
            })
            .collect();
        for (id, _) in older.into_iter().filter(|(_, idle)| *idle) {
            self.table.remove(&mut state, id);
        }
    }
}

/// What the log says of a model that was loaded.
fn announce(entry: &ModelEntry, engine: &dyn Engine, took: Duration) {
    let info = engine.info();
    tracing::info!(model = %entry.name, mode = %info.mode.name(), seconds = took.as_secs_f64(), "loaded");
    for note in &info.notes {
        tracing::info!(model = %entry.name, note, "loaded");
    }
    if engine.lacks_template() {
        tracing::warn!(
            model = %entry.name,
            "the file has no chat template: ChatML is assumed, which the model may not know; a Modelfile with \
             TEMPLATE gives it the right one"
        );
    }
}

impl LoadHost for Loader {
    fn advanced(&self, progress: LoadProgress) -> bool {
        self.table.advance();
        let mut state = self.table.lock();
        state.load_progress = progress;
        !state.closed
    }

    fn is_wanted(&self) -> bool {
        !self.table.lock().closed
    }

    fn memory(&self) -> Arc<dyn SharedMemory> {
        Arc::new(Pool(Arc::downgrade(&self.table)))
    }
}
