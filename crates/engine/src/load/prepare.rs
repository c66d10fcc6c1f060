//! From settings to a plan: what the file says, what llama.cpp will need, what fits. Allocates nothing of
//! size.

use hypura_core::plan::{ExpertLayout, Plan, SettleError, Settled, settle};

use super::measure::NeedsMeter;
use super::settings::LoadSettings;
use crate::error::LoadError;
use crate::media::PlannedProjector;
use crate::source::ModelSource;
use crate::stream::routes::check_fit;

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
}

/// Reads headers, measures llama.cpp's needs, and plans. Allocates nothing of size.
///
/// # Errors
/// [`LoadError`].
pub fn prepare(source: ModelSource, settings: LoadSettings) -> Result<Planned, LoadError> {
    if let Some(trace) = &settings.tuning.routes.forced {
        check_fit(trace, &source.shape)?;
    }
    let projector = settings.model.projector.as_ref();
    let projector = projector.map(|path| PlannedProjector::of(path, settings.model.sequences)).transpose()?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    let request = settings.model.plan_request(media);
    let layout = ExpertLayout::new(&source.shape);
    let meter = NeedsMeter::new(&source, settings.tuning.threads, &settings.model.devices)?;
    // Homes are the host's as long as there is no pool but its own.
    let settled = settle(&source.shape, &layout, &request, |context, _| meter.needs(context));
    drop(meter);
    let Settled { plan, notes, .. } = settled.map_err(|error| match error {
        SettleError::Plan(error) => error.into(),
        SettleError::Needs(error) => error,
    })?;
    Ok(Planned { source, layout, plan, settings, notes, projector })
}
