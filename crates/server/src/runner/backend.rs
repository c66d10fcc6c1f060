//! Plans and loads models in runners.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hypura_core::profile::Profile;
use hypura_engine::media::marker;
use hypura_store::ModelEntry;

use super::advise::advise;
use super::connect::connect;
use super::crashes::Crashes;
use super::limits::Limits;
use super::link::{Held, Link, News, Owner};
use super::message::{Planned, ToRunner};
use super::process::RunnerProcess;
use super::remote::RemoteEngine;
use crate::Failure;
use crate::models::backend::{Backend, Engine, Fit, LoadHost, LoadRequest, Plan};
use crate::models::{EngineBackend, LoadOrder, PlanQuestion};

/// How often a load looks whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// Loads each model in a process of its own, which is this program again.
pub struct ProcessBackend {
    orders: EngineBackend,
    limits: Limits,
    crashes: Arc<Crashes>,
}

impl ProcessBackend {
    /// Loads as `orders` would in this process.
    #[must_use]
    pub fn new(orders: EngineBackend, limits: Limits) -> Self {
        Self { orders, limits, crashes: Arc::new(Crashes::new(limits.refused)) }
    }
}

impl Backend for ProcessBackend {
    fn plan(&self, model: &ModelEntry, load_request: &LoadRequest, free_bytes: u64) -> Result<Fit, Failure> {
        let name = model.name.to_string();
        self.crashes.check(&name, &model.weights)?;
        let order = self.orders.order(model, load_request, free_bytes)?;
        let owner =
            Owner { model: name.clone(), weights: model.weights.clone(), crashes: Arc::clone(&self.crashes) };
        let started = RunnerProcess::start(&name)
            .and_then(|(process, stream)| connect(owner, self.limits, Box::new(process.in_group()), stream));
        let link = started.map_err(|error| {
            tracing::error!(model = name, %error, "no process for the model");
            Failure::internal(format!("cannot start a process for model '{name}'"))
        })?;
        planned(Held(link), order)
    }

    fn profile(&self) -> Option<Profile> {
        self.orders.profile()
    }

    fn advise(
        &self,
        model: &ModelEntry,
        budget_bytes: u64,
        question: &PlanQuestion,
    ) -> Result<String, Failure> {
        self.crashes.check(&model.name.to_string(), &model.weights)?;
        advise(&self.limits, self.orders.advice_order(model, budget_bytes, question)?, *question)
    }
}

/// Has a runner plan.
///
/// # Errors
/// What the runner says of the file, or how the file ended it.
pub(super) fn planned(link: Held, order: LoadOrder) -> Result<Fit, Failure> {
    let message = ToRunner::Plan { order: Box::new(order), marker: marker().to_owned() };
    let news = link.0.expect_news(&message)?;
    let limit = link.0.limits().plan;
    let planned = match news.recv_timeout(limit) {
        Ok(News::Planned(planned)) => planned?,
        Ok(News::Progress(_) | News::Loaded(_)) => {
            return Err(Failure::internal("a load that nobody asked for"));
        }
        Err(RecvTimeoutError::Timeout) => {
            link.0.condemn(&format!("its file could not be read within {} s", limit.as_secs()));
            return Err(link.0.end_failure());
        }
        Err(RecvTimeoutError::Disconnected) => return Err(link.0.end_failure()),
    };
    let plan = |bytes| Box::new(RemotePlan { link, bytes });
    Ok(match planned {
        Planned::Resident(bytes) => Fit::Resident(plan(bytes)),
        Planned::Streaming(bytes) => Fit::Streaming(plan(bytes)),
        Planned::TooSmall(failure) => Fit::TooSmall(failure),
    })
}

/// A plan in a runner that waits to carry it out. Dropping it ends the runner.
struct RemotePlan {
    link: Held,
    bytes: u64,
}

impl Plan for RemotePlan {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure> {
        let Self { link, bytes } = *self;
        link.0.grant(bytes, host.memory());
        let news = link.0.expect_news(&ToRunner::Load)?;
        let loaded = follow(&link.0, &news, host)?;
        Ok(Arc::new(RemoteEngine::new(link, *loaded)))
    }
}

/// Waits for a load, as long as it gets on and somebody wants it.
fn follow(
    link: &Link,
    news: &Receiver<News>,
    host: &dyn LoadHost,
) -> Result<Box<super::message::Loaded>, Failure> {
    let stopped = || Failure::internal("loading was stopped");
    let mut last = Instant::now();
    loop {
        match news.recv_timeout(LOOK) {
            Ok(News::Loaded(loaded)) => return loaded,
            Ok(News::Progress(progress)) => {
                last = Instant::now();
                if !host.advanced(progress) {
                    return Err(stopped());
                }
            }
            Ok(News::Planned(_)) => return Err(Failure::internal("a plan that nobody asked for")),
            Err(RecvTimeoutError::Timeout) if !host.is_wanted() => return Err(stopped()),
            Err(RecvTimeoutError::Timeout) => {
                let silent = last.elapsed();
                if silent > link.limits().load {
                    link.condemn(&format!("loading it made no progress for {} s", silent.as_secs()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(link.end_failure()),
        }
    }
}
