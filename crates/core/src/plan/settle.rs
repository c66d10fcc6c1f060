//! The one policy of what a model gets: from what is asked to a plan.
//!
//! In this order: the context is cut to what the model was trained for, or, where nobody asked for one, as
//! long as costs little; the ubatch is what has to go through in one graph, and more where that costs little;
//! as many layers as fit go to devices, or as many as it takes to workers that do not make it slower; the KV
//! cache is made smaller where nothing else works; sequences that only remember get what they cost little of;
//! and where the caller allows it, the context is halved. Loading, predicting and serving a model all ask
//! here, so that all of them get the same plan.

use super::banks::BankRules;
use super::context::choose_context;
use super::device_dense::{is_better, is_dense};
use super::error::PlanError;
use super::fill::{fill, on_devices};
use super::homes::Homes;
use super::ledger::{Ledger, Purpose};
use super::placement::Plan;
use super::pool::{PoolId, Pools};
use super::request::{CacheSize, Constraints, ContextShape, ExpertHome, KvType, MediaNeeds, Residency};
use super::split::Split;
use super::worth::Choosing;
use super::{ExpertLayout, choose_ubatch};
use crate::model::ModelShape;
use crate::profile::Profile;
use std::sync::Arc;

/// Sequences that only remember may take one part in so many of what the weights take.
const REMEMBERING_SHARE: u64 = 50;

/// All that is asked of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest {
    /// Memory that may be used.
    pub pools: Pools,
    /// Resident, streaming, or what fits.
    pub residency: Residency,
    /// Overrides the size of the cache.
    pub cache: Option<CacheSize>,
    /// Whether tables stream by the row ([`Constraints::tables`]).
    pub tables: Residency,
    /// Layers on devices, in place of as many as fit.
    pub device_layers: Option<u32>,
    /// Whose kernels compute routed experts.
    pub experts: ExpertHome,
    /// The context, as far as the model can have it.
    pub context: ContextShape,
    /// Whether the context may be longer than asked where the memory for it is little.
    pub context_may_grow: bool,
    /// Tokens of context down to which it is halved where the one that is asked for does not fit.
    pub least_context_tokens: Option<u32>,
    /// Whether the ubatch may be larger than asked where weights stream and the memory for it is little.
    pub ubatch_may_grow: bool,
    /// Whether the KV cache may be q8_0 in place of f16 where nothing else makes the plan work.
    pub kv_may_shrink: bool,
    /// A projector.
    pub media: MediaNeeds,
    /// What a device asks of slots that it computes with in the host's memory; `None` where none does.
    pub banks: Option<BankRules>,
    /// How fast this machine and the workers are, for leaving out workers that would make it slower; `None`
    /// where nobody knows, and then none is left out.
    pub speeds: Option<Arc<Profile>>,
}

impl PlanRequest {
    /// Where routed experts go in slots.
    #[must_use]
    pub fn expert_layout(&self, shape: &ModelShape) -> ExpertLayout {
        match self.banks {
            Some(rules) => ExpertLayout::in_banks(shape, rules),
            None => ExpertLayout::new(shape),
        }
    }
}

impl Default for PlanRequest {
    /// What a user gets without flags, with memory without end.
    fn default() -> Self {
        Self {
            pools: Pools::host(u64::MAX),
            residency: Residency::Auto,
            cache: None,
            tables: Residency::Auto,
            device_layers: None,
            experts: ExpertHome::Auto,
            context: ContextShape::default(),
            context_may_grow: false,
            least_context_tokens: None,
            ubatch_may_grow: false,
            kv_may_shrink: true,
            media: MediaNeeds::default(),
            banks: None,
            speeds: None,
        }
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// What is where.
    pub plan: Plan,
    /// What it keeps to.
    pub constraints: Constraints,
    /// What was decided that the user may want to know.
    pub notes: Vec<String>,
    /// Workers that would make it slower, and the reason for people.
    pub left_out: Vec<(PoolId, String)>,
}

/// Why there is no plan. `E` is why needs are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleError<E> {
    /// Nothing that may be tried fits.
    Plan(PlanError),
    /// What a context needs cannot be found out.
    Needs(E),
}

