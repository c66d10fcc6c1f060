//! Other machines whose memory takes part, as devices of ggml's RPC backend.
//!
//! Who is there, and how the two machines trust each other, is the business of whoever opened the sockets;
//! here a worker is a connected socket, a name and a budget. ggml keeps devices for the whole process, so the
//! workers of a process are attached once, before its first plan (in a runner: before it gives up opening
//! sockets), and every model of it that may use workers uses all of them.

use hypura_core::plan::{Homes, Ledger, Mode, Plan, PlanRequest, PoolId};
use hypura_core::profile::{Profile, WorkerRates};
use hypura_ggml::Device;
use hypura_ggml_rpc as rpc;
use hypura_storage::threads::with_thread_name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stream::Traffic;
use crate::threads::ServedThreads;

pub use hypura_ggml_rpc::RpcError;

/// Told how much of a worker's memory a plan needs.
type Keep = Arc<dyn Fn(u64) + Send + Sync>;
/// Says what a link has carried.
type Counted = Arc<dyn Fn() -> Traffic + Send + Sync>;

/// A connection to a worker.
pub struct WorkerLink {
    /// What speaks ggml's RPC at the other end.
    pub socket: OwnedFd,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    /// Its name for people (its address), what it computes, and what the link can do.
    pub rates: WorkerRates,
    /// Called with what a plan needs of its memory.
    pub keep: Keep,
    /// What the link has carried since it was opened.
    pub traffic: Counted,
}

/// A worker that takes part.
#[derive(Clone)]
pub struct Worker {
    /// ggml's device.
    pub(crate) device: Device,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    /// Its name, and how fast it is.
    pub rates: WorkerRates,
    keep: Keep,
    traffic: Counted,
}

/// What a worker has of a loaded model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerShare {
    /// Its address.
    pub name: String,
    /// The first of its layers, which are neighbours, and how many they are.
    pub first_layer: u32,
    /// See above.
    pub layers: u32,
    /// Bytes of its memory that the model holds: weights, KV cache, compute buffers.
    pub bytes: u64,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    /// There and back, in seconds.
    pub round_trip_s: f64,
    /// Bytes per second to it.
    pub link_bytes_per_s: f64,
    /// What the link has carried, loading included.
    pub traffic: Traffic,
}

impl Worker {
    /// Its name for people: its address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.rates.name
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.rates.name)
            .field("budget_bytes", &self.budget_bytes)
            .finish()
    }
}

static ATTACHED: Mutex<Vec<Worker>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Worker>> {
    ATTACHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a worker into this process, until it ends. Waits for the worker's answers; when the connection is
/// lost meanwhile, ggml ends the process, as whenever it is lost later.
///
/// # Errors
/// [`RpcError`].
pub fn attach(link: WorkerLink) -> Result<(), RpcError> {
    let WorkerLink { socket, budget_bytes, rates, keep, traffic } = link;
    let device = *rpc::attach(socket)?.first().ok_or(RpcError::NoDevice)?;
    lock().push(Worker { device, budget_bytes, rates, keep, traffic });
    Ok(())
}

/// The workers of this process, in the order in which they were attached.
#[must_use]
pub fn attached() -> Vec<Worker> {
    lock().clone()
}

/// What ggml this program has, for two machines to compare.
#[must_use]
pub fn build() -> String {
    let (major, minor, patch) = rpc::PROTOCOL;
    format!("{} (RPC {major}.{minor}.{patch})", hypura_ggml::system::ggml_version())
}

/// How a worker's session computes.
#[derive(Clone, Debug)]
pub struct Served<'a> {
    /// ggml's name of the device.
    pub device: &'a str,
    /// The folder of weights, if any are kept.
    pub cache: Option<&'a Path>,
    /// Threads that compute, where it is the CPU.
    pub threads: u32,
    /// Whether fewer compute while other programs use the cores.
    pub adapt: bool,
}

/// Serves a device of this machine to the other end of a connected socket, until that is closed.
///
/// # Errors
/// [`RpcError`] before anything is served.
pub fn serve(socket: &OwnedFd, served: &Served<'_>) -> Result<(), RpcError> {
    /// ggml's name of the processor.
    const CPU: &str = "CPU";
    /// Name of the threads that compute.
    const NAME: &str = "hypura-session";
    let Served { device, cache, threads, adapt } = *served;
    let choose = (device == CPU).then(|| -> Box<dyn rpc::ChooseThreads> {
        Box::new(ServedThreads::new(threads, adapt.then_some(NAME)))
    });
    with_thread_name(NAME, || rpc::serve(socket, device, cache, threads, choose))
}

