//! The thread that loads: takes the oldest wish, makes room, loads, and serves everybody who waits for that model.
//!
//! There is one such thread, so there are never two loads at once. It never holds the table's lock while it plans or
//! loads, so nobody waits for it who does not want a model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Engine, Fit, LoadWish, Plan};
use super::catalog::ModelEntry;
use super::table::{State, Table};
use crate::server::Failure;

/// The loader's own.
pub(super) struct Loader {
    pub table: Arc<Table>,
    pub backend: Arc<dyn Backend>,
    pub budget_bytes: u64,
    /// Most models at once; 0: as many as fit.
    pub max_loaded: usize,
}

/// A model that streams anyway gets on with this share of the budget, in quarters, before idle models must leave for it.
const ENOUGH_TO_STREAM_QUARTERS: u64 = 3;

impl Loader {
    /// Works until the table is closed.
    pub fn run(&self) {
        while let Some((entry, wish)) = self.next() {
            let start = Instant::now();
            tracing::info!(model = %entry.name, "loading");
            let loaded = self.plan(&entry, wish).and_then(|plan| plan.load(&self.table.progress));
            match &loaded {
                Ok(engine) => tracing::info!(
                    model = %entry.name,
                    mode = %engine.facts().mode,
                    seconds = start.elapsed().as_secs_f64(),
                    "loaded"
                ),
                Err(failure) => tracing::warn!(model = %entry.name, reason = %failure, "not loaded"),
            }
            self.serve(&entry, loaded, start.elapsed());
        }
    }

    /// The next wish that somebody still has and that no loaded model satisfies.
    fn next(&self) -> Option<(Arc<ModelEntry>, LoadWish)> {
        let mut state = self.table.lock();
        loop {
            state.wants.retain(|want| !want.reply.is_closed());
            if state.closed {
                return None;
            }
            if let Some(want) = state.wants.front() {
                let found = (Arc::clone(&want.entry), want.wish);
                state.loading = Some(Arc::clone(&found.0));
                return Some(found);
            }
            state = self.table.wait(state);
        }
    }

    /// Answers everybody who waits for this model: with a lease, or with the failure.
    fn serve(&self, entry: &Arc<ModelEntry>, loaded: Result<Arc<dyn Engine>, Failure>, load_time: Duration) {
        let mut state = self.table.lock();
        state.loading = None;
        // In one step with the leases, so that a model that nobody keeps does not leave before its first request.
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
                None => self
                    .table
                    .lease(&mut state, &want.entry, want.keep)
                    .ok_or_else(|| Failure::internal("the model left again at once, please try again")),
            };
            replies.push((want.reply, answer));
        }
        drop(state);
        for (reply, answer) in replies {
            // Whoever went away drops the lease that nobody took.
            drop(reply.send(answer));
        }
        self.table.ring();
    }

    /// A plan for the model, after idle models left for it as far as needed.
    fn plan(&self, entry: &Arc<ModelEntry>, wish: LoadWish) -> Result<Box<dyn Plan>, Failure> {
        self.retire_older_versions(entry);
        loop {
            let free_bytes = self.free_bytes();
            let crowded = self.is_crowded();
            let fit = if crowded { None } else { Some(self.backend.plan(entry, &wish, free_bytes)?) };
            let enough = self.budget_bytes / 4 * ENOUGH_TO_STREAM_QUARTERS;
            let (plan, too_small) = match fit {
                Some(Fit::Resident(plan)) => return Ok(plan),
                Some(Fit::Streaming(plan)) if free_bytes >= enough => return Ok(plan),
                Some(Fit::Streaming(plan)) => (Some(plan), None),
                Some(Fit::TooSmall(failure)) => (None, Some(failure)),
                None => (None, None),
            };
            let mut state = self.table.lock();
            if let Some(idle) = Table::oldest_idle(&state) {
                self.table.remove(&mut state, idle);
                self.wait_until_freed(state);
                continue;
            }
            if let Some(plan) = plan {
                return Ok(plan);
            }
            if state.closed {
                return Err(Failure::internal("the server is shutting down"));
            }
            if state.slots.is_empty() && state.stopping == 0 {
                return Err(too_small.unwrap_or_else(|| Failure::internal("no model may be loaded")));
            }
            // Somebody's model is in the way and at work: its end rings the bell.
            drop(self.table.wait(state));
        }
    }

    fn is_crowded(&self) -> bool {
        self.max_loaded > 0 && self.table.lock().slots.len() >= self.max_loaded
    }

    fn wait_until_freed(&self, mut state: std::sync::MutexGuard<'_, State>) {
        while state.stopping > 0 {
            state = self.table.wait(state);
        }
    }

    fn free_bytes(&self) -> u64 {
        let engines: Vec<Arc<dyn Engine>> =
            self.table.lock().slots.iter().map(|slot| Arc::clone(&slot.engine)).collect();
        let held: u64 = engines
            .iter()
            .map(|engine| engine.status())
            .map(|status| status.host_bytes.saturating_add(status.device_bytes))
            .sum();
        self.budget_bytes.saturating_sub(held)
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
        self.wait_until_freed(state);
    }
}
