//! Where the weights go: the arithmetic of memory, before anything is allocated.
//!
//! - `layout`: slots of experts, their parts, and what to read to fill them
//! - `budget`: what must be resident, what streams, and whether it fits
//! - `trunk`: which of the weights that every token passes may stream, and do
//! - `hits`: how often an expert is found in memory
//! - `estimate`: what llama.cpp needs besides weights, from the header alone
//! - `cost`: a plan and a measured machine give seconds and tokens per second
//! - `ubatch`: how many tokens of a prompt are computed at once
//! - `tiers`: who lives where, for people
//! - `what_if`: another machine than this one
//! - `advice`: what would change with one

mod advice;
mod budget;
mod cost;
mod estimate;
mod hits;
mod layout;
mod tiers;
mod trunk;
mod ubatch;
mod what_if;

pub use advice::{Alternative, Question};
pub use budget::{CacheSize, Choice, Fixed, Mode, Plan, PlanError, Request, human_bytes, plan};
pub use cost::{CostInput, DecodeCost, Estimate, Prediction, PrefillCost, Workload, predict};
pub use estimate::{ContextRequest, OUTPUTS, estimate_fixed, process_bytes};
pub use hits::{HitRate, Routing};
pub use layout::{ClassLayout, ExpertLayout, LayerLayout, PartLayout, PartRead};
pub use tiers::{RoleGroup, Tier, TierBytes, TierTable};
pub use ubatch::{SMALL_UBATCH, choose_ubatch};
pub use what_if::{WhatIf, WhatIfError};

/// The unit of direct I/O in bytes: every offset and length of a read is a multiple of it.
pub const PAGE: usize = 4096;