/// Whether ggml knows a device of that name, and what it is, for people.
#[must_use]
pub fn describe(device: &str) -> Option<String> {
    let found = hypura_ggml::system::devices().into_iter().find(|found| found.name == device);
    found.map(|found| format!("{} ({})", found.name, found.description))
}

/// A request with the memory of workers beside the host's, and how fast they are beside what is known of this
/// machine.
pub(crate) fn add_to(workers: &[Worker], request: PlanRequest, profile: Option<&Profile>) -> PlanRequest {
    if workers.is_empty() {
        return request;
    }
    let pools = workers.iter().fold(request.pools, |pools, worker| pools.with_worker(worker.budget_bytes));
    let speeds = profile.map(|profile| Arc::new(with_rates(workers, profile)));
    PlanRequest { pools, speeds, ..request }
}

/// A profile of this machine with the rates of workers.
pub(crate) fn with_rates(workers: &[Worker], profile: &Profile) -> Profile {
    let workers = workers.iter().map(|worker| worker.rates.clone()).collect();
    Profile { workers, ..profile.clone() }
}

/// The pool of each worker.
pub(crate) fn pools(workers: &[Worker]) -> impl Iterator<Item = (PoolId, &Worker)> {
    workers.iter().enumerate().map(|(index, worker)| (PoolId::of_device(index), worker))
}

/// Layers that are at home on a worker: the first, and how many.
pub(crate) fn layers(homes: &Homes, pool: PoolId) -> (u32, u32) {
    let there = |home: &hypura_core::plan::LayerHome| home.dense == pool;
    let first = homes.layers.iter().position(there).unwrap_or(0);
    let count = homes.layers.iter().filter(|home| there(home)).count();
    (u32::try_from(first).unwrap_or(u32::MAX), u32::try_from(count).unwrap_or(u32::MAX))
}

/// Has each worker take the operations of its own layers alone. One model of a process has layers elsewhere.
pub(crate) fn set_layers(workers: &[Worker], homes: &Homes) {
    for (pool, worker) in pools(workers) {
        let (first, count) = layers(homes, pool);
        if count > 0 {
            rpc::set_layers(worker.device, first..=first + count - 1);
        }
    }
}

/// What links to workers have carried.
pub(crate) fn traffic(workers: &[Worker]) -> Traffic {
    workers.iter().map(|worker| (worker.traffic)()).fold(Traffic::default(), Traffic::plus)
}

/// What each worker that has layers has of a model.
#[must_use]
pub fn shares(workers: &[Worker], homes: &Homes, ledger: &Ledger) -> Vec<WorkerShare> {
    let share = |(pool, worker): (PoolId, &Worker)| {
        let (first_layer, layers) = layers(homes, pool);
        (layers > 0).then(|| WorkerShare {
            name: worker.rates.name.clone(),
            first_layer,
            layers,
            bytes: ledger.pool_bytes(pool),
            budget_bytes: worker.budget_bytes,
            round_trip_s: worker.rates.round_trip_s,
            link_bytes_per_s: worker.rates.bytes_per_s,
            traffic: (worker.traffic)(),
        })
    };
    pools(workers).filter_map(share).collect()
}

/// Tells workers what of their memory is needed.
pub(crate) fn keep(workers: &[Worker], plan: &Plan) {
    for (pool, worker) in pools(workers) {
        (worker.keep)(plan.ledger.pool_bytes(pool));
    }
}

/// Who does what, and who nothing, and why.
pub(crate) fn told(workers: &[Worker], plan: &Plan, left_out: &[(PoolId, String)]) -> Vec<String> {
    let note = |(pool, worker): (PoolId, &Worker)| {
        let (name, all) = (worker.name(), plan.homes.layers.len());
        if let Some((_, why)) = left_out.iter().find(|(out, _)| *out == pool) {
            return format!("the worker {name} is left out: {why}");
        }
        match layers(&plan.homes, pool) {
            (_, 0) => format!("the worker {name} is not used: {}", idle_reason(plan)),
            (first, layers) => {
                let last = first + layers - 1;
                format!("the worker {name} computes {layers} of {all} layers, {first} to {last}")
            }
        }
    };
    pools(workers).map(note).collect()
}

fn idle_reason(plan: &Plan) -> &'static str {
    match plan.mode() {
        // Where something streams all the same, it would have got a layer if one fitted.
        _ if !plan.homes.are_on_host() && plan.is_resident_but_for_tables() => {
            "what the others have room for is enough"
        }
        Mode::FullResident => "all of the model fits here",
        Mode::TableStreaming => "only tables stream here, of which a token reads a row or a few",
        _ => "it has no room for a layer",
    }
}

/// The workers that a model may use: none where nobody asked for any.
pub(crate) fn asked(addresses: &[String]) -> Vec<Worker> {
    if addresses.is_empty() { Vec::new() } else { attached() }
}
