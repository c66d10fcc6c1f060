//! What the planner says of the measured arm before anything runs, with the profile that `hypura plan` uses;
//! and how far from the truth that was.
//!
//! A speed depends on how often experts are found in memory, which nobody knows before. So there are two
//! predictions: the one that `hypura plan` would give, and, afterwards, what the same planner says when it is
//! given the hit rate that was measured. The difference between the two is what the assumption about the
//! routers is off by, the rest is the model of the machine.

use hypura_core::cache::{ExpertCache, PolicyKind};
use hypura_core::model::ModelShape;
use hypura_core::plan::{ExpertHome, MediaNeeds, Routing, WhatIf, Workload};
use hypura_core::profile::Profile;
use hypura_core::sim::{ReplayOptions, replay};
use hypura_core::trace::{LayerRoutes, Phase, Trace, TraceToken};
use hypura_engine::advise::{Advice, AdviceSettings, advise_about};
use hypura_engine::device::DeviceChoice;
use hypura_engine::load::LoadSettings;
use hypura_engine::source::ModelSource;

use super::arm::Arm;
use super::prediction::{Prediction, PredictionError};
use super::report::ArmSummary;
use super::work::Work;

/// Predicts for one arm.
#[derive(Clone, Debug)]
pub struct Predictor {
    /// The machine.
    pub profile: Profile,
    /// The arm's settings.
    pub settings: LoadSettings,
    /// What it computes.
    pub work: Work,
}

impl Predictor {
    /// Whether plans are about this arm: not about baselines.
    #[must_use]
    pub const fn is_about(arm: Arm) -> bool {
        matches!(arm, Arm::Auto | Arm::Stream | Arm::Resident)
    }

    /// For an arm, as the user asked to load. `None` for arms that no plan is about.
    #[must_use]
    pub fn new(profile: Profile, arm: Arm, asked: &LoadSettings, work: Work) -> Option<Self> {
        Self::is_about(arm).then(|| Self { profile, settings: arm.settings(asked.clone()), work })
    }

    /// What `hypura plan` says. Forced routes are known beforehand: their trace is replayed.
    ///
    /// # Errors
    /// When there is no plan.
    pub fn predict(&self, source: &ModelSource) -> anyhow::Result<Prediction> {
        let shape = &source.shape;
        let Some(trace) = &self.settings.tuning.routes.forced else {
            return self.with_routing(source, Routing::of(shape));
        };
        let advice = self.advise(source, Routing::Uniform)?;
        let (hits, used) = self.replay(shape, trace, advice.plan.slots(&advice.layout).iter().sum());
        self.with_routing(&with_used(source, used), Routing::Known(hits))
    }

    /// What it would have said, had it known the hit rate.
    ///
    /// # Errors
    /// When there is no plan.
    pub fn given_hits(&self, source: &ModelSource, hit_rate: f64) -> anyhow::Result<Prediction> {
        let source = match &self.settings.tuning.routes.forced {
            Some(trace) => with_used(source, trace.header.used),
            None => source.clone(),
        };
        self.with_routing(&source, Routing::Known(hit_rate))
    }

    /// What a GPU leaves to the CPU follows from what llama.cpp needs there, which is asked of the model
    /// itself; without one an estimate does.
    fn advise(&self, source: &ModelSource, routing: Routing) -> anyhow::Result<Advice> {
        let Self { settings, work, profile } = self;
        let mut request = settings.model.plan_request(MediaNeeds::default());
        if settings.tuning.routes.is_active() {
            request.experts = ExpertHome::Host;
        }
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let advice = AdviceSettings {
            workload: Workload {
                prompt_tokens: count(work.prompt),
                generated_tokens: count(work.warmup + work.generate),
                routing,
                ..Workload::default()
            },
            request,
            what_if: WhatIf::default(),
        };
        // Without a GPU what llama.cpp needs can be estimated.
        let measured = (settings.model.device.choice != DeviceChoice::None).then_some(source);
        Ok(advise_about(&source.shape, measured, profile, &advice, settings)?)
    }

    fn with_routing(&self, source: &ModelSource, routing: Routing) -> anyhow::Result<Prediction> {
        let said = self.advise(source, routing)?.prediction;
        let (decode, prefill) = (said.decode, said.prefill);
        Ok(Prediction {
            decode_tps: decode.map(|decode| decode.tokens_per_s.mid),
            prefill_tps: prefill.map(|prefill| prefill.tokens_per_s.mid),
            load_ms: said.load_s.map(|load| load.mid * 1e3),
            read_bytes_per_token: decode.map(|decode| decode.read_bytes),
            hit_rate: decode.and_then(|decode| decode.hits).map(|hits| hits.mid),
            bound_by: decode.map(|decode| decode.bound),
            remarks: said.missing.into_iter().chain(said.assumptions).collect(),
        })
    }

