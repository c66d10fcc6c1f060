//! The executor of a streaming context: walks each graph and sends every streamed node to its streamer.

use hypura_ggml::{ExecError, Executor, GraphRun, StreamedKind, StreamedOp, WeightId};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, View};
use super::dense::DenseStreamer;
use super::experts::{DECODE_TOKENS, ExpertStreamer, Target};
use super::io::Io;
use super::routes::RouteTap;
use super::stats::{Held, SharedStats, StreamStats};
use super::step::LayerOps;
use crate::error::StreamError;

/// What a streamed weight is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Expert { layer: usize, part: usize },
    Dense(usize),
}

/// Experts with the reads that belong to them.
pub(crate) struct ExpertSide {
    pub streamer: ExpertStreamer,
    pub io: Io<Target>,
    pub ahead: Ahead,
    pub tap: Option<RouteTap>,
}

impl ExpertSide {
    /// A graph whose first expert node is `op` begins; returns the tokens of the step.
    fn begin_graph(&mut self, run: &GraphRun<'_>, op: StreamedOp) -> Result<usize, ExecError> {
        let tokens = run.moe_tokens(op)?;
        self.streamer.begin_graph(&self.io, tokens);
        self.ahead.begin_graph(run, self.streamer.layout(), tokens <= DECODE_TOKENS);
        if let Some(tap) = &mut self.tap {
            tap.begin_graph(tokens);
        }
        Ok(tokens)
    }

    /// The ids of a layer are known: start its reads.
    fn begin_layer(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        layer: usize,
        ops: &LayerOps,
    ) -> Result<(), ExecError> {
        let layout = &self.streamer.layout().layers[layer];
        if let Some(tap) = &mut self.tap {
            tap.layer(run, op, layout.layer, layout.experts)?;
        }
        let ids = run.moe_ids(op)?;
        self.ahead.came(layer, &ids);
        self.streamer.begin(&mut self.io, layer, op.ids, &ids, ops);
        match self.ahead.after_router(layer) {
            Some(view) => self.look_ahead(run, view),
            None => Ok(()),
        }
    }

    /// Guesses what the next layers will use, and reads it while the disk has time.
    fn look_ahead(&mut self, run: &mut GraphRun<'_>, view: View) -> Result<(), ExecError> {
        if self.streamer.holds_all() {
            return Ok(());
        }
        let layout = self.streamer.layout();
        let mut choices = self.ahead.predict(run, layout, view)?;
        if let Some(tap) = &self.tap {
            self.ahead.foresee(&mut choices, layout, |layer| tap.upcoming(layer));
        }
        let guesses = self.ahead.choose(choices);
        self.streamer.expect(&mut self.io, guesses);
        Ok(())
    }
}

/// Runs the graphs of one context. Dropped with the context; the readers wait for their reads then.
pub(crate) struct StreamExecutor {
    experts: Option<ExpertSide>,
    dense: Option<DenseStreamer>,
    places: HashMap<WeightId, Place>,
    /// A graph began and has not ended cleanly.
    dirty: bool,
    /// The last graph was a decode step of a single token: the only ones whose times can be compared.
    single: bool,
    stats: StreamStats,
    /// Where counters are published; `None` when they are not.
    shared: Option<Arc<SharedStats>>,
}

impl StreamExecutor {
    pub fn new(
        experts: Option<ExpertSide>,
        dense: Option<DenseStreamer>,
        shared: Option<Arc<SharedStats>>,
    ) -> Self {
        Self {
            experts,
            dense,
            places: HashMap::new(),
            dirty: false,
            single: false,
            stats: StreamStats::default(),
            shared,
        }
    }

    /// Finds out what each streamed weight of the graph is; by name the first time, by identity afterwards.
    fn resolve(&mut self, run: &GraphRun<'_>, ops: &[StreamedOp]) -> Result<Vec<Place>, ExecError> {
        ops.iter()
            .map(|op| match self.places.get(&op.weight) {
                Some(place) => Ok(*place),
                None => {
                    let place = self.look_up(run, *op).map_err(ExecError::engine)?;
                    self.places.insert(op.weight, place);
                    Ok(place)
                }
            })
            .collect()
    }

