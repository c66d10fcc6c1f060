//! Several machines: each computes the layers that are at home there, one after the other, and hidden states
//! go over the links between them.
//!
//! What a machine takes is predicted as if its layers were a model of their own: those of a worker are
//! resident there, and what is left here streams as ever. While a worker computes, this machine waits: the
//! ring and the guesses fill what little room they have, which is left out.

use super::prediction::NOISE;
use super::{CostInput, DecodeCost, Estimate, Prediction, PrefillCost, here};
use crate::model::ModelShape;
use crate::plan::{ExpertLayout, Homes, Ledger, Plan, PoolId, Pools};
use crate::profile::{Memory, Profile, WorkerRates};
use crate::roofline::BoundBy;

/// A layer that no model has: tensors of other machines' layers are in it.
const ELSEWHERE: u32 = u32::MAX;
/// Bytes of a number of a hidden state.
const NUMBER_BYTES: f64 = 4.0;

pub(super) fn predict(input: &CostInput<'_>) -> Prediction {
    let CostInput { shape, plan, profile, workload, .. } = *input;
    let left = part_of(shape, plan, PoolId::HOST);
    let layout = input.layout.on_host(&plan.homes);
    let mut prediction =
        here::predict(&CostInput { shape: &left, layout: &layout, plan: &on_host(plan, &left), ..*input });
    for (pool, _) in plan.pools.devices() {
        let has_layers = plan.homes.layers.iter().any(|home| home.dense == pool);
        if !has_layers {
            continue;
        }
        let Some(rates) = profile.workers.get(pool.index().saturating_sub(1)) else {
            prediction.without("the speed of a worker".to_owned());
            continue;
        };
        let shape = part_of(shape, plan, pool);
        let there = predict_there(&shape, plan, rates, workload);
        prediction.assumptions.extend(there.assumptions);
        let link = Link { rates, hidden_bytes: shape.embedding as f64 * NUMBER_BYTES };
        match (there.decode, there.prefill) {
            (Some(decode), Some(prefill)) => prediction.after(&link, decode, prefill, plan, pool, workload),
            _ => prediction.without(format!("the speed of the worker {}", rates.name)),
        }
    }
    prediction
}

/// A link, and what it carries for a token, there and back.
struct Link<'a> {
    rates: &'a WorkerRates,
    hidden_bytes: f64,
}

impl Link<'_> {
    /// So many tokens in so many graphs.
    fn seconds(&self, tokens: f64, graphs: f64) -> f64 {
        graphs * self.rates.round_trip_s
            + 2.0 * tokens * self.hidden_bytes / self.rates.bytes_per_s.max(f64::MIN_POSITIVE)
    }
}

/// What a worker takes for its layers.
fn predict_there(
    shape: &ModelShape,
    plan: &Plan,
    rates: &WorkerRates,
    workload: super::Workload,
) -> Prediction {
    let profile = Profile {
        matmul: rates.matmul.clone(),
        attention: rates.attention,
        overhead: rates.overhead,
        memory: Memory::default(),
        ..Profile::default()
    };
    let plan = Plan {
        pools: Pools::host(u64::MAX),
        ledger: Ledger::new(),
        homes: Homes::on_host(shape),
        experts: None,
        dense: None,
        tables: None,
        ..plan.clone()
    };
    let layout = ExpertLayout::new(shape);
    here::predict(&CostInput { shape, layout: &layout, plan: &plan, profile: &profile, workload })
}

/// The model as the layers that are at home in a pool, and on the host what belongs to no layer. Tensors keep
/// their places in the list.
fn part_of(shape: &ModelShape, plan: &Plan, pool: PoolId) -> ModelShape {
    let at_home = |layer: u32| {
        let home = plan.homes.layers.get(layer as usize).copied().unwrap_or_default();
        home.dense == pool
    };
    let mut part = shape.clone();
    for tensor in &mut part.tensors {
        if !tensor.layer.map_or(pool == PoolId::HOST, at_home) {
            tensor.layer = Some(ELSEWHERE);
        }
    }
    part.expert_layers.retain(|layer| at_home(layer.layer));
    let mut layer = 0..;
    part.layer_shapes.retain(|_| layer.next().is_some_and(at_home));
    part
}

