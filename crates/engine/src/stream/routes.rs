//! Routing observed and forced: the experts that routers chose, recorded as a trace, or taken from one.
//!
//! Forcing is for tests and benchmarks only: random weights route at random, and then a hit rate equals the
//! cache fraction and says nothing about policies. With forced routes the bytes read are those of a real
//! model.

use hypura_core::model::{ExpertTensor, ModelShape};
use hypura_core::trace::{LayerRoutes, Phase, Trace, TraceHeader, TraceToken};
use hypura_ggml::{ExecError, Executor, GraphRun, MoeIds, StreamedOp, WeightId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{LoadError, StreamError};

/// Tokens recorded so far, shared with their writer.
#[derive(Clone, Debug, Default)]
pub struct RouteLog(Arc<Mutex<Vec<TraceToken>>>);

impl RouteLog {
    /// Takes what was recorded since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<TraceToken> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The header of a trace recorded from a model; `None` where it has no routed experts. Experts of several
/// sizes count with their mean.
#[must_use]
pub fn trace_header(name: &str, shape: &ModelShape) -> Option<TraceHeader> {
    let layers = &shape.expert_layers;
    let bytes = |parts: &[ExpertTensor]| parts.iter().map(|part| part.slice_bytes).sum::<u64>();
    let total: u64 = layers.iter().map(|layer| bytes(&layer.parts) * u64::from(layer.experts)).sum();
    let count: u64 = layers.iter().map(|layer| u64::from(layer.experts)).sum();
    let expert_bytes = total.checked_div(count)?;
    Some(TraceHeader::new(name, shape.layers, shape.experts, shape.experts_used, expert_bytes))
}

/// Refuses a trace with experts that some layer of the model lacks.
pub(crate) fn check_fit(trace: &Trace, shape: &ModelShape) -> Result<(), LoadError> {
    let experts = shape.expert_layers.iter().map(|layer| layer.experts).min().unwrap_or(0);
    let named = trace.tokens.iter().flat_map(|token| &token.layers).flat_map(|routes| &routes.experts);
    match named.copied().max() {
        Some(expert) if expert >= experts => Err(LoadError::Routes { expert, experts }),
        _ => Ok(()),
    }
}

/// What to do with routes.
#[derive(Clone, Debug, Default)]
pub struct RouteSettings {
    /// Force the routers' choices: token after token of this trace, from the beginning again at its end.
    /// Where the trace has fewer experts per token than the model, they repeat.
    pub forced: Option<Arc<Trace>>,
    /// Where that trace is from, for reports.
    pub forced_from: Option<PathBuf>,
    /// Record the choices.
    pub log: Option<RouteLog>,
}

impl RouteSettings {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.forced.is_some() || self.log.is_some()
    }
}

/// Applies [`RouteSettings`] pass by pass.
pub(crate) struct RouteTap {
    settings: RouteSettings,
    /// Tokens of earlier passes.
    position: usize,
    /// Routes of the pass in progress, one entry per token.
    current: Vec<TraceToken>,
}

impl RouteTap {
    pub fn new(settings: RouteSettings) -> Self {
        Self { settings, position: 0, current: Vec::new() }
    }

    /// A pass over the layers begins, whose first expert layer has so many tokens.
    pub fn begin_pass(&mut self, tokens: usize) {
        self.current.resize_with(tokens, || empty(tokens));
    }

    /// The ids of a layer are known and nothing has used them yet.
    pub fn layer(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        layer: u32,
        experts: u32,
    ) -> Result<(), ExecError> {
        let mut ids = MoeIds::read(run, op)?;
        if let Some(trace) = self.settings.forced.clone() {
            self.force(&trace, layer, experts, &mut ids)?;
            ids.force(run, op)?;
        }
        if self.settings.log.is_some() {
            self.note(layer, &ids);
        }
        Ok(())
    }

    /// The first token of the graph that a layer computes. The last layer leaves out the tokens whose logits
    /// nobody wants, and those are the first ones.
    fn first_token(&self, ids: &MoeIds) -> usize {
        self.current.len().saturating_sub(ids.tokens)
    }

    /// The experts that the trace will force on a later layer for the tokens of the graph in progress,
    /// likeliest first, each once; `None` where nothing is forced.
    pub fn upcoming(&self, layer: u32) -> Option<Vec<u32>> {
        let trace = self.settings.forced.as_ref()?;
        let mut experts = Vec::new();
        for token in 0..self.current.len() {
            for expert in forced_experts(trace, self.position + token, layer)? {
                if !experts.contains(expert) {
                    experts.push(*expert);
                }
            }
        }
        Some(experts)
    }

    fn force(&self, trace: &Trace, layer: u32, experts: u32, ids: &mut MoeIds) -> Result<(), ExecError> {
        let used = u32::try_from(ids.used).unwrap_or(u32::MAX);
        let misfit = || ExecError::engine(StreamError::Routes { layer, experts, used });
        let first = self.position + self.first_token(ids);
        for token in 0..ids.tokens {
            let chosen = forced_experts(trace, first + token, layer).ok_or_else(misfit)?;
            if chosen.is_empty() || chosen.iter().any(|expert| *expert >= experts) {
                return Err(misfit());
            }
            for slot in 0..ids.used {
                ids.experts[token * ids.used + slot] =
                    i32::try_from(chosen[slot % chosen.len()]).map_err(|_| misfit())?;
            }
        }
        Ok(())
    }

    fn note(&mut self, layer: u32, ids: &MoeIds) {
        let first = self.first_token(ids);
        for (token, chosen) in self.current[first..].iter_mut().zip(ids.experts.chunks(ids.used.max(1))) {
            let mut experts: Vec<u32> = Vec::with_capacity(chosen.len());
            for expert in chosen.iter().filter_map(|expert| u32::try_from(*expert).ok()) {
                if !experts.contains(&expert) {
                    experts.push(expert);
                }
            }
            if !experts.is_empty() {
                token.layers.push(LayerRoutes { layer, experts, weights: Vec::new() });
            }
        }
    }

    /// The pass has ended. One that failed counts for nothing: its tokens will be computed again.
    pub fn end_pass(&mut self, ok: bool) {
        let tokens = std::mem::take(&mut self.current);
        if !ok {
            return;
        }
        self.position += tokens.len();
        if let Some(log) = &self.settings.log {
            log.0.lock().unwrap_or_else(PoisonError::into_inner).extend(tokens);
        }
    }
}

/// What a trace says of a layer, or, where it has fewer layers than the model, of another one; from the
/// beginning again at its end.
fn forced_experts(trace: &Trace, token: usize, layer: u32) -> Option<&Vec<u32>> {
    let routes = &trace.tokens.get(token % trace.tokens.len().max(1))?.layers;
    let known = routes.iter().find(|routes| routes.layer == layer);
    Some(&known.or_else(|| routes.get(layer as usize % routes.len().max(1)))?.experts)
}

fn empty(tokens: usize) -> TraceToken {
    let phase = if tokens > 1 { Phase::Prefill } else { Phase::Decode };
    TraceToken { phase, layers: Vec::new() }
}

/// Runs a fully resident model with its routes observed or forced.
pub(crate) struct ObservedExecutor {
    tap: RouteTap,
    layers: HashMap<WeightId, u32>,
    experts: HashMap<u32, u32>,
    /// The last expert layer of the pass in progress.
    last: Option<u32>,
}

impl ObservedExecutor {
    /// `experts`: number of experts of each expert layer.
    pub fn new(settings: RouteSettings, experts: HashMap<u32, u32>) -> Self {
        Self { tap: RouteTap::new(settings), layers: HashMap::new(), experts, last: None }
    }

    fn walk(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let mut cursor = 0;
        let mut last = None;
        for op in run.graph().expert_ops() {
            if last.replace(op.ids) == Some(op.ids) {
                continue;
            }
            run.run(cursor..op.node)?;
            cursor = op.node;
            let layer =
                *self.layers.entry(op.weight).or_insert_with(|| layer_of(&run.graph().weight_name(op)));
            let Some(experts) = self.experts.get(&layer).copied() else { continue };
            // Layers come in order: an earlier one, or the same one, begins another pass.
            if self.last.replace(layer).is_none_or(|last| layer <= last) {
                self.tap.end_pass(true);
                self.tap.begin_pass(run.graph().moe_tokens(op)?);
            }
            self.tap.layer(run, op, layer, experts)?;
        }
        run.run(cursor..run.graph().len())
    }
}

impl Executor for ObservedExecutor {
    fn begin_step(&mut self) {
        self.last = None;
    }

    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        self.walk(run)
    }

    fn end_step(&mut self, ok: bool) {
        self.tap.end_pass(ok);
    }
}

/// `N` of `blk.N.…`; a layer that no model has otherwise.
fn layer_of(tensor: &str) -> u32 {
    tensor
        .strip_prefix("blk.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(u32::MAX)
}