    /// The hit rate of the measured tokens, and the experts that a token uses, by a replay of the trace as
    /// the arm goes through it: from its beginning, and again at its end.
    fn replay(&self, shape: &ModelShape, trace: &Trace, slots: u32) -> (f64, u32) {
        let options = ReplayOptions { ubatch_tokens: self.settings.model.ubatch };
        let counted = |tokens: usize| {
            let walked = walk(shape, trace, self.work.prompt, tokens);
            let policy = PolicyKind::build(self.settings.tuning.policy, slots, shape.layers);
            let mut cache = ExpertCache::new(slots, policy);
            let counters = replay(&walked, &mut cache, options).decode;
            (counters.lookups(), counters.misses())
        };
        let before = counted(self.work.warmup);
        let after = counted(self.work.warmup + self.work.generate);
        let lookups = (after.0 - before.0).max(1);
        (1.0 - (after.1 - before.1) as f64 / lookups as f64, trace.header.used)
    }
}

/// The routes that an arm is forced to take: those of the trace, token after token, for every expert layer of
/// the model.
fn walk(shape: &ModelShape, trace: &Trace, prompt: usize, decoded: usize) -> Trace {
    let token = |at: usize| {
        let routes = &trace.tokens[at % trace.tokens.len().max(1)].layers;
        let of_layer = |layer: u32| {
            let known = routes.iter().find(|routes| routes.layer == layer);
            let known = known.or_else(|| routes.get(layer as usize % routes.len().max(1)))?;
            Some(LayerRoutes { layer, experts: known.experts.clone(), weights: Vec::new() })
        };
        let phase = if at < prompt { Phase::Prefill } else { Phase::Decode };
        let layers = shape.expert_layers.iter().filter_map(|layer| of_layer(layer.layer)).collect();
        TraceToken { phase, layers }
    };
    let tokens = if trace.tokens.is_empty() { 0 } else { prompt + decoded };
    Trace { header: trace.header.clone(), tokens: (0..tokens).map(token).collect() }
}

/// The same model with routers that choose fewer experts.
fn with_used(source: &ModelSource, used: u32) -> ModelSource {
    let mut source = source.clone();
    for layer in &mut source.shape.expert_layers {
        layer.used = layer.used.min(used.max(1));
    }
    source
}

impl PredictionError {
    /// Of a prediction for these runs.
    #[must_use]
    pub fn of(said: &Prediction, arm: &ArmSummary) -> Self {
        let off = |said: Option<f64>, measured: Option<f64>| {
            let measured = measured.filter(|measured| *measured > 0.0)?;
            Some(said? / measured - 1.0)
        };
        Self {
            decode: off(said.decode_tps, arm.decode_tps.map(|spread| spread.median)),
            prefill: off(said.prefill_tps, arm.prefill_tps.map(|spread| spread.median)),
            load: off(said.load_ms, arm.load_ms),
            read_bytes: off(said.read_bytes_per_token, arm.read_bytes_per_token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::summary::summarise;
    use crate::bench::summary::tests::run;
    use hypura_core::gguf::{merge, read_header};
    use hypura_core::synth::{Shape, SynthOptions, SynthPlan};
    use hypura_core::trace::TraceHeader;

    fn shape() -> ModelShape {
        let plan = SynthPlan::new(&SynthOptions::new(Shape::TinyQwen3Moe, Shape::TinyQwen3Moe.usual_quant()))
            .unwrap();
        let shard = &plan.shards()[0];
        let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
        ModelShape::from_gguf(&merge(vec![header], vec![shard.file_bytes]).unwrap()).unwrap()
    }

    #[test]
    fn errors_are_shares_of_what_was_measured() {
        let runs = vec![run(0, "expert-streaming", 4.0)];
        let arm = summarise(Arm::Auto, None, runs).unwrap();
        let said = Prediction { decode_tps: Some(5.0), load_ms: Some(50.0), ..Prediction::default() };
        let error = PredictionError::of(&said, &arm);
        assert_eq!((error.decode, error.load, error.prefill), (Some(0.25), Some(-0.5), None));
    }

    #[test]
    fn forced_routes_repeat_and_cover_every_layer() {
        let token = |expert| TraceToken {
            phase: Phase::Decode,
            layers: vec![LayerRoutes { layer: 0, experts: vec![expert], weights: Vec::new() }],
        };
        let trace =
            Trace { header: TraceHeader::new("t", 1, 8, 1, 1), tokens: vec![token(1), token(2), token(3)] };
        let shape = shape();
        let walked = walk(&shape, &trace, 2, 3);
        let experts: Vec<u32> = walked.tokens.iter().map(|token| token.layers[0].experts[0]).collect();
        assert_eq!(experts, [1, 2, 3, 1, 2]);
        assert_eq!(walked.tokens[1].phase, Phase::Prefill);
        assert!(walked.tokens.iter().all(|token| token.layers.len() == shape.expert_layers.len()));
    }
}
