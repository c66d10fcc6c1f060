//! Where the weights go: the arithmetic of memory, before anything is allocated.
//!
//! - `pool`: the memories that there are, and how much of each may be used
//! - `ledger`: bytes by pool and purpose
//! - `request`: what is asked of a plan
//! - `homes`: in which memory each layer is at home
//! - `banks`: slots whose parts lie apart, for a device that computes with them in the host's memory
//! - `layout`: slots of experts, their parts, and what to read to fill them
//! - `placement`: the plan itself, what is where
//! - `fill`: what must be resident, what streams, and whether it fits
//! - `settle`: the one policy from what is asked to a plan
//! - `split`: whole layers on other machines, `worth`: which of them are worth it
//! - `growth`: a larger context for a model that is loaded
//! - `dense_weights`: which of the weights that every token passes may stream, and do
//! - `device_dense`: those that a device computes with
//! - `row_tables`: which embeddings stream by the row, and the memory for their rows
//! - `hits`: how often an expert is found in memory
//! - `estimate`: what llama.cpp needs besides weights, from the header alone
//! - `cost`: a plan and a measured machine give seconds and tokens per second
//! - `context`: how long a context is when nobody says
//! - `reasons`: why a plan is as it is, for people
//! - `ubatch`: how many tokens of a prompt are computed at once
//! - `tiers`: who lives where, for people
//! - `what_if`: another machine than this one, `advice`: what would change with one

mod advice;
mod banks;
mod context;
mod cost;
mod dense_weights;
mod device_dense;
mod error;
mod estimate;
mod fill;
mod growth;
mod hits;
mod homes;
mod layout;
mod ledger;
mod placement;
mod pool;
mod reasons;
mod request;
mod row_tables;
mod settle;
mod split;
mod tiers;
mod ubatch;
mod what_if;
mod worth;

pub use advice::{Alternative, Question};
pub use banks::BankRules;
pub use cost::{
    CHUNK_BYTES, CostInput, DecodeCost, Estimate, Prediction, PrefillCost, READER_DEPTH, Workload, model_key,
    predict,
};
pub use error::{PlanError, human_bytes};
pub use estimate::{OUTPUTS, estimate_needs, process_bytes, vocabulary_bytes};
pub use fill::fill;
pub use growth::{ContextFacts, Growing, Growth};
pub use hits::{HitRate, Routing};
pub use homes::{Homes, LayerHome};
pub use layout::{Bank, ClassLayout, ExpertLayout, LayerLayout, PartLayout, PartRead};
pub use ledger::{Basis, Entry, Ledger, Purpose};
pub use placement::{ClassSlots, DensePlan, ExpertPlan, Mode, Plan, StreamedTable, TablePlan};
pub use pool::{Pool, PoolId, PoolKind, Pools, PoolsError};
pub use reasons::{group_reason, mode_reason};
pub use request::{
    CacheSize, Constraints, ContextShape, ExpertHome, KvType, MediaNeeds, Residency, SHORT_CONTEXT,
    SMALL_UBATCH,
};
pub use row_tables::pages_of_row;
pub use settle::{PlanRequest, SettleError, Settled, settle};
pub use tiers::{RoleGroup, Tier, TierBytes, TierTable};
pub use ubatch::choose_ubatch;
pub use what_if::{WhatIf, WhatIfError};

/// The unit of direct I/O in bytes: every offset and length of a read is a multiple of it.
pub const PAGE: usize = 4096;