/// The part of a plan that is about the host.
fn on_host(plan: &Plan, shape: &ModelShape) -> Plan {
    let mut ledger = Ledger::new();
    plan.ledger
        .entries()
        .iter()
        .filter(|entry| entry.pool == PoolId::HOST)
        .for_each(|entry| ledger.add(*entry));
    Plan { pools: Pools::host(plan.budget_bytes()), homes: Homes::on_host(shape), ledger, ..plan.clone() }
}

impl Prediction {
    /// Something about speed is not known.
    fn without(&mut self, missing: String) {
        (self.decode, self.prefill) = (None, None);
        self.missing.push(missing);
    }

    /// The same with a worker that takes so long for its part.
    fn after(
        &mut self,
        link: &Link<'_>,
        decode: DecodeCost,
        prefill: PrefillCost,
        plan: &Plan,
        pool: PoolId,
        workload: super::Workload,
    ) {
        let weights = plan.ledger.bytes(pool, crate::plan::Purpose::Weights) as f64;
        let sent_s = weights / link.rates.bytes_per_s.max(f64::MIN_POSITIVE);
        self.load_s = self.load_s.map(|load| load.later(sent_s));
        self.decode = self.decode.map(|here| here.and_then(&decode, link.seconds(1.0, 1.0)));
        let prompt = f64::from(workload.prompt_tokens);
        let graphs = (prompt / f64::from(workload.ubatch_tokens.max(1))).ceil();
        self.prefill = self.prefill.map(|here| here.and_then(&prefill, link.seconds(prompt, graphs), prompt));
    }
}

impl Estimate {
    /// So many seconds later.
    fn later(self, seconds: f64) -> Self {
        Self { low: self.low + seconds, mid: self.mid + seconds, high: self.high + seconds }
    }

    /// A speed, with so many more seconds for each.
    fn slower(self, seconds: f64) -> Self {
        let slower = |per_s: f64| 1.0 / (1.0 / per_s + seconds);
        Self { low: slower(self.low), mid: slower(self.mid), high: slower(self.high) }
    }
}

impl DecodeCost {
    /// A token that another machine computes further, and then takes so long on the link.
    fn and_then(self, there: &Self, link_s: f64) -> Self {
        let more_s = 1.0 / there.tokens_per_s.mid + link_s;
        let cost = Self {
            tokens_per_s: self.tokens_per_s.slower(more_s),
            roofline_tokens_per_s: 1.0
                / (1.0 / self.roofline_tokens_per_s + 1.0 / there.roofline_tokens_per_s + link_s),
            compute_s: self.compute_s + there.compute_s,
            sync_s: self.sync_s + there.sync_s,
            link_s: self.link_s + link_s,
            ..self
        };
        let others = [cost.compute_s, cost.sync_s, cost.read_s];
        let bound = if others.iter().all(|other| cost.link_s > *other) { BoundBy::Link } else { cost.bound };
        Self { bound, ..cost }
    }
}

impl PrefillCost {
    /// The same of a prompt of so many tokens.
    fn and_then(self, there: &Self, link_s: f64, tokens: f64) -> Self {
        let seconds = self.first_token_s.mid + there.first_token_s.mid + link_s;
        let first_token_s = Estimate::around(seconds, NOISE);
        let cost = Self {
            tokens_per_s: first_token_s.inverse(tokens),
            first_token_s,
            compute_s: self.compute_s + there.compute_s,
            link_s: self.link_s + link_s,
            ..self
        };
        let bound = cost.link_s > cost.compute_s && cost.link_s > cost.read_s;
        Self { bound: if bound { BoundBy::Link } else { cost.bound }, ..cost }
    }
}
