//! From settings to a plan: what the file says, what llama.cpp will need, what fits. Allocates nothing of
//! size.

use hypura_core::plan::{
    ExpertHome, ExpertLayout, Mode, Plan, PlanRequest, PoolId, Residency, SettleError, Settled, settle,
};
use hypura_core::profile::Profile;
use hypura_storage::threads::CoreTimes;

use super::draft::{PlanMeter, PlannedDraft};
use super::measure::NeedsMeter;
use super::settings::LoadSettings;
use crate::device::{self, Gpu};
use crate::error::LoadError;
use crate::media::PlannedProjector;
use crate::source::ModelSource;
use crate::stream::routes::check_fit;
use crate::workers::{self, Worker};

/// What is known before anything is loaded. Nothing of it changes afterwards.
#[derive(Debug)]
pub struct Planned {
    /// The files.
    pub source: ModelSource,
    /// Where experts go.
    pub layout: ExpertLayout,
    /// Where everything goes, and the context that was settled.
    pub plan: Plan,
    /// How it was asked for.
    pub settings: LoadSettings,
    /// What the plan decided that the user may want to know.
    pub notes: Vec<String>,
    /// The projector for images and sounds.
    pub projector: Option<PlannedProjector>,
    /// The model that drafts for this one.
    pub draft: Option<PlannedDraft>,
    /// The GPU that has layers.
    pub gpu: Option<Gpu>,
    /// Other machines that may have layers, each with a pool of the plan.
    pub workers: Vec<Worker>,
    /// What the cores had done when planning began: how many threads to begin with follows from what they do
    /// until the model is loaded.
    pub(super) cores: Option<CoreTimes>,
}

impl Planned {
    /// What is known of this machine, with the workers that may have layers.
    #[must_use]
    pub fn with_workers_of(&self, profile: &Profile) -> Profile {
        workers::with_rates(&self.workers, profile)
    }
}

/// Reads headers, measures llama.cpp's needs, and plans. Allocates nothing of size.
///
/// # Errors
/// [`LoadError`].
pub fn prepare(source: ModelSource, settings: LoadSettings) -> Result<Planned, LoadError> {
    let cores = CoreTimes::now();
    if let Some(trace) = &settings.tuning.routes.forced {
        check_fit(trace, &source.shape)?;
    }
    let projector = settings.model.projector.as_ref();
    let projector = projector.map(|path| PlannedProjector::of(path, settings.model.sequences)).transpose()?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    let mut request = settings.model.plan_request(media);
    if settings.tuning.routes.is_active() {
        // Routing is looked into where the CPU computes it.
        request.experts = ExpertHome::Host;
    }
    if projector.is_some() && source.shape.architecture == "gemma3n" {
        // Rows of embeddings have no ids: the graph then looks at the table's first row by itself.
        request.tables = Residency::Resident;
    }
    let workers = workers::asked(&settings.model.workers);
    // The order of pools is that of machines: this one's GPU has no place in it.
    let (gpu, no_gpu) = device::beside(&workers, &settings.model.device)?;
    let gpu = gpu.filter(|gpu| request.device_layers.is_some() || gpu.has_room(&source.shape));
    request = workers::add_to(&workers, request, settings.model.speeds.as_ref());
    let meter = NeedsMeter::new(&source, settings.tuning.threads, &settings.model.devices, gpu.as_ref())?;
    let meter = meter.with_workers(&workers);
    let no_drafts = no_drafts_note(&meter, &source, &settings);
    let (draft, no_draft) =
        if no_drafts.is_none() { planned_draft(&source, &settings)? } else { (None, None) };
    let mut meter = PlanMeter::new(meter, draft.as_ref());
    if let Some(gpu) = &gpu {
        request = with_gpu(&source, request, gpu, &mut meter)?;
    }
    let layout = request.expert_layout(&source.shape);
    let mut settled = settle_measured(&source, &layout, &request, &mut meter);
    if settings.tuning.routes.is_active()
        && settled.as_ref().is_ok_and(|settled| settled.plan.mode() == Mode::TableStreaming)
    {
        // Experts that stay in memory are looked into by an executor that knows nothing else.
        request.tables = Residency::Resident;
        settled = settle_measured(&source, &layout, &request, &mut meter);
    }
    drop(meter);
    let Settled { plan, mut notes, left_out, .. } = settled?;
    let mut settings = settings;
    if let Some(gpu) = gpu.as_ref().filter(|_| plan.homes.streamed_experts != PoolId::HOST) {
        settings.model.devices.experts = Some(gpu.device);
        settings.model.devices.in_place = plan.pools.are_unified();
    }
    if let Some(gpu) = gpu.as_ref().filter(|_| plan.homes.streamed_dense != PoolId::HOST) {
        settings.model.devices.dense = Some(gpu.device);
        settings.model.devices.in_place = plan.pools.are_unified();
    }
    let gpu = gpu.filter(|_| !plan.homes.are_on_host());
    let layout = if workers.is_empty() { layout } else { layout.on_host(&plan.homes) };
    workers::keep(&workers, &plan);
    notes.extend(workers::told(&workers, &plan, &left_out).into_iter().chain(no_gpu));
    notes.extend(gpu.as_ref().and_then(|gpu| gpu.layers_note(&plan)));
    notes.extend(no_drafts.or(no_draft));
    Ok(Planned { source, layout, plan, settings, notes, projector, draft, gpu, workers, cores })
}

