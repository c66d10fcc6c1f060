//! Hands out loaded models: at once when one is there, otherwise when the loader has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::advice::PlanQuestion;
use super::backend::{Backend, LoadProgress, LoadRequest};
use super::forecast::Forecast;
use super::loader::Loader;
use super::table::{self, Lease, Table, Want};
use crate::Failure;
use crate::keep_alive::KeepAlive;
use hypura_core::profile::Profile;
use hypura_engine::serve::{RunnerInfo, RunnerStatus};
use hypura_engine::stream::ExpertMap;
use hypura_store::ModelEntry;

/// Another program may have measured the machine since the last look.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How models are kept.
#[derive(Clone, Copy, Debug)]
pub struct ManagerSettings {
    /// Memory for all models together.
    pub budget_bytes: u64,
    /// How long a model stays when no request says otherwise.
    pub keep_alive: KeepAlive,
    /// Most models at once; 0: as many as fit.
    pub max_loaded: usize,
    /// Most requests that wait for a model to load.
    pub max_queue: usize,
    /// A load without progress for so long fails its requests.
    pub load_timeout: Duration,
}

/// The loaded models.
pub struct ModelManager {
    table: Arc<Table>,
    settings: ManagerSettings,
    backend: Arc<dyn Backend>,
    profile: Mutex<Option<(Instant, Option<Arc<Profile>>)>>,
}

/// A loaded model as `/api/ps` and the metrics see it.
#[derive(Clone, Debug)]
pub struct RunningModel {
    /// Which model.
    pub entry: Arc<ModelEntry>,
    /// When it is unloaded if no request comes.
    pub expires_at: SystemTime,
    /// What loading it took.
    pub load_time: Duration,
    /// What never changes.
    pub info: RunnerInfo,
    /// How it is now.
    pub status: RunnerStatus,
    /// What was predicted of it.
    pub forecast: Option<Forecast>,
}