    fn look_up(&self, run: &GraphRun<'_>, op: StreamedOp) -> Result<Place, StreamError> {
        let tensor = run.weight_name(op);
        let expert = self
            .experts
            .as_ref()
            .and_then(|side| side.streamer.layout().by_tensor().get(tensor.as_str()).copied())
            .map(|(layer, part)| Place::Expert { layer, part });
        let dense = self
            .dense
            .as_ref()
            .and_then(|dense| dense.weights().iter().position(|weight| weight.tensor == tensor))
            .map(Place::Dense);
        let place = expert.or(dense).ok_or_else(|| StreamError::UnknownTensor(tensor.clone()))?;
        match (place, op.kind) {
            (Place::Expert { .. }, StreamedKind::Experts) | (Place::Dense(_), StreamedKind::Dense) => {
                Ok(place)
            }
            _ => Err(StreamError::Unsupported { tensor, op: run.op_name(op.node) }),
        }
    }

    fn walk(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let ops = run.streamed();
        let places = self.resolve(run, &ops)?;
        if let Some(dense) = &mut self.dense {
            let order: Vec<usize> = places
                .iter()
                .filter_map(|place| match place {
                    Place::Dense(weight) => Some(*weight),
                    Place::Expert { .. } => None,
                })
                .collect();
            if !order.is_empty() {
                dense.begin_graph(order);
            }
        }
        let mut entries = self.begin_experts(run, &ops, &places)?.into_iter().peekable();
        let mut cursor = 0;
        let mut at = 0;
        while let Some((op, place)) = ops.get(at).copied().zip(places.get(at).copied()) {
            while let Some((node, view)) = entries.next_if(|(node, _)| *node < op.node) {
                if node < cursor {
                    continue;
                }
                self.run_plain(run, cursor..node)?;
                cursor = node;
                if let Some(side) = &mut self.experts {
                    side.look_ahead(run, view)?;
                }
            }
            self.run_plain(run, cursor..op.node)?;
            cursor = op.node + 1;
            at += 1;
            match (place, &mut self.experts, &mut self.dense) {
                (Place::Expert { layer, part }, Some(side), _) => {
                    if side.streamer.is_new_layer(op, layer) {
                        let parts = side.streamer.layout().layers[layer].parts.len();
                        let layer_ops = ops_of_layer(&ops[at - 1..], &places[at - 1..], parts);
                        side.begin_layer(run, op, layer, &layer_ops)?;
                        let of_layer = ops.get(at - 1..at - 1 + layer_ops.count).unwrap_or_default();
                        if let Some(chain) = side.streamer.chain_of(run, of_layer, &layer_ops) {
                            side.streamer.run_chain(&mut side.io, run, &chain, &layer_ops.parts)?;
                            cursor = chain.end();
                            at += layer_ops.count - 1;
                            continue;
                        }
                    }
                    side.streamer.run_op(&mut side.io, run, op, part)?;
                }
                (Place::Dense(weight), _, Some(dense)) => dense.run_op(run, op, weight)?,
                _ => return Err(ExecError::engine(StreamError::UnknownTensor(run.weight_name(op)))),
            }
        }
        self.run_plain(run, cursor..run.len())
    }

    /// Nodes without streamed weights; the disk is kept busy meanwhile.
    fn run_plain(&mut self, run: &mut GraphRun<'_>, nodes: Range<usize>) -> Result<(), ExecError> {
        match &mut self.experts {
            Some(side) => run.meanwhile(&mut || side.streamer.tend(&mut side.io), |run| run.run(nodes)),
            None => run.run(nodes),
        }
    }

    /// Begins the experts' part of a graph; returns where to look ahead.
    fn begin_experts(
        &mut self,
        run: &GraphRun<'_>,
        ops: &[StreamedOp],
        places: &[Place],
    ) -> Result<Vec<(usize, View)>, ExecError> {
        let first = ops.iter().zip(places).find(|(_, place)| matches!(place, Place::Expert { .. }));
        let Some(((op, _), side)) = first.zip(self.experts.as_mut()) else { return Ok(Vec::new()) };
        self.single = side.begin_graph(run, *op)? == 1;
        Ok(side.ahead.entries())
    }

    /// Gives back everything that a failed or stopped graph holds.
    fn abandon(&mut self) {
        if let Some(side) = &mut self.experts {
            side.streamer.abandon(&mut side.io);
        }
        if let Some(dense) = &mut self.dense {
            dense.reset();
        }
    }

