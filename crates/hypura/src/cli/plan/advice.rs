//! What is said of a model: planned as when it is loaded where it is here, with estimates where it is
//! elsewhere.

use hypura_core::plan::{ExpertLayout, estimate_needs};
use hypura_core::profile::Profile;
use hypura_core::speculate::predict_speculation;
use hypura_engine::advise::{Advice, AdviceError, AdviceSettings, advise};
use hypura_engine::device;
use hypura_engine::load::{LoadSettings, NeedsMeter, PlanMeter, PlannedDraft, with_gpu};

use super::header::Header;

/// Of a model that is here, llama.cpp says what it needs, as when it is loaded; of others it is estimated.
pub(super) fn advise_about(
    header: &Header,
    profile: &Profile,
    settings: &AdviceSettings,
    load: &LoadSettings,
) -> Result<Advice, AdviceError> {
    let Header { shape, source, .. } = header;
    let estimated = |request| {
        let settings = AdviceSettings { request, ..settings.clone() };
        advise(shape, profile, &settings, |context, _| estimate_needs(shape, context))
    };
    let request = settings.request.clone();
    let Some(source) = source else { return estimated(request) };
    let gpu = device::choose(&load.model.device)?;
    let draft = load.draft().map(|path| PlannedDraft::of(path, source, load.tuning.threads)).transpose()?;
    let meter = NeedsMeter::new(source, load.tuning.threads, &load.model.devices, gpu.as_ref());
    let mut meter = match meter {
        Ok(meter) => PlanMeter::new(meter, draft.as_ref()),
        Err(error) => {
            let mut advice = estimated(request)?;
            advice.notes.push(format!("what it needs is estimated: {error}"));
            return Ok(advice);
        }
    };
    let request = match &gpu {
        Some(gpu) => with_gpu(source, &ExpertLayout::new(shape), request, gpu, &mut meter)?,
        None => request,
    };
    let settings = AdviceSettings { request, ..settings.clone() };
    let mut advice = advise(shape, profile, &settings, |context, homes| meter.needs(context, homes))?;
    if let (Some(draft), Some(decode)) = (&draft, &advice.prediction.decode) {
        let most = load.tuning.speculation.most as usize;
        let cost = predict_speculation(shape, &advice.plan, decode, draft.weight_bytes(), most);
        advice.speculation = Some(cost);
    }
    if let Some(note) = gpu.as_ref().and_then(|gpu| gpu.layers_note(&advice.plan)) {
        advice.notes.push(note);
    }
    Ok(advice)
}
