//! What is said of a model: planned as when it is loaded where it is here, with estimates where it is
//! elsewhere.

use hypura_core::model::ModelShape;
use hypura_core::plan::{Basis, ContextShape, Entry, Homes, Ledger, PoolId, Purpose, estimate_needs};
use hypura_core::profile::Profile;
use hypura_core::speculate::predict_speculation;

use super::advice::{Advice, AdviceError, AdviceSettings, advise};
use crate::device;
use crate::load::{LoadSettings, NeedsMeter, PlanMeter, PlannedDraft, with_gpu};
use crate::source::ModelSource;
use crate::workers::{self, Worker};

/// Of a model that is here (`source`), llama.cpp says what it needs, as when it is loaded; of others, and
/// where the shape is that of another quantisation ([`WhatIf::weights`](hypura_core::plan::WhatIf)), it is
/// estimated from the shape.
///
/// # Errors
/// [`AdviceError`]. A draft model that does not fit is one, unless it is optional.
pub fn advise_about(
    shape: &ModelShape,
    source: Option<&ModelSource>,
    profile: &Profile,
    settings: &AdviceSettings,
    load: &LoadSettings,
) -> Result<Advice, AdviceError> {
    let workers = workers::asked(&load.model.workers);
    if let Some(ty) = settings.what_if.weights {
        let mut advice = estimated(shape, profile, settings, &workers)?;
        advice.notes.push(format!("no file was looked at: all weights are taken to be {ty}"));
        return Ok(advice);
    }
    let Some(source) = source else { return estimated(shape, profile, settings, &workers) };
    let draft = load.draft().map(|path| PlannedDraft::of(path, source, load.tuning.threads)).transpose();
    let optional = load.model.draft_is_optional;
    let drafted = match draft {
        Err(_) if optional => None,
        draft => draft?,
    };
    match measured(source, profile, settings, load, drafted.as_ref()) {
        Err(_) if optional && drafted.is_some() => measured(source, profile, settings, load, None),
        advice => advice,
    }
}

fn estimated(
    shape: &ModelShape,
    profile: &Profile,
    settings: &AdviceSettings,
    workers: &[Worker],
) -> Result<Advice, AdviceError> {
    let needs = |context: &ContextShape, homes: &Homes| {
        estimate_needs(shape, context).map(|needs| with_kv_at_home(needs, homes))
    };
    advised(shape, profile, settings, workers, needs)
}

/// Needs of the host, but that the KV cache is where layers are.
fn with_kv_at_home(mut needs: Ledger, homes: &Homes) -> Ledger {
    let kv = needs.bytes(PoolId::HOST, Purpose::Kv);
    let of_layer = kv / (homes.layers.len() as u64).max(1);
    let mut here = kv;
    let (purpose, basis) = (Purpose::Kv, Basis::Estimated);
    for home in homes.layers.iter().filter(|home| home.dense != PoolId::HOST) {
        needs.add(Entry { pool: home.dense, purpose, bytes: of_layer, basis });
        here -= of_layer;
    }
    needs.set(Entry { pool: PoolId::HOST, purpose, bytes: here, basis });
    needs
}

/// The advice, with workers beside this machine.
fn advised<E: Into<AdviceError>>(
    shape: &ModelShape,
    profile: &Profile,
    settings: &AdviceSettings,
    workers: &[Worker],
    needs: impl FnMut(&ContextShape, &Homes) -> Result<Ledger, E>,
) -> Result<Advice, AdviceError> {
    if workers.is_empty() {
        return advise(shape, profile, settings, needs);
    }
    let profile = workers::with_rates(workers, profile);
    let request = workers::add_to(workers, settings.request.clone(), None);
    let mut advice = advise(shape, &profile, &AdviceSettings { request, ..settings.clone() }, needs)?;
    advice.notes.extend(workers::told(workers, &advice.plan, &advice.left_out));
    advice.workers = workers::shares(workers, &advice.plan.homes, &advice.plan.ledger);
    Ok(advice)
}

fn measured(
    source: &ModelSource,
    profile: &Profile,
    settings: &AdviceSettings,
    load: &LoadSettings,
    draft: Option<&PlannedDraft>,
) -> Result<Advice, AdviceError> {
    let shape = &source.shape;
    let workers = workers::asked(&load.model.workers);
    let (gpu, no_gpu) = device::beside(&workers, &load.model.device)?;
    let asked = settings.request.device_layers.is_some();
    let gpu = gpu.filter(|gpu| asked || gpu.has_room(shape));
    let meter = NeedsMeter::new(source, load.tuning.threads, &load.model.devices, gpu.as_ref());
    let mut meter = match meter {
        Ok(meter) => PlanMeter::new(meter.with_workers(&workers), draft),
        Err(error) => {
            let mut advice = estimated(shape, profile, settings, &workers)?;
            advice.notes.push(format!("what it needs is estimated: {error}"));
            return Ok(advice);
        }
    };
    let request = settings.request.clone();
    let request = match &gpu {
        Some(gpu) => with_gpu(source, request, gpu, &mut meter)?,
        None => request,
    };
    let settings = AdviceSettings { request, ..settings.clone() };
    let needs = |context: &ContextShape, homes: &Homes| meter.needs(context, homes);
    let mut advice = advised(shape, profile, &settings, &workers, needs)?;
    if let (Some(draft), Some(decode)) = (draft, &advice.prediction.decode) {
        let most = load.tuning.speculation.most as usize;
        let cost = predict_speculation(shape, &advice.plan, decode, draft.weight_bytes(), most);
        advice.speculation = Some(cost);
    }
    advice.notes.extend(no_gpu);
    advice.notes.extend(gpu.as_ref().and_then(|gpu| gpu.layers_note(&advice.plan)));
    Ok(advice)
}
