//! What is loaded, who uses it and what is asked for: one lock, held for moments only.
//!
//! Invariants: an engine leaves the table before it is stopped, and nobody takes a lease on one that left or
//! died. `stopping` counts engines whose memory is not free yet. What engines hold, what leaves, and what was
//! promised (to the load in progress, to contexts that grow) is never more than the budget.

use hypura_engine::budget::SharedMemory;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::backend::{Engine, LoadProgress, LoadRequest};
use crate::keep_alive::KeepAlive;
use crate::{Failure, time};
use hypura_store::ModelEntry;

/// One loaded model.
pub(super) struct Slot {
    pub id: u64,
    pub entry: Arc<ModelEntry>,
    pub engine: Arc<dyn Engine>,
    pub load_time: Duration,
    pub in_use: usize,
    pub keep: KeepAlive,
    /// When it is unloaded if no request comes; `None` while in use and for ever.
    pub expires: Option<Instant>,
    pub last_used: Instant,
    /// Leaves as soon as it is idle: it was unloaded, or its file was replaced.
    pub retired: bool,
}

impl Slot {
    /// When it leaves, as `/api/ps` says it.
    pub fn expires_at(&self) -> SystemTime {
        match (self.keep, self.expires) {
            (KeepAlive::Ever, _) => time::for_ever(),
            (KeepAlive::For(_), Some(at)) => SystemTime::now() + at.saturating_duration_since(Instant::now()),
            (KeepAlive::For(keep), None) => SystemTime::now() + keep,
        }
    }

    fn touch(&mut self) {
        self.last_used = Instant::now();
        self.expires = match self.keep {
            KeepAlive::For(keep) if self.in_use == 0 => self.last_used.checked_add(keep),
            _ => None,
        };
    }
}

/// The use of a loaded model. Its keep-alive time begins when the last lease is dropped.
pub struct Lease {
    table: Arc<Table>,
    id: u64,
    engine: Arc<dyn Engine>,
}

impl Lease {
    fn new(table: Arc<Table>, id: u64, engine: Arc<dyn Engine>) -> Self {
        Self { table, id, engine }
    }

    /// The model.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.release(self.id);
    }
}

/// A request that waits for a model.
pub(super) struct Want {
    pub entry: Arc<ModelEntry>,
    pub load_request: LoadRequest,
    pub keep: Option<KeepAlive>,
    pub reply: oneshot::Sender<Result<Lease, Failure>>,
}

#[derive(Default)]
pub(super) struct State {
    pub slots: Vec<Slot>,
    pub wants: VecDeque<Want>,
    pub stopping: usize,
    /// Bytes that engines still hold which were taken out.
    pub stopping_bytes: u64,
    pub loading: Option<Arc<ModelEntry>>,
    /// How far that is.
    pub load_progress: LoadProgress,
    /// The model that is to be loaded waits for another one's end: no progress is to be expected of it.
    pub waits_for_room: bool,
    /// Bytes promised to the load in progress.
    pub load_bytes: u64,
    /// Bytes promised to contexts that grow.
    pub growth_bytes: u64,
    pub closed: bool,
    next_id: u64,
}

/// The state, its lock and its bell. The bell rings at every change.
pub(super) struct Table {
    state: Mutex<State>,
    bell: Condvar,
    pub default_keep: KeepAlive,
    /// Memory for all models together.
    pub budget_bytes: u64,
    /// Grows while a load makes progress.
    progress: AtomicU64,
}

impl Table {
    pub fn new(default_keep: KeepAlive, budget_bytes: u64) -> Self {
        Self {
            state: Mutex::default(),
            bell: Condvar::new(),
            default_keep,
            budget_bytes,
            progress: AtomicU64::new(0),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'a>(&self, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the bell rang within the limit.
    pub fn wait_for<'a>(
        &self,
        guard: MutexGuard<'a, State>,
        limit: Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        let (guard, limit) = self.bell.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner);
        (guard, !limit.timed_out())
    }

    pub fn ring(&self) {
        self.bell.notify_all();
    }

    /// A lease on a model that is loaded; `None` when it is not.
    pub fn lease(
        self: &Arc<Self>,
        state: &mut State,
        entry: &Arc<ModelEntry>,
        keep: Option<KeepAlive>,
    ) -> Option<Lease> {
        self.retire_dead(state);
        let slot = state.slots.iter_mut().find(|slot| !slot.retired && slot.entry.same_weights(entry))?;
        slot.entry = Arc::clone(entry);
        slot.keep = keep.unwrap_or(slot.keep);
        slot.in_use += 1;
        slot.touch();
        Some(Lease::new(Arc::clone(self), slot.id, Arc::clone(&slot.engine)))
    }

