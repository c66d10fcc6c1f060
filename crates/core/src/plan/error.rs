//! Why a plan cannot work, and what would.

use super::ledger::{Ledger, Purpose};
use super::pool::{PoolId, Pools};

/// Why a plan cannot work, and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The budget is below what the model needs at least.
    #[error(
        "this needs at least {floor} of memory ({detail}) and may use {budget}: give more (--memory), \
         a shorter context (--ctx) or a smaller quantisation",
        floor = human_bytes(*floor_bytes),
        budget = human_bytes(*budget_bytes)
    )]
    BelowFloor {
        /// The smallest budget that works.
        floor_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// What the floor is made of.
        detail: String,
    },
    /// `--residency resident` does not fit.
    #[error(
        "--residency resident needs {needed} and may use {budget}: leave it out, and the model streams",
        needed = human_bytes(*needed_bytes),
        budget = human_bytes(*budget_bytes)
    )]
    ResidentTooLarge {
        /// Bytes of everything.
        needed_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// What is at home on a device does not fit its memory.
    #[error(
        "device {device} needs {needed} and may use {budget}: give it fewer layers",
        device = pool.index(),
        needed = human_bytes(*needed_bytes),
        budget = human_bytes(*budget_bytes)
    )]
    DeviceTooSmall {
        /// Which.
        pool: PoolId,
        /// Bytes of all that is at home there.
        needed_bytes: u64,
        /// Its budget; 0 where there is no such device.
        budget_bytes: u64,
    },
    /// `--residency stream` on a model without anything to stream.
    #[error("this model has no weights that can be streamed: use --residency auto")]
    NothingToStream,
}

impl PlanError {
    /// What to say when a KV cache in q8_0 makes the plan work that this error stood in the way of with f16.
    #[must_use]
    pub fn shrunk_kv_note(&self) -> String {
        let (needed_bytes, budget_bytes) = match self {
            Self::BelowFloor { floor_bytes, budget_bytes, .. } => (*floor_bytes, *budget_bytes),
            Self::ResidentTooLarge { needed_bytes, budget_bytes }
            | Self::DeviceTooSmall { needed_bytes, budget_bytes, .. } => (*needed_bytes, *budget_bytes),
            Self::NothingToStream => (0, 0),
        };
        format!(
            "KV cache in q8_0, because in f16 this needs {} of memory and may use {} (--kv f16 forces it)",
            human_bytes(needed_bytes),
            human_bytes(budget_bytes)
        )
    }

    /// The budget of the host is below `floor_bytes`, of which `resident` are weights.
    pub(super) fn below_floor(floor_bytes: u64, resident: u64, needs: &Ledger, pools: &Pools) -> Self {
        let host = |purpose| needs.bytes(PoolId::HOST, purpose);
        let (kv, compute) = (host(Purpose::Kv), host(Purpose::Compute));
        let (driver, media, draft) = (host(Purpose::Driver), host(Purpose::Media), host(Purpose::Draft));
        let named = [resident, kv, compute, driver, media, draft].into_iter().fold(0, u64::saturating_add);
        let mut detail = format!(
            "resident weights {}, context {}, compute {}, program and buffers {}",
            human_bytes(resident),
            human_bytes(kv),
            human_bytes(compute),
            human_bytes(floor_bytes.saturating_sub(named).max(host(Purpose::Process))),
        );
        if driver > 0 {
            detail.push_str(&format!(", driver of the GPU {}", human_bytes(driver)));
        }
        if media > 0 {
            detail.push_str(&format!(", media {}", human_bytes(media)));
        }
        if draft > 0 {
            detail.push_str(&format!(", draft model {}", human_bytes(draft)));
        }
        Self::BelowFloor { floor_bytes, budget_bytes: pools.host_budget_bytes(), detail }
    }
}

/// Bytes for people: `6.42 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}
