//! The memories that a plan may use, each with a budget of its own.
//!
//! The first pool is always memory that the process itself can address: llama.cpp reads the embedding table
//! there and what streams lands there. Devices follow in order of preference. Plain data: a plan is made in
//! one process and carried out in another.

use serde::{Deserialize, Serialize};

/// Which pool: an index into [`Pools`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolId(u32);

impl PoolId {
    /// The pool that every plan has: memory of the host.
    pub const HOST: Self = Self(0);
    /// The pool of the first device, in plans that have one.
    pub const DEVICE: Self = Self(1);

    /// The pool of the device at that place in the list of devices.
    #[must_use]
    pub fn of_device(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Position in [`Pools`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// Memory that only processors address.
    Host,
    /// Memory of a device, which the host does not address.
    Device,
    /// Memory of another machine.
    Worker,
    /// One memory for processors and a device.
    Unified,
}

/// A memory and how much of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Whose memory it is.
    pub kind: PoolKind,
    /// Bytes that may be used in all.
    pub budget_bytes: u64,
}

/// All pools of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Pool>", into = "Vec<Pool>")]
pub struct Pools {
    /// The pool of the process.
    host: Pool,
    devices: Vec<Pool>,
}

/// A list of pools that does not begin with one that the process can address, or has such a one elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first pool of memory, and only the first, must be one that the process can address")]
pub struct PoolsError;

impl Pools {
    /// Memory of the host and nothing else.
    #[must_use]
    pub const fn host(budget_bytes: u64) -> Self {
        Self { host: Pool { kind: PoolKind::Host, budget_bytes }, devices: Vec::new() }
    }

    /// One memory for processors and a device, and nothing else.
    #[must_use]
    pub const fn unified(budget_bytes: u64) -> Self {
        Self { host: Pool { kind: PoolKind::Unified, budget_bytes }, devices: Vec::new() }
    }

    /// These pools and one of a device.
    #[must_use]
    pub fn with_device(mut self, budget_bytes: u64) -> Self {
        self.devices.push(Pool { kind: PoolKind::Device, budget_bytes });
        self
    }

    /// These pools and one of another machine.
    #[must_use]
    pub fn with_worker(mut self, budget_bytes: u64) -> Self {
        self.devices.push(Pool { kind: PoolKind::Worker, budget_bytes });
        self
    }

    /// Whether the devices are other machines. They are never beside one of this machine.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        self.devices.iter().any(|pool| pool.kind == PoolKind::Worker)
    }

    /// The same pools with another budget for the host's.
    #[must_use]
    pub fn with_host_budget(mut self, budget_bytes: u64) -> Self {
        self.host.budget_bytes = budget_bytes;
        self
    }

    /// Whether devices compute with what is in the host's memory, where it is.
    #[must_use]
    pub fn are_unified(&self) -> bool {
        self.host.kind == PoolKind::Unified && !self.devices.is_empty()
    }

    /// Bytes that may be used of the host's memory.
    #[must_use]
    pub const fn host_budget_bytes(&self) -> u64 {
        self.host.budget_bytes
    }

    /// The pool of that number.
    #[must_use]
    pub fn get(&self, id: PoolId) -> Option<&Pool> {
        if id == PoolId::HOST { Some(&self.host) } else { self.devices.get(id.index() - 1) }
    }

    /// All of them, the host's first.
    pub fn iter(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        (0..).map(PoolId).zip(std::iter::once(&self.host).chain(&self.devices))
    }

    /// Those of devices.
    pub fn devices(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        self.iter().skip(1)
    }
}

impl TryFrom<Vec<Pool>> for Pools {
    type Error = PoolsError;

    fn try_from(pools: Vec<Pool>) -> Result<Self, PoolsError> {
        let (host, devices) = pools.split_first().ok_or(PoolsError)?;
        let is_device = |pool: &Pool| matches!(pool.kind, PoolKind::Device | PoolKind::Worker);
        if is_device(host) || !devices.iter().all(is_device) {
            return Err(PoolsError);
        }
        Ok(Self { host: *host, devices: devices.to_vec() })
    }
}

impl From<Pools> for Vec<Pool> {
    fn from(pools: Pools) -> Self {
        std::iter::once(pools.host).chain(pools.devices).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_numbered_from_the_host() {
        let pools = Pools::host(10).with_device(20).with_device(30);
        let budgets: Vec<(usize, u64)> =
            pools.iter().map(|(id, pool)| (id.index(), pool.budget_bytes)).collect();
        assert_eq!(budgets, [(0, 10), (1, 20), (2, 30)]);
        for (id, pool) in pools.iter() {
            assert_eq!(pools.get(id), Some(pool));
        }
        assert_eq!(pools.get(PoolId(3)), None);
    }

    #[test]
    fn pools_cross_a_process_border_and_are_checked_there() {
        let pools = Pools::unified(1 << 40).with_device(3);
        let text = serde_json::to_string(&pools).unwrap();
        assert_eq!(serde_json::from_str::<Pools>(&text).unwrap(), pools);
        let device = r#"{"kind":"device","budget_bytes":1}"#;
        let host = r#"{"kind":"host","budget_bytes":1}"#;
        for wrong in ["[]".to_owned(), format!("[{device}]"), format!("[{host},{host}]")] {
            assert!(serde_json::from_str::<Pools>(&wrong).is_err(), "{wrong}");
        }
    }
}