    fn held(&self) -> Held {
        let mut held = Held::default();
        if let Some(side) = &self.experts {
            held = side.streamer.held();
            held.reads += side.io.in_flight();
        }
        if let Some(dense) = &self.dense {
            held.cells += dense.cells_in_use();
            held.reads += dense.io().in_flight();
        }
        held
    }

    fn publish(&mut self, elapsed: Duration) {
        let Some(shared) = self.shared.clone() else { return };
        let stalled_before = self.stats.read_stall;
        let mut stats = StreamStats { graphs: self.stats.graphs + 1, ..StreamStats::default() };
        if let Some(side) = &self.experts {
            stats.decode = side.streamer.decode;
            stats.prefill = side.streamer.prefill;
            stats.shared_bytes = side.streamer.shared_bytes;
            stats.prefetch_switched_off = side.ahead.times_switched_off();
            stats.bytes_read += side.io.device_bytes();
            stats.disk_busy += side.io.disk_busy();
            stats.read_stall += side.io.stall();
            for slab in side.streamer.slabs() {
                let counters = slab.cache.counters();
                stats.evictions += counters.evictions;
                stats.prefetches += counters.prefetches;
                stats.prefetches_wasted += counters.prefetches_wasted;
            }
        }
        if let Some(dense) = &self.dense {
            stats.dense_weights = dense.used;
            stats.bytes_read += dense.io().device_bytes();
            stats.disk_busy += dense.io().disk_busy();
            stats.read_stall += dense.io().stall();
        }
        let stalled = stats.read_stall.saturating_sub(stalled_before);
        stats.compute = self.stats.compute + elapsed.saturating_sub(stalled);
        self.stats = stats;
        shared.set(stats);
    }
}

impl Executor for StreamExecutor {
    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let start = Instant::now();
        // Only a panic leaves the flag up: the last graph then had no chance to clean up.
        if self.dirty {
            self.abandon();
        }
        self.dirty = true;
        self.single = false;
        let outcome = self.walk(run);
        if outcome.is_err() {
            self.abandon();
        }
        self.dirty = false;
        if let Some(side) = &mut self.experts {
            if let Some(tap) = &mut side.tap {
                tap.end_graph(outcome.is_ok());
            }
            // While the slots get their first pages, times say little about guessing.
            let settled = side.streamer.memory().is_none_or(|memory| !memory.is_populating());
            if outcome.is_ok() && self.single && settled {
                side.ahead.observe(start.elapsed());
            }
        }
        debug_assert_eq!(self.held().pins, 0, "a pin leaked");
        if let Some(shared) = &self.shared {
            shared.set_held(self.held());
        }
        self.publish(start.elapsed());
        outcome
    }

    fn slots(&self) -> Vec<u32> {
        self.experts.as_ref().map(|side| side.streamer.slot_counts()).unwrap_or_default()
    }

    fn spare_bytes(&self) -> u64 {
        self.experts.as_ref().map_or(0, |side| side.streamer.spare_bytes())
    }

    fn give_back(&mut self, bytes: u64) -> u64 {
        let freed = self.experts.as_mut().map_or(0, |side| side.streamer.give_back(&mut side.io, bytes));
        if let Some(shared) = &self.shared {
            shared.set_held(self.held());
        }
        freed
    }
}

/// The nodes from here on that belong to the same layer and ids as the first, and the order in which they need parts.
fn ops_of_layer(ops: &[StreamedOp], places: &[Place], part_count: usize) -> LayerOps {
    let Some((Place::Expert { layer: first, .. }, ids)) =
        places.first().copied().zip(ops.first().map(|op| op.ids))
    else {
        return LayerOps { count: 0, parts: Vec::new() };
    };
    let mut layer_ops = LayerOps { count: 0, parts: Vec::new() };
    for (op, place) in ops.iter().zip(places) {
        if let Place::Expert { layer, part } = place
            && (*layer, op.ids) == (first, ids)
        {
            layer_ops.count += 1;
            if !layer_ops.parts.contains(part) {
                layer_ops.parts.push(*part);
            }
        }
    }
    // A part that no node of this graph uses is read last: a slot is whole or nothing.
    for part in 0..part_count {
        if !layer_ops.parts.contains(&part) {
            layer_ops.parts.push(part);
        }
    }
    layer_ops
}
