//! What is said of a model: planned as when it is loaded where it is here, with estimates where it is
//! elsewhere.

use hypura_core::model::ModelShape;
use hypura_core::plan::estimate_needs;
use hypura_core::profile::Profile;
use hypura_core::speculate::predict_speculation;

use super::advice::{Advice, AdviceError, AdviceSettings, advise};
use crate::device;
use crate::load::{LoadSettings, NeedsMeter, PlanMeter, PlannedDraft, with_gpu};
use crate::source::ModelSource;

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
    if let Some(ty) = settings.what_if.weights {
        let mut advice = estimated(shape, profile, settings)?;
        advice.notes.push(format!("no file was looked at: all weights are taken to be {ty}"));
        return Ok(advice);
    }
    let Some(source) = source else { return estimated(shape, profile, settings) };
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
) -> Result<Advice, AdviceError> {
    advise(shape, profile, settings, |context, _| estimate_needs(shape, context))
}

fn measured(
    source: &ModelSource,
    profile: &Profile,
    settings: &AdviceSettings,
    load: &LoadSettings,
    draft: Option<&PlannedDraft>,
) -> Result<Advice, AdviceError> {
    let shape = &source.shape;
    let asked = settings.request.device_layers.is_some();
    let gpu = device::choose(&load.model.device)?.filter(|gpu| asked || gpu.has_room(shape));
    let meter = NeedsMeter::new(source, load.tuning.threads, &load.model.devices, gpu.as_ref());
    let mut meter = match meter {
        Ok(meter) => PlanMeter::new(meter, draft),
        Err(error) => {
            let mut advice = estimated(shape, profile, settings)?;
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
    let mut advice = advise(shape, profile, &settings, |context, homes| meter.needs(context, homes))?;
    if let (Some(draft), Some(decode)) = (draft, &advice.prediction.decode) {
        let most = load.tuning.speculation.most as usize;
        let cost = predict_speculation(shape, &advice.plan, decode, draft.weight_bytes(), most);
        advice.speculation = Some(cost);
    }
    if let Some(note) = gpu.as_ref().and_then(|gpu| gpu.layers_note(&advice.plan)) {
        advice.notes.push(note);
    }
    Ok(advice)
}
