//! What becomes of a model that gets a context of a given length, in four numbers instead of a report.

use hypura_core::plan::{Mode, Routing, WhatIf, Workload};
use hypura_engine::advise::{AdviceSettings, advise_about};
use hypura_engine::media::PlannedProjector;
use hypura_engine::profile::{Need, Wanted};

use super::header;
use crate::cli::flags::{Env, ModelFlags};
use crate::cli::profile::{disk_target, remembered_with_gpu};

/// A plan, as far as it concerns the context.
#[derive(Clone, Copy, Debug)]
pub struct ContextPlan {
    /// What the context has, at most what was asked for.
    pub tokens: u32,
    /// How the model would run.
    pub mode: Mode,
    /// The predicted speed of answers, where the machine was measured.
    pub decode_tokens_per_s: Option<f64>,
    /// What the plan may use in all.
    pub budget_bytes: u64,
}

/// Plans a model of this machine with a context of so many tokens.
///
/// # Errors
/// When the model is not here, or no plan works.
pub fn with_context(model: &str, tokens: u32) -> anyhow::Result<ContextPlan> {
    let found = ModelFlags::named(model.into(), None, None).find()?;
    // By its file: nothing is asked of other machines.
    let mut flags = ModelFlags::named(found.path, None, Some(tokens));
    flags.mmproj = found.projector;
    let header = header::find(&flags)?;
    let load = flags.settings(&Env::of_process())?;
    let target = disk_target(header.path(), header.first_file_bytes);
    let need = Need { target: &target, threads: load.tuning.threads, disk: true };
    let profile = remembered_with_gpu(&need, Wanted::Any, &load.model.device)?.profile;
    let projector = load.model.projector.as_ref();
    let projector = projector.map(|path| PlannedProjector::of(path, load.model.sequences)).transpose()?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    let workload = Workload { routing: Routing::of(&header.shape), ..Workload::default() };
    let settings =
        AdviceSettings { request: load.model.plan_request(media), workload, what_if: WhatIf::default() };
    let advice = advise_about(&header.shape, header.source.as_ref(), &profile, &settings, &load)?;
    Ok(ContextPlan {
        tokens: advice.plan.context.context_tokens,
        mode: advice.plan.mode(),
        decode_tokens_per_s: advice.prediction.decode.map(|decode| decode.tokens_per_s.mid),
        budget_bytes: advice.plan.budget_bytes(),
    })
}
