//! From a header and a profile to everything that `plan` tells: nothing is loaded, nothing is allocated.

use hypura_core::gguf::GgmlType;
use hypura_core::model::{ModelError, ModelShape};
use hypura_core::plan::{
    Alternative, CacheSize, Choice, ContextRequest, ExpertLayout, Plan, PlanError, Prediction, Question,
    Request, Routing, TierTable, WhatIf, Workload, choose_ubatch, estimate_fixed,
};
use hypura_core::profile::Profile;

use crate::load::LoadSettings;

/// How the model would be loaded, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct AdviceSettings {
    /// Bytes that may be used in all.
    pub budget_bytes: u64,
    /// Resident, streaming, or what fits.
    pub choice: Choice,
    /// Size of the cache of streamed weights.
    pub cache: Option<CacheSize>,
    /// The context.
    pub context: ContextRequest,
    /// Whether its KV cache may be q8_0 in place of f16 where nothing else makes the plan work.
    pub kv_may_shrink: bool,
    /// Whether its ubatch may grow where weights stream and the memory for it is little.
    pub ubatch_may_grow: bool,
    /// Tokens of prompt and answer, and what is assumed of routing.
    pub workload: Workload,
    /// Another machine than the profile's.
    pub what_if: WhatIf,
}

impl AdviceSettings {
    /// What a user gets without flags.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        let workload = Workload::default();
        Self {
            budget_bytes,
            choice: Choice::Auto,
            cache: None,
            context: ContextRequest {
                context_tokens: 4096,
                ubatch_tokens: workload.ubatch_tokens,
                sequences: 1,
                kv: GgmlType::F16,
                media_bytes: 0,
            },
            kv_may_shrink: true,
            ubatch_may_grow: true,
            workload,
            what_if: WhatIf::default(),
        }
    }
}

impl From<&LoadSettings> for AdviceSettings {
    /// What a load with these settings will do.
    fn from(load: &LoadSettings) -> Self {
        Self {
            choice: load.choice,
            cache: load.cache,
            context: load.context_request(),
            kv_may_shrink: load.kv_may_shrink,
            ubatch_may_grow: load.ubatch_may_grow,
            ..Self::new(load.budget_bytes)
        }
    }
}

/// What is to be told about a model on a machine.
#[derive(Clone, Debug)]
pub struct Advice {
    /// Where experts go.
    pub layout: ExpertLayout,
    /// Where everything goes. KV cache and compute buffers are estimates.
    pub plan: Plan,
    /// Who lives where.
    pub tiers: TierTable,
    /// What it will do.
    pub prediction: Prediction,
    /// What would change it.
    pub alternatives: Vec<Alternative>,
    /// Element type of the KV cache.
    pub kv: GgmlType,
    /// Tokens of a prompt that are computed at once.
    pub ubatch_tokens: u32,
    /// What the plan decided that the user may want to know.
    pub notes: Vec<String>,
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// The KV cache has no size.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Plans and predicts.
///
/// # Errors
/// [`AdviceError`]: the budget is below the floor, or the context has no size.
pub fn advise(
    shape: &ModelShape,
    profile: &Profile,
    settings: &AdviceSettings,
) -> Result<Advice, AdviceError> {
    match advise_as_asked(shape, profile, settings) {
        Err(AdviceError::Plan(too_little))
            if settings.context.kv == GgmlType::F16 && settings.kv_may_shrink =>
        {
            let context = ContextRequest { kv: GgmlType::Q8_0, ..settings.context };
            let smaller = AdviceSettings { context, ..*settings };
            match advise_as_asked(shape, profile, &smaller) {
                Ok(advice) => Ok(Advice { notes: vec![too_little.shrunk_kv_note()], ..advice }),
                // The least that works is what q8_0 needs; a model that cannot have it needs what f16 does.
                Err(AdviceError::Plan(still_too_little)) => Err(still_too_little.into()),
                Err(_) => Err(too_little.into()),
            }
        }
        advice => advice,
    }
}

fn advise_as_asked(
    shape: &ModelShape,
    profile: &Profile,
    settings: &AdviceSettings,
) -> Result<Advice, AdviceError> {
    let layout = ExpertLayout::new(shape);
    let profile = settings.what_if.apply(profile);
    let mut workload = settings.workload;
    if let Some(rate) = settings.what_if.hit_rate {
        workload.routing = Routing::Known(rate);
    }
    let AdviceSettings { choice, cache, mut context, .. } = *settings;
    let budget_bytes = settings.what_if.memory_bytes.unwrap_or(settings.budget_bytes);
    let request = |fixed| Request { budget_bytes, fixed, choice, cache };
    if settings.ubatch_may_grow {
        context.ubatch_tokens = choose_ubatch(shape, &layout, &context, request);
    }
    workload.ubatch_tokens = context.ubatch_tokens;
    let request = request(estimate_fixed(shape, &context)?);
    let question = Question { shape, layout: &layout, profile: &profile, request, workload };
    let (plan, prediction) = question.answer()?;
    let alternatives = question.alternatives(&prediction);
    let tiers = TierTable::new(shape, &layout, &plan);
    let ContextRequest { kv, ubatch_tokens, .. } = context;
    Ok(Advice { plan, tiers, prediction, alternatives, layout, kv, ubatch_tokens, notes: Vec::new() })
}