/// The draft model, or what to say where there is to be one and it does not fit.
fn planned_draft(
    source: &ModelSource,
    settings: &LoadSettings,
) -> Result<(Option<PlannedDraft>, Option<String>), LoadError> {
    let Some(path) = settings.draft() else { return Ok((None, None)) };
    match PlannedDraft::of(path, source, settings.tuning.threads) {
        Ok(draft) => Ok((Some(draft), None)),
        Err(LoadError::Draft(error)) if settings.model.draft_is_optional => {
            Ok((None, Some(format!("no draft model: {error}"))))
        }
        Err(error) => Err(error),
    }
}

/// What to say where speculation was asked for and the model cannot have it.
fn no_drafts_note(meter: &NeedsMeter<'_>, source: &ModelSource, settings: &LoadSettings) -> Option<String> {
    let asked = settings.tuning.speculation.looks_up() || settings.tuning.speculation.uses_model();
    (asked && meter.is_recurrent()).then(|| {
        let architecture = &source.shape.architecture;
        format!(
            "no speculation: drafts cannot be taken back from the recurrent state of {architecture} models"
        )
    })
}

/// A request with the memory of a GPU beside the host's.
///
/// # Errors
/// [`LoadError`] when it cannot be found out what the GPU's layers take, where the two are one memory.
pub fn with_gpu(
    source: &ModelSource,
    request: PlanRequest,
    gpu: &Gpu,
    meter: &mut PlanMeter<'_>,
) -> Result<PlanRequest, LoadError> {
    if let Some(request) = in_place(source, &request, gpu, meter) {
        return Ok(request);
    }
    let both = gpu.add_to(request.clone(), 0);
    if !gpu.info.is_unified {
        return Ok(both);
    }
    // The same memory was given out twice: once it is known what the device takes, the host gets the rest.
    let layout = both.expert_layout(&source.shape);
    let plan = settle_measured(source, &layout, &both, meter)?.plan;
    let on_host = plan.homes.layers.iter().all(|home| home.experts == PoolId::HOST);
    let experts = match (plan.homes.streamed_experts, on_host) {
        (PoolId::HOST, true) => ExpertHome::Host,
        (PoolId::HOST, false) => ExpertHome::Auto,
        _ => ExpertHome::Device,
    };
    let device_layers = Some(plan.homes.device_layers());
    let used = plan.ledger.pool_bytes(PoolId::DEVICE);
    Ok(gpu.add_to(PlanRequest { device_layers, experts, ..request }, used))
}

/// A request in which a GPU computes what streams in the host's memory; `None` where it cannot, or where
/// that comes to nothing.
fn in_place(
    source: &ModelSource,
    request: &PlanRequest,
    gpu: &Gpu,
    meter: &mut PlanMeter<'_>,
) -> Option<PlanRequest> {
    if !gpu.in_place || request.experts == ExpertHome::Host {
        return None;
    }
    let both = gpu.share(request.clone(), 0);
    let plan = settle_measured(source, &both.expert_layout(&source.shape), &both, meter).ok()?.plan;
    if [plan.homes.streamed_experts, plan.homes.streamed_dense] == [PoolId::HOST; 2] {
        return None;
    }
    let (device_layers, experts) = (Some(plan.homes.device_layers()), ExpertHome::Device);
    let used = plan.ledger.pool_bytes(PoolId::DEVICE);
    Some(gpu.share(PlanRequest { device_layers, experts, ..request.clone() }, used))
}

fn settle_measured(
    source: &ModelSource,
    layout: &ExpertLayout,
    request: &PlanRequest,
    meter: &mut PlanMeter<'_>,
) -> Result<Settled, LoadError> {
    let settled = settle(&source.shape, layout, request, |context, homes| meter.needs(context, homes));
    settled.map_err(|error| match error {
        SettleError::Plan(error) => error.into(),
        SettleError::Needs(error) => error,
    })
}
