//! The plan and the prediction, from what the model needs of memory.

use hypura_core::gguf::GgmlType;
use hypura_core::model::{ModelError, ModelShape};
use hypura_core::plan::{
    Alternative, ContextShape, ExpertLayout, Homes, Ledger, Plan, PlanError, PlanRequest, PoolId, Prediction,
    Question, Routing, SettleError, Settled, TierTable, WhatIf, Workload, settle,
};
use hypura_core::profile::Profile;
use hypura_core::speculate::SpeculationCost;
use std::sync::Arc;

use crate::error::LoadError;
use crate::workers::WorkerShare;

/// How the model would be loaded, and what is asked of it.
#[derive(Clone, Debug)]
pub struct AdviceSettings {
    /// What is asked of the plan.
    pub request: PlanRequest,
    /// Tokens of prompt and answer, and what is assumed of routing.
    pub workload: Workload,
    /// Another machine than the profile's.
    pub what_if: WhatIf,
}

/// The advice about a model on a machine.
#[derive(Clone, Debug)]
pub struct Advice {
    /// Where experts go.
    pub layout: ExpertLayout,
    /// Where everything goes: what a load with the same request will get.
    pub plan: Plan,
    /// Who lives where.
    pub tiers: TierTable,
    /// What it will do.
    pub prediction: Prediction,
    /// Decoding with drafts, where a draft model was asked about.
    pub speculation: Option<SpeculationCost>,
    /// What would change it.
    pub alternatives: Vec<Alternative>,
    /// What the plan decided that the user may want to know.
    pub notes: Vec<String>,
    /// What other machines have of it.
    pub workers: Vec<WorkerShare>,
    /// Other machines that would make it slower, and why.
    pub left_out: Vec<(PoolId, String)>,
}

/// Why there is no advice.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// The KV cache has no size.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// llama.cpp cannot say what it needs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No model has such weights.
    #[error("this model cannot have its weights in {0}")]
    NoSuchWeights(GgmlType),
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Plans and predicts. `needs` is as for [`settle`]: measured where the model is at hand, estimated
/// otherwise.
///
/// # Errors
/// [`AdviceError`]: the budget is below the floor, or the context has no size.
pub fn advise<E: Into<AdviceError>>(
    shape: &ModelShape,
    profile: &Profile,
    settings: &AdviceSettings,
    needs: impl FnMut(&ContextShape, &Homes) -> Result<Ledger, E>,
) -> Result<Advice, AdviceError> {
    let AdviceSettings { request, mut workload, what_if } = settings.clone();
    let layout = request.expert_layout(shape);
    let mut profile = what_if.apply(profile);
    if what_if.disk_bytes_per_s.is_some() {
        // What is stated is not corrected.
        profile.audit.iter_mut().for_each(|record| record.measured.disk_bytes_per_s = None);
    }
    if let Some(rate) = what_if.hit_rate {
        workload.routing = Routing::Known(rate);
    }
    let request = match what_if.memory_bytes {
        Some(bytes) => PlanRequest { pools: request.pools.with_host_budget(bytes), ..request },
        None => request,
    };
    let speeds = request.pools.has_workers().then(|| Arc::new(profile.clone()));
    let request = PlanRequest { speeds, ..request };
    let settled = settle(shape, &layout, &request, needs).map_err(|error| match error {
        SettleError::Plan(error) => error.into(),
        SettleError::Needs(error) => error.into(),
    });
    let Settled { plan, constraints, notes, left_out } = settled?;
    workload.ubatch_tokens = plan.context.ubatch_tokens;
    let question =
        Question { shape, layout: &layout, profile: &profile, constraints: &constraints, workload };
    let prediction = question.predict(&plan);
    let alternatives = question.alternatives(&prediction);
    // Experts of other machines' layers have no slots here.
    let layout = if plan.pools.has_workers() { layout.on_host(&plan.homes) } else { layout };
    let tiers = TierTable::new(shape, &layout, &plan);
    let (speculation, workers) = (None, Vec::new());
    Ok(Advice { plan, tiers, prediction, speculation, alternatives, layout, notes, workers, left_out })
}