    /// Engines that have died are removed, so that the next request loads their model anew.
    pub fn retire_dead(self: &Arc<Self>, state: &mut State) {
        let dead = state.slots.iter_mut().filter(|slot| !slot.engine.is_alive());
        let idle: Vec<u64> = dead
            .filter_map(|slot| {
                slot.retired = true;
                (slot.in_use == 0).then_some(slot.id)
            })
            .collect();
        for id in idle {
            self.remove(state, id);
        }
    }

    /// Takes up a model that was just loaded, in use by nobody.
    pub fn insert(
        &self,
        state: &mut State,
        entry: Arc<ModelEntry>,
        engine: Arc<dyn Engine>,
        load_time: Duration,
    ) {
        let id = state.next_id;
        state.next_id += 1;
        let mut slot = Slot {
            id,
            entry,
            engine,
            load_time,
            in_use: 0,
            keep: self.default_keep,
            expires: None,
            last_used: Instant::now(),
            retired: false,
        };
        slot.touch();
        state.slots.push(slot);
    }

    /// Gives a lease back.
    pub fn release(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.iter_mut().find(|slot| slot.id == id) {
            slot.in_use = slot.in_use.saturating_sub(1);
            slot.touch();
            if slot.in_use == 0 && (slot.retired || slot.keep.is_zero()) {
                self.remove(&mut state, id);
            }
        }
        drop(state);
        self.ring();
    }

    /// Takes a model out of the table and frees it on a thread of its own.
    pub fn remove(self: &Arc<Self>, state: &mut State, id: u64) {
        let Some(at) = state.slots.iter().position(|slot| slot.id == id) else { return };
        let slot = state.slots.remove(at);
        let bytes = slot.engine.held_bytes();
        state.stopping += 1;
        state.stopping_bytes += bytes;
        tracing::info!(model = %slot.entry.name, "unloading");
        let table = Arc::clone(self);
        let work = move || {
            slot.engine.stop(true);
            drop(slot);
            let mut state = table.lock();
            state.stopping -= 1;
            state.stopping_bytes -= bytes;
            drop(state);
            table.ring();
        };
        if let Err(error) = std::thread::Builder::new().name("unload".to_owned()).spawn(work) {
            // The closure is gone with the error, and the engine with it: dropping it frees the model too.
            tracing::error!(%error, "no thread to unload a model");
            state.stopping -= 1;
            state.stopping_bytes -= bytes;
        }
    }

    /// Bytes that nobody holds and nobody was promised.
    pub fn free(&self, state: &State) -> u64 {
        let held: u64 = state.slots.iter().map(|slot| slot.engine.held_bytes()).sum();
        let promised = state.load_bytes.saturating_add(state.growth_bytes);
        self.budget_bytes.saturating_sub(held.saturating_add(state.stopping_bytes).saturating_add(promised))
    }

    /// The idle model that was not used for longest.
    pub fn oldest_idle(state: &State) -> Option<u64> {
        let idle = state.slots.iter().filter(|slot| slot.in_use == 0);
        idle.min_by_key(|slot| slot.last_used).map(|slot| slot.id)
    }

    /// A load got on.
    pub fn advance(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes while a load makes progress.
    pub fn progress_now(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }
}

/// The memory of all models, for engines that want more of it.
#[derive(Clone)]
pub(super) struct Pool(pub Weak<Table>);

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Pool")
    }
}

impl SharedMemory for Pool {
    fn free_bytes(&self) -> u64 {
        self.0.upgrade().map_or(0, |table| table.free(&table.lock()))
    }

    fn reserve(&self, wanted_bytes: u64) -> u64 {
        let Some(table) = self.0.upgrade() else { return 0 };
        let mut state = table.lock();
        let bytes = wanted_bytes.min(table.free(&state));
        state.growth_bytes += bytes;
        bytes
    }

    fn release(&self, bytes: u64) {
        if let Some(table) = self.0.upgrade() {
            let mut state = table.lock();
            state.growth_bytes = state.growth_bytes.saturating_sub(bytes);
            drop(state);
            table.ring();
        }
    }
}

/// Removes models whose time is over, until the table is closed. Runs on a thread of its own.
pub(super) fn keep(table: &Arc<Table>) {
    let mut state = table.lock();
    while !state.closed {
        let now = Instant::now();
        let over: Vec<u64> = state
            .slots
            .iter()
            .filter(|slot| slot.in_use == 0 && slot.expires.is_some_and(|at| at <= now))
            .map(|slot| slot.id)
            .collect();
        for id in over {
            table.remove(&mut state, id);
        }
        let next = state.slots.iter().filter_map(|slot| slot.expires).min();
        state = match next {
            Some(at) => table.wait_for(state, at.saturating_duration_since(Instant::now())).0,
            None => table.wait(state),
        };
    }
}