impl<E> From<PlanError> for SettleError<E> {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// Decides. `layout` belongs to the same shape. `needs` says what llama.cpp and the process need for a
/// context whose layers have these homes, without weights and media: measured or estimated.
///
/// # Errors
/// [`SettleError`].
pub fn settle<E>(
    shape: &ModelShape,
    layout: &ExpertLayout,
    request: &PlanRequest,
    mut needs: impl FnMut(&ContextShape, &Homes) -> Result<Ledger, E>,
) -> Result<Settled, SettleError<E>> {
    let mut settling = Settling { shape, layout, request, needs: &mut needs, left_out: Vec::new() };
    let mut tokens = longest_context(shape, request.context.context_tokens);
    loop {
        let settled = settling.with_context(tokens);
        let may_halve = request.least_context_tokens.is_some_and(|least| tokens / 2 >= least.max(1));
        if !(may_halve && matches!(settled, Err(SettleError::Plan(_)))) {
            return settling.with_longer_context(tokens, settled?);
        }
        tokens /= 2;
    }
}

/// The context of `asked` tokens that a model can have.
fn longest_context(shape: &ModelShape, asked: u32) -> u32 {
    let trained = u32::try_from(shape.context_train).unwrap_or(u32::MAX);
    let most = if trained == 0 { u32::MAX } else { trained };
    asked.min(most).max(1)
}

struct Settling<'a, E> {
    shape: &'a ModelShape,
    layout: &'a ExpertLayout,
    request: &'a PlanRequest,
    needs: &'a mut dyn FnMut(&ContextShape, &Homes) -> Result<Ledger, E>,
    /// Of the last context that was tried.
    left_out: Vec<(PoolId, String)>,
}

