//! What would change if the machine or the model were another: the same planner and predictor, asked again.

use super::{
    Constraints, CostInput, Estimate, ExpertLayout, Plan, PlanError, PoolId, Prediction, Residency, WhatIf,
    Workload, fill, predict,
};
use crate::model::ModelShape;
use crate::profile::Profile;

/// One alternative.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// What is other: `+1 GiB of memory`.
    pub change: String,
    /// Predicted tokens per second of decoding; `None` when it cannot be predicted.
    pub decode_tokens_per_s: Option<Estimate>,
    /// The same less what the plan itself predicts, at the middle of both.
    pub gain_tokens_per_s: Option<f64>,
    /// What it needs to know: a size to look for.
    pub note: Option<String>,
}

/// A model, a machine and what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Its experts' layout.
    pub layout: &'a ExpertLayout,
    /// The machine.
    pub profile: &'a Profile,
    /// Budgets, and what they must hold besides weights.
    pub constraints: &'a Constraints,
    /// What is asked of the model.
    pub workload: Workload,
}

/// One more of these is what people buy.
const GIB: u64 = 1 << 30;

impl Question<'_> {
    /// Plans, and predicts for the plan.
    ///
    /// # Errors
    /// [`PlanError`] when there is no plan.
    pub fn answer(&self) -> Result<(Plan, Prediction), PlanError> {
        let plan = fill(self.shape, self.layout, self.constraints)?;
        let prediction = self.predict(&plan);
        Ok((plan, prediction))
    }

    /// Predicts for a plan of this model.
    #[must_use]
    pub fn predict(&self, plan: &Plan) -> Prediction {
        let Self { shape, layout, profile, workload, .. } = *self;
        predict(&CostInput { shape, layout, plan, profile, workload })
    }

    /// What one more GiB, a disk of twice the speed, and a smaller quantisation would change.
    #[must_use]
    pub fn alternatives(&self, now: &Prediction) -> Vec<Alternative> {
        [self.more_memory(now), self.faster_disk(now), self.smaller_quant(now), self.all_resident(now)]
            .into_iter()
            .flatten()
            .collect()
    }

    fn more_memory(&self, now: &Prediction) -> Option<Alternative> {
        let more = self.constraints.pools.host_budget_bytes().checked_add(GIB)?;
        let constraints = self.constraints.with_host_budget(more);
        let (_, then) = Question { constraints: &constraints, ..*self }.answer().ok()?;
        Some(alternative("1 GiB more memory".to_owned(), now, &then, None))
    }

    fn faster_disk(&self, now: &Prediction) -> Option<Alternative> {
        let storage = self.profile.storage.as_ref()?;
        let best = storage.reads.iter().filter_map(|read| read.bytes_per_s).fold(0.0, f64::max);
        if best <= 0.0 {
            return None;
        }
        let what_if = WhatIf { disk_bytes_per_s: Some(2.0 * best), ..WhatIf::default() };
        let profile = what_if.apply(self.profile);
        let (_, then) = Question { profile: &profile, ..*self }.answer().ok()?;
        let change = format!("a disk of {:.1} GB/s, twice as fast", 2.0 * best / 1e9);
        Some(alternative(change, now, &then, None))
    }

    /// All weights at 3/4 of their size, as from 4 to 3 bits a weight, at the same rates in bytes.
    fn smaller_quant(&self, now: &Prediction) -> Option<Alternative> {
        let smaller = |bytes: u64| (u128::from(bytes) * 3 / 4) as u64;
        let mut shape = self.shape.clone();
        for tensor in shape.tensors.iter_mut().filter(|tensor| tensor.info.shape.len() > 1) {
            tensor.info.bytes = smaller(tensor.info.bytes);
        }
        let stacks = shape.expert_layers.iter_mut().chain(&mut shape.nextn_expert_layers);
        for part in stacks.flat_map(|layer| &mut layer.parts) {
            part.slice_bytes = smaller(part.slice_bytes);
        }
        let layout = ExpertLayout::new(&shape);
        let (_, then) = Question { shape: &shape, layout: &layout, ..*self }.answer().ok()?;
        let note = format!("{} instead of {}", super::human_bytes(shape.total_bytes()), self.size());
        Some(alternative("a quantisation of 3/4 the size".to_owned(), now, &then, Some(note)))
    }

    fn size(&self) -> String {
        super::human_bytes(self.shape.total_bytes())
    }

    /// Memory for everything, unless the plan has it.
    fn all_resident(&self, now: &Prediction) -> Option<Alternative> {
        let unbounded = self.constraints.with_host_budget(u64::MAX);
        let constraints = Constraints { residency: Residency::Resident, cache: None, ..unbounded };
        let (plan, then) = Question { constraints: &constraints, ..*self }.answer().ok()?;
        let needed_bytes = plan.ledger.pool_bytes(PoolId::HOST);
        if needed_bytes <= self.constraints.pools.host_budget_bytes() {
            return None;
        }
        let change = format!("memory for everything, {}", super::human_bytes(needed_bytes));
        Some(alternative(change, now, &then, None))
    }
}

fn alternative(change: String, now: &Prediction, then: &Prediction, note: Option<String>) -> Alternative {
    let speed = |prediction: &Prediction| prediction.decode.map(|decode| decode.tokens_per_s);
    let gain = speed(then).zip(speed(now)).map(|(then, now)| then.mid - now.mid);
    Alternative { change, decode_tokens_per_s: speed(then), gain_tokens_per_s: gain, note }
}