impl ModelManager {
    /// Starts the threads of the manager.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(backend: Arc<dyn Backend>, settings: ManagerSettings) -> std::io::Result<Self> {
        let table = Arc::new(Table::new(settings.keep_alive, settings.budget_bytes));
        let loading = Arc::clone(&backend);
        let loader = Loader { table: Arc::clone(&table), backend: loading, max_loaded: settings.max_loaded };
        std::thread::Builder::new().name("load".to_owned()).spawn(move || loader.run())?;
        let keeper = Arc::clone(&table);
        std::thread::Builder::new().name("keep-alive".to_owned()).spawn(move || table::keep(&keeper))?;
        Ok(Self { table, settings, backend, profile: Mutex::default() })
    }

    /// A lease on a model, loaded if need be. Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// 503 when too many wait; what the loader says; 500 when a load makes no progress.
    pub async fn acquire(
        &self,
        entry: &Arc<ModelEntry>,
        load_request: LoadRequest,
        keep: Option<KeepAlive>,
    ) -> Result<Lease, Failure> {
        let mut reply = {
            let mut state = self.table.lock();
            if state.closed {
                return Err(Failure::new(
                    http::StatusCode::SERVICE_UNAVAILABLE,
                    "the server is shutting down",
                ));
            }
            if let Some(lease) = self.table.lease(&mut state, entry, keep) {
                return Ok(lease);
            }
            state.wants.retain(|want| !want.reply.is_closed());
            if state.wants.len() >= self.settings.max_queue {
                return Err(Failure::busy());
            }
            let (sender, receiver) = oneshot::channel();
            state.wants.push_back(Want { entry: Arc::clone(entry), load_request, keep, reply: sender });
            receiver
        };
        self.table.ring();
        loop {
            let before = self.table.progress_now();
            match tokio::time::timeout(self.settings.load_timeout, &mut reply).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return Err(Failure::internal("the server is shutting down")),
                Err(_) if self.table.progress_now() == before && self.is_loading(entry) => {
                    let message = "timed out waiting for the model to load: no progress";
                    return Err(Failure::internal(message));
                }
                Err(_) => {}
            }
        }
    }

    /// Whether progress is to be expected of this model's load.
    fn is_loading(&self, entry: &ModelEntry) -> bool {
        let state = self.table.lock();
        !state.waits_for_room && state.loading.as_ref().is_some_and(|loading| loading.same_weights(entry))
    }

    /// Has a model leave as soon as nobody uses it. Whether it was loaded.
    pub fn unload(&self, entry: &ModelEntry) -> bool {
        let mut state = self.table.lock();
        let found = state.slots.iter_mut().find(|slot| slot.entry.same_weights(entry)).map(|slot| {
            slot.retired = true;
            (slot.id, slot.in_use == 0)
        });
        if let Some((id, true)) = found {
            self.table.remove(&mut state, id);
        }
        drop(state);
        self.table.ring();
        found.is_some()
    }

    /// Which models are loaded. Waits for nothing.
    #[must_use]
    pub fn loaded(&self) -> Vec<Arc<ModelEntry>> {
        let state = self.table.lock();
        let slots = state.slots.iter().filter(|slot| !slot.retired && slot.engine.is_alive());
        slots.map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// What is loaded, latest expiry first. Never waits for a model's work, but for its process to say how it
    /// is, for a moment: not for a thread that serves others.
    #[must_use]
    pub fn running(&self) -> Vec<RunningModel> {
        let seen: Vec<_> = {
            let state = self.table.lock();
            let seen = state.slots.iter().filter(|slot| !slot.retired && slot.engine.is_alive());
            seen.map(|slot| {
                (Arc::clone(&slot.entry), slot.expires_at(), slot.load_time, Arc::clone(&slot.engine))
            })
            .collect()
        };
        let mut running: Vec<RunningModel> = seen
            .into_iter()
            .map(|(entry, expires_at, load_time, engine)| RunningModel {
                entry,
                expires_at,
                load_time,
                info: engine.info().clone(),
                status: engine.status(),
                forecast: engine.forecast(),
            })
            .collect();
        running.sort_by_key(|model| std::cmp::Reverse(model.expires_at));
        running
    }

    /// Which experts of a model are in memory; `None` where it is not loaded, or streams none.
    #[must_use]
    pub fn experts(&self, entry: &ModelEntry) -> Option<ExpertMap> {
        let engine = {
            let state = self.table.lock();
            let slot = state.slots.iter().find(|slot| !slot.retired && slot.entry.same_weights(entry))?;
            Arc::clone(&slot.engine)
        };
        engine.experts()
    }

    /// What was measured of this machine, as of some seconds ago.
    #[must_use]
    pub fn profile(&self) -> Option<Arc<Profile>> {
        let mut known = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((looked, profile)) = &*known
            && looked.elapsed() < LOOK_AGAIN
        {
            return profile.clone();
        }
        let profile = self.backend.profile().map(Arc::new);
        *known = Some((Instant::now(), profile.clone()));
        profile
    }

    /// The plan of a model that had the whole budget, or what is asked in its place, as JSON. Blocks.
    ///
    /// # Errors
    /// 400 when there is no such plan.
    pub fn advise(&self, entry: &ModelEntry, question: &PlanQuestion) -> Result<String, Failure> {
        self.backend.advise(entry, self.settings.budget_bytes, question)
    }

    /// Requests that wait for a model to load.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.table.lock().wants.iter().filter(|want| !want.reply.is_closed()).count()
    }

    /// The model that is being loaded.
    #[must_use]
    pub fn loading(&self) -> Option<Arc<ModelEntry>> {
        self.table.lock().loading.clone()
    }

    /// The same, with how far it is.
    #[must_use]
    pub fn load_in_progress(&self) -> Option<(Arc<ModelEntry>, LoadProgress)> {
        let state = self.table.lock();
        state.loading.clone().map(|entry| (entry, state.load_progress))
    }

    /// Memory for all models together.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.settings.budget_bytes
    }

    /// Takes no more requests and frees all models: after their requests (`drain`) or at once. A load in
    /// progress is stopped. Blocks.
    pub fn close(&self, drain: bool) {
        let slots = {
            let mut state = self.table.lock();
            state.closed = true;
            state.wants.clear();
            std::mem::take(&mut state.slots)
        };
        self.table.ring();
        for slot in slots {
            slot.engine.stop(drain);
        }
        let mut state = self.table.lock();
        while state.stopping > 0 || state.loading.is_some() {
            state = self.table.wait(state);
        }
    }
}

impl Drop for ModelManager {
    fn drop(&mut self) {
        self.table.lock().closed = true;
        self.table.ring();
    }
}