impl<E> Settling<'_, E> {
    /// A plan for a context of so many tokens, with a smaller KV cache where that alone makes it work.
    fn with_context(&mut self, context_tokens: u32) -> Result<Settled, SettleError<E>> {
        let ubatch_tokens = self.ubatch(context_tokens);
        let context = ContextShape { context_tokens, ubatch_tokens, ..self.request.context };
        let may_shrink = context.kv == KvType::F16 && self.request.kv_may_shrink;
        match self.with_homes(context) {
            Err(SettleError::Plan(too_little)) if may_shrink => {
                match self.with_homes(ContextShape { kv: KvType::Q8_0, ..context }) {
                    Ok(settled) => Ok(Settled { notes: vec![too_little.shrunk_kv_note()], ..settled }),
                    // The least that works is what q8_0 needs; a model that cannot have it needs what f16
                    // does.
                    Err(SettleError::Needs(_)) => Err(too_little.into()),
                    still_too_little => still_too_little,
                }
            }
            settled => settled,
        }
    }

    /// A plan with the longest context that costs little, where that is allowed and `short`, a plan for
    /// `tokens`, was not found by halving. It runs as `short` does, and works in as little as `short` does.
    fn with_longer_context(&mut self, tokens: u32, short: Settled) -> Result<Settled, SettleError<E>> {
        let asked = longest_context(self.shape, self.request.context.context_tokens);
        // A model that looks both ways computes its whole context in one graph.
        if !self.request.context_may_grow || tokens < asked || !self.shape.is_causal {
            return Ok(short);
        }
        let context = ContextShape { context_tokens: asked, ..short.plan.context };
        let homes = short.constraints.homes.clone();
        let constraints = self.constraints(context, homes, Ledger::new());
        let mut longer = choose_context(self.shape, self.layout, &constraints);
        while longer > asked {
            match self.with_context(longer) {
                Ok(mut long) if long.plan.mode() == short.plan.mode() && long.notes == short.notes => {
                    long.plan.floor_bytes = short.plan.floor_bytes;
                    return Ok(long);
                }
                // The estimate was too low.
                Ok(_) | Err(SettleError::Plan(_)) => longer = (longer / 2).max(asked),
                Err(needs) => return Err(needs),
            }
        }
        Ok(short)
    }

    /// Tokens of a graph: as asked, but all of what has to go through in one, and more where that costs
    /// little.
    fn ubatch(&self, context_tokens: u32) -> u32 {
        let PlanRequest { media, ubatch_may_grow, .. } = *self.request;
        if !self.shape.is_causal {
            // It looks both ways: a text has to go through in one graph.
            return context_tokens;
        }
        let asked = self.request.context.ubatch_tokens.max(1).max(media.graph_tokens);
        let ubatch_tokens = asked.min(context_tokens);
        if !ubatch_may_grow {
            return ubatch_tokens;
        }
        let context = ContextShape { context_tokens, ubatch_tokens, ..self.request.context };
        let constraints = self.constraints(context, Homes::on_host(self.shape), Ledger::new());
        choose_ubatch(self.shape, self.layout, &constraints)
    }

    fn constraints(&self, context: ContextShape, homes: Homes, needs: Ledger) -> Constraints {
        let PlanRequest { pools, residency, cache, tables, media, .. } = self.request.clone();
        Constraints { context, pools, needs: media.add_to(needs), homes, residency, cache, tables }
    }

    fn measured(&mut self, context: ContextShape, homes: &Homes) -> Result<Constraints, SettleError<E>> {
        let needs = (self.needs)(&context, homes).map_err(SettleError::Needs)?;
        Ok(self.constraints(context, homes.clone(), needs))
    }

    fn with_homes(&mut self, context: ContextShape) -> Result<Settled, SettleError<E>> {
        let bare = self.homes(ContextShape { idle_sequences: 0, ..context })?;
        self.with_idle(context.idle_sequences, bare)
    }

    /// Homes for a context: everything on devices if that fits, otherwise the dense weights of as many layers
    /// as do.
    fn homes(&mut self, context: ContextShape) -> Result<Constraints, SettleError<E>> {
        let Self { shape, request, .. } = *self;
        let on_host = self.measured(context, &Homes::on_host(shape))?;
        if request.pools.devices().next().is_none() {
            return Ok(on_host);
        }
        if request.pools.has_workers() {
            return self.with_workers(on_host);
        }
        let most = Homes::most_layers(shape);
        let asked = request.device_layers.map(|layers| layers.min(most));
        let may_have_experts = request.residency != Residency::Stream && request.experts != ExpertHome::Host;
        if may_have_experts
            && asked.is_none_or(|layers| layers == most)
            && let Some(all) = self.on_devices(context, most, true)?
        {
            return Ok(all);
        }
        if let Some(layers) = asked {
            let homes = Homes::on_devices(shape, &request.pools, layers, false);
            let constraints = self.measured(context, &homes)?;
            return self.with_streams_on_device(constraints);
        }
        let mut best = on_host;
        let (mut fits, mut too_many) = (0, most.saturating_add(1));
        while too_many - fits > 1 {
            let layers = fits + (too_many - fits) / 2;
            match self.on_devices(context, layers, false)? {
                Some(constraints) => (fits, best) = (layers, constraints),
                None => too_many = layers,
            }
        }
        self.with_streams_on_device(best)
    }

    /// Whole layers on other machines, as [`Split`] says; on those that do not make it slower, where it is
    /// known how fast they are.
    fn with_workers(&mut self, on_host: Constraints) -> Result<Constraints, SettleError<E>> {
        let Self { shape, layout, request, .. } = *self;
        self.left_out.clear();
        let fits = |constraints: &Constraints| {
            fill(shape, layout, constraints).is_ok_and(|plan| plan.is_resident_but_for_tables())
        };
        if request.device_layers.is_none() && fits(&on_host) {
            return Ok(on_host);
        }
        let probe = Split::probe(shape, &request.pools);
        let measured = self.measured(on_host.context, &probe)?;
        let mut split = Split::new(shape, &request.pools, &measured.needs);
        if let (None, Some(speeds)) = (request.device_layers, &request.speeds) {
            let choosing = Choosing { shape, layout, speeds, on_host: &on_host };
            let choice = choosing.choose(split, &fits);
            (split, self.left_out) = (choice.split, choice.left_out);
        }
        let most = split.most_layers();
        let mut layers = match request.device_layers {
            Some(asked) => asked.min(most),
            None => split.enough(most, &on_host, fits),
        };
        while layers > 0 {
            let constraints = self.measured(on_host.context, &split.homes(layers))?;
            let room = on_devices(shape, &constraints).is_ok();
            let wanted = request.device_layers.is_none() && layers < most && !fits(&constraints);
            match (room, wanted) {
                // What was estimated was a little too low, or too high.
                (true, true) => layers += 1,
                (true, false) => return Ok(constraints),
                (false, _) => return self.at_most(on_host, &split, layers - 1),
            }
        }
        Ok(on_host)
    }

    /// So many layers on other machines, or fewer.
    fn at_most(
        &mut self,
        on_host: Constraints,
        split: &Split<'_>,
        most: u32,
    ) -> Result<Constraints, SettleError<E>> {
        for layers in (1..=most).rev() {
            let constraints = self.measured(on_host.context, &split.homes(layers))?;
            if on_devices(self.shape, &constraints).is_ok() {
                return Ok(constraints);
            }
        }
        Ok(on_host)
    }

    /// The same with what streams computed on the device, where that is asked for, or better.
    fn with_streams_on_device(&mut self, constraints: Constraints) -> Result<Constraints, SettleError<E>> {
        if is_dense(self.layout) {
            self.with_streamed_dense(constraints)
        } else {
            self.with_device_slots(constraints)
        }
    }

    /// The same with all layers at home on the device, which computes the weights that stream too.
    fn with_streamed_dense(&mut self, constraints: Constraints) -> Result<Constraints, SettleError<E>> {
        let Self { shape, layout, request, .. } = *self;
        let most = Homes::most_layers(shape);
        let devices: Vec<PoolId> = request.pools.devices().map(|(pool, _)| pool).collect();
        let is_asked = request.device_layers.is_some_and(|layers| layers >= most);
        let may = request.residency != Residency::Resident && (is_asked || request.device_layers.is_none());
        let ([pool], true) = (devices.as_slice(), may) else { return Ok(constraints) };
        // One memory was given out twice there.
        let by_host = fill(shape, layout, &constraints).ok().filter(|_| !request.pools.are_unified());
        if by_host.as_ref().is_some_and(|plan| plan.dense.is_none()) {
            return Ok(constraints);
        }
        let homes = Homes::on_devices(shape, &request.pools, most, false);
        let there = self.measured(constraints.context, &Homes { streamed_dense: *pool, ..homes })?;
        let plan =
            fill(shape, layout, &there).ok().filter(|plan| plan.ledger.exceeded(&plan.pools).is_none());
        let works = plan.is_some_and(|plan| match by_host {
            Some(by_host) if !is_asked => is_better(shape, &plan, &by_host),
            _ => true,
        });
        Ok(if works { there } else { constraints })
    }

    /// The same with experts computed on the device of all other weights, where that was asked for or the
    /// device computes with the host's slots, and there are slots for what a token uses of a layer.
    fn with_device_slots(&mut self, constraints: Constraints) -> Result<Constraints, SettleError<E>> {
        let Self { shape, layout, request, .. } = *self;
        let all = constraints.homes.device_layers() == Homes::most_layers(shape);
        let unified = request.pools.are_unified();
        let wanted = match request.experts {
            ExpertHome::Device => true,
            ExpertHome::Auto => unified,
            ExpertHome::Host => false,
        };
        let asked = wanted && request.residency != Residency::Resident;
        let Some(pool) = constraints.homes.device().filter(|_| all && asked) else { return Ok(constraints) };
        let homes = Homes { streamed_experts: pool, ..constraints.homes.clone() };
        let there = self.measured(constraints.context, &homes)?;
        let plan =
            fill(shape, layout, &there).ok().filter(|plan| plan.ledger.exceeded(&plan.pools).is_none());
        let of_slots = if unified { PoolId::HOST } else { pool };
        let slots = plan.map(|plan| plan.slots_in(of_slots, layout)).unwrap_or_default();
        let mut enough = layout.classes.iter().zip(&slots);
        let works = !slots.is_empty() && enough.all(|(class, slots)| *slots >= 2 * class.used);
        Ok(if works { there } else { constraints })
    }

    /// So many layers on devices; `None` where that does not fit.
    fn on_devices(
        &mut self,
        context: ContextShape,
        layers: u32,
        experts: bool,
    ) -> Result<Option<Constraints>, SettleError<E>> {
        let homes = Homes::on_devices(self.shape, &self.request.pools, layers, experts);
        let constraints = self.measured(context, &homes)?;
        Ok(on_devices(self.shape, &constraints).is_ok().then_some(constraints))
    }

    /// A plan with as many sequences that only remember as were asked for where they take nothing (the cells
    /// of a KV cache are one pool), with fewer where each has memory of its own (recurrent state), and
    /// without where the plan works only so.
    fn with_idle(&mut self, wanted: u32, bare: Constraints) -> Result<Settled, SettleError<E>> {
        let idle = if wanted == 0 { 0 } else { self.affordable_idle(wanted, &bare)? };
        if idle > 0 {
            let context = ContextShape { idle_sequences: idle, ..bare.context };
            let constraints = self.measured(context, &bare.homes)?;
            if let Ok(settled) = self.filled(constraints) {
                return Ok(settled);
            }
        }
        Ok(self.filled(bare)?)
    }

    fn affordable_idle(&mut self, wanted: u32, bare: &Constraints) -> Result<u32, SettleError<E>> {
        let full = self.measured(ContextShape { idle_sequences: wanted, ..bare.context }, &bare.homes)?;
        let bytes = |constraints: &Constraints| {
            let needs = &constraints.needs;
            needs.bytes_for(Purpose::Kv).saturating_add(needs.bytes_for(Purpose::Compute))
        };
        let extra = bytes(&full).saturating_sub(bytes(bare)).max(1);
        let most = self.shape.total_bytes() / REMEMBERING_SHARE;
        Ok(u32::try_from(u64::from(wanted).saturating_mul(most) / extra).unwrap_or(u32::MAX).min(wanted))
    }

    fn filled(&self, constraints: Constraints) -> Result<Settled, PlanError> {
        let plan = fill(self.shape, self.layout, &constraints)?;
        Ok(Settled { plan, constraints, notes: Vec::new(), left_out: self.left_out.clone() })
    }
}
