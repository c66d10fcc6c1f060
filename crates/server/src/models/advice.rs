//! What is asked of a plan that nobody carries out, and the answer, in the process that reads the file.

use hypura_core::gguf::GgmlType;
use hypura_core::plan::{Routing, WhatIf, WhatIfError, Workload};
use hypura_core::profile::Profile;
use hypura_engine::advise::{AdviceError, AdviceSettings, Subject, advise_about, document};
use hypura_engine::media::PlannedProjector;
use hypura_engine::source::ModelSource;
use serde::{Deserialize, Serialize};

use super::order::LoadOrder;
use crate::{Failure, without_paths};

/// Another machine than this one, and what is asked of the model. What is absent is as it is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanQuestion {
    /// Memory for models.
    pub memory_bytes: Option<u64>,
    /// Tokens of context.
    pub context_tokens: Option<u32>,
    /// Tokens of the prompt that speeds are predicted for.
    pub prompt_tokens: Option<u32>,
    /// The best bandwidth of the disk.
    pub disk_bytes_per_s: Option<f64>,
    /// Speed of the processor, as a multiple.
    pub compute_factor: Option<f64>,
    /// Share of lookups that hit.
    pub hit_rate: Option<f64>,
    /// Another quantisation of the model, as ggml numbers the type of its weights.
    pub weights: Option<u32>,
}

impl PlanQuestion {
    fn what_if(&self) -> WhatIf {
        WhatIf {
            disk_bytes_per_s: self.disk_bytes_per_s,
            memory_bytes: self.memory_bytes,
            compute_factor: self.compute_factor,
            hit_rate: self.hit_rate,
            weights: self.weights.and_then(GgmlType::from_id),
        }
    }

    /// Checks that it could be asked of a machine.
    ///
    /// # Errors
    /// [`WhatIfError`].
    pub fn check(&self) -> Result<(), WhatIfError> {
        self.what_if().check()
    }
}

/// The plan of a model as JSON; reads its file, and has llama.cpp say what it needs.
///
/// # Errors
/// 400: it cannot be planned so, and why.
pub fn advise_here(order: &LoadOrder, question: &PlanQuestion) -> Result<String, Failure> {
    let refused = |why: String| {
        Failure::bad_request(format!("{} cannot be planned: {}", order.model, without_paths(&why)))
    };
    let source = ModelSource::open(&order.path).map_err(|error| refused(error.to_string()))?;
    let load = &order.settings;
    let projector = load.model.projector.as_ref();
    let projector = projector.map(|path| PlannedProjector::of(path, load.model.sequences)).transpose();
    let projector = projector.map_err(|error| refused(error.to_string()))?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    let profile: Profile = order.profile().unwrap_or_default();
    let what_if = question.what_if();
    let shape = &match what_if.weights {
        Some(ty) => {
            source.shape_in_type(ty).ok_or_else(|| refused(AdviceError::NoSuchWeights(ty).to_string()))?
        }
        None => source.shape.clone(),
    };
    let prompt_tokens = question.prompt_tokens.unwrap_or(Workload::default().prompt_tokens).max(1);
    let settings = AdviceSettings {
        request: load.model.plan_request(media),
        workload: Workload { prompt_tokens, routing: Routing::of(shape), ..Workload::default() },
        what_if,
    };
    let advice = advise_about(shape, Some(&source), &profile, &settings, load);
    let advice = advice.map_err(|error| refused(error.to_string()))?;
    let subject = Subject { name: &order.model, shape, shards: source.files.len() };
    Ok(document(subject, &profile, &advice).to_string())
}
