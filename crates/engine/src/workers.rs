//! Other machines whose memory takes part, as devices of ggml's RPC backend.
//!
//! Who is there, and how the two machines trust each other, is the business of whoever opened the sockets;
//! here a worker is a connected socket, a name and a budget. ggml keeps devices for the whole process, so the
//! workers of a process are attached once, before its first plan (in a runner: before it gives up opening
//! sockets), and every model of it that may use workers uses all of them.

use hypura_core::plan::{Homes, Plan, PlanRequest, PoolId};
use hypura_ggml::Device;
use hypura_ggml_rpc as rpc;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use hypura_ggml_rpc::RpcError;

/// Told how much of a worker's memory a plan needs.
type Keep = Arc<dyn Fn(u64) + Send + Sync>;

/// A connection to a worker.
pub struct WorkerLink {
    /// What speaks ggml's RPC at the other end.
    pub socket: OwnedFd,
    /// Its name for people: its address.
    pub name: String,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    /// Called with what a plan needs of that.
    pub keep: Keep,
}

/// A worker that takes part.
#[derive(Clone)]
pub struct Worker {
    /// ggml's device.
    pub(crate) device: Device,
    /// Its name for people.
    pub name: String,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    keep: Keep,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).field("budget_bytes", &self.budget_bytes).finish()
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
    let WorkerLink { socket, name, budget_bytes, keep } = link;
    let device = *rpc::attach(socket)?.first().ok_or(RpcError::NoDevice)?;
    lock().push(Worker { device, name, budget_bytes, keep });
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

/// Serves a device of this machine to the other end of a connected socket, until that is closed.
///
/// # Errors
/// [`RpcError`] before anything is served.
pub fn serve(socket: &OwnedFd, device: &str, cache: Option<&Path>, threads: u32) -> Result<(), RpcError> {
    rpc::serve(socket, device, cache, threads)
}

/// Whether ggml knows a device of that name, and what it is, for people.
#[must_use]
pub fn describe(device: &str) -> Option<String> {
    let found = hypura_ggml::system::devices().into_iter().find(|found| found.name == device);
    found.map(|found| format!("{} ({})", found.name, found.description))
}

/// A request with the memory of workers beside the host's.
pub(crate) fn add_to(workers: &[Worker], request: PlanRequest) -> PlanRequest {
    let pools = workers.iter().fold(request.pools, |pools, worker| pools.with_worker(worker.budget_bytes));
    PlanRequest { pools, ..request }
}

/// The pool of each worker.
pub(crate) fn pools(workers: &[Worker]) -> impl Iterator<Item = (PoolId, &Worker)> {
    workers.iter().enumerate().map(|(index, worker)| (PoolId::of_device(index), worker))
}

/// Layers that are at home on each worker.
pub(crate) fn layers(homes: &Homes, pool: PoolId) -> u32 {
    let there = homes.layers.iter().filter(|home| home.dense == pool).count();
    u32::try_from(there).unwrap_or(u32::MAX)
}

/// Tells workers what of their memory is needed, and says who does what.
pub(crate) fn settle(workers: &[Worker], plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    for (pool, worker) in pools(workers) {
        (worker.keep)(plan.ledger.pool_bytes(pool));
        let (layers, all) = (layers(&plan.homes, pool), plan.homes.layers.len());
        notes.push(match layers {
            0 if plan.homes.are_on_host() => {
                format!(
                    "the worker {} is not used: all of the model fits here, or no layer there",
                    worker.name
                )
            }
            0 => format!("the worker {} is not used: what the others have room for is enough", worker.name),
            _ => format!("the worker {} computes {layers} of {all} layers", worker.name),
        });
    }
    notes
}

/// The workers that a model may use: none where nobody asked for any.
pub(crate) fn asked(addresses: &[String]) -> Vec<Worker> {
    if addresses.is_empty() { Vec::new() } else { attached() }
}
