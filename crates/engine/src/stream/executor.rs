//! The executor of a streaming context: goes through each graph and sends every streamed node to its
//! streamer.
//!
//! A decode is a step. It may arrive as many graphs (a device between them computes the layers' other parts)
//! and may make several passes over the layers (llama.cpp divides a batch of unequal sequences). What is
//! counted and timed is counted and timed by step, what is read ahead by pass.

use hypura_ggml::{ExecError, GraphRun, MatMul, MoeIds, StreamedKind, StreamedOp, WeightId};
use hypura_storage::Phase;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::dense::DenseStreamer;
use super::device::{DeviceCounts, PartOp};
use super::expert_map::ExpertMap;
use super::experts::ExpertStreamer;
use super::io::Io;
use super::open_step::OpenStep;
use super::prefetcher::{Prefetcher, View};
use super::routes::RouteTap;
use super::segments::{Place, PlacedOp, Segment, segments};
use super::stats::{Held, StatsPart, StreamStats};
use super::step::LayerOps;
use super::tables::TableStreamer;
use super::target::Target;
use crate::error::StreamError;

/// Experts with the reads that belong to them.
pub(crate) struct ExpertSide {
    pub streamer: ExpertStreamer,
    pub io: Io<Target>,
    pub prefetcher: Prefetcher,
    pub tap: Option<RouteTap>,
}

impl ExpertSide {
    /// Tells who touches the pages of slots whether cores are needed.
    fn set_phase(&self, phase: Phase) {
        if let Some(population) = self.streamer.slots().population() {
            population.set_phase(phase);
        }
    }

    /// Whether the slots have their first pages.
    fn is_settled(&self) -> bool {
        self.streamer.slots().population().is_none_or(|population| !population.is_working())
    }

    /// A pass over the layers begins, of so many tokens.
    fn begin_pass(&mut self, tokens: usize) {
        self.streamer.begin_pass(&self.io, tokens);
        self.prefetcher.begin_pass(self.streamer.slots().layout(), tokens);
        if let Some(tap) = &mut self.tap {
            tap.begin_pass(tokens);
        }
    }

    /// The ids of a layer are known: start its reads.
    fn begin_layer(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        layer: usize,
        ops: &LayerOps,
    ) -> Result<(), ExecError> {
        let layout = &self.streamer.slots().layout().layers[layer];
        if let Some(tap) = &mut self.tap {
            tap.layer(run, op, layout.layer, layout.experts)?;
        }
        let begun = Instant::now();
        let ids = MoeIds::read(run, op)?;
        self.streamer.note_wait(begun.elapsed());
        self.prefetcher.record_used(layer, &ids);
        self.streamer.begin(&mut self.io, layer, op.ids, &ids, ops)?;
        match self.prefetcher.after_router(layer).filter(|_| run.is_host()) {
            Some(view) => self.look_ahead(run, view),
            None => Ok(()),
        }
    }

    /// Whether a device computes, and there is something left to upload or to read.
    fn may_guess_on_device(&self) -> bool {
        self.streamer.device().is_some_and(|device| !device.holds_all(self.streamer.slots()))
    }

    /// A device is about to compute up to where the ids of `layer` are known: asks what the one behind it
    /// will use.
    fn ask_device(&mut self, run: &mut GraphRun<'_>, layer: usize) -> Result<(), ExecError> {
        if self.may_guess_on_device() { self.prefetcher.ask_device(run, layer) } else { Ok(()) }
    }

    /// As [`Self::ask_device`], where the nodes that come next end at a layer and are not `done`.
    fn ask_before(
        &mut self,
        run: &mut GraphRun<'_>,
        segments: &[Segment],
        done: usize,
    ) -> Result<(), ExecError> {
        match segments {
            [Segment::Plain(nodes), Segment::Layer { layer, .. }, ..] if nodes.end > done => {
                self.ask_device(run, *layer)
            }
            _ => Ok(()),
        }
    }

    /// `layer` has been launched: what the next one will probably use is uploaded or read meanwhile.
    fn look_ahead_on_device(&mut self, run: &mut GraphRun<'_>, layer: usize) -> Result<(), ExecError> {
        if !self.may_guess_on_device() {
            return Ok(());
        }
        let layout = self.streamer.slots().layout();
        let mut choices = self.prefetcher.device_choices(run, layout, layer);
        if let Some(tap) = &self.tap {
            self.prefetcher.predict_from_trace(&mut choices, layout, |layer| tap.upcoming(layer));
        }
        let guesses = self.prefetcher.choose(choices);
        self.streamer.expect_on_device(&mut self.io, guesses)
    }

    /// Guesses what the next layers will use, and reads it while the disk has time.
    fn look_ahead(&mut self, run: &mut GraphRun<'_>, view: View) -> Result<(), ExecError> {
        if self.streamer.slots().holds_all() {
            return Ok(());
        }
        let layout = self.streamer.slots().layout();
        let mut choices = self.prefetcher.predict(run, layout, view)?;
        if let Some(tap) = &self.tap {
            self.prefetcher.predict_from_trace(&mut choices, layout, |layer| tap.upcoming(layer));
        }
        let guesses = self.prefetcher.choose(choices);
        self.streamer.expect(&mut self.io, guesses);
        Ok(())
    }

    /// Adds what was done to counters.
    fn count_into(&self, stats: &mut StreamStats) {
        let counts = self.streamer.slots().counts();
        (stats.decode, stats.prefill) = (counts.decode, counts.prefill);
        stats.shared_bytes = counts.shared_bytes;
        stats.prefetch_switched_off = self.prefetcher.times_switched_off();
        stats.bytes_read += self.io.device_bytes();
        stats.disk_busy += self.io.disk_busy();
        stats.read_stall += self.io.stall();
        if let Some(population) = self.streamer.slots().population() {
            stats.touch_overlap += population.overlap();
        }
        if let Some(device) = self.streamer.uploads() {
            (stats.prefetches, stats.prefetches_wasted) = device.prefetches();
        }
        if let Some(counts) = self.streamer.device_counts() {
            let DeviceCounts { hits, prefetched, uploaded_bytes, demoted_bytes, waits, wait, upload, launch } =
                counts;
            stats.demoted_bytes = demoted_bytes;
            (stats.device_hits, stats.device_prefetched) = (hits, prefetched);
            stats.uploaded_bytes = uploaded_bytes;
            (stats.device_waits, stats.device_wait) = (waits, wait);
            (stats.device_upload, stats.device_launch) = (upload, launch);
        }
        for pool in self.streamer.slots().pools() {
            let counters = pool.cache.counters();
            stats.evictions += counters.evictions;
            stats.prefetches += counters.prefetches;
            stats.prefetches_wasted += counters.prefetches_wasted;
        }
    }
}

/// What streams on one device.
#[derive(Default)]
pub(crate) struct Streams {
    pub experts: Option<ExpertSide>,
    pub dense: Option<DenseStreamer>,
    pub tables: Option<TableStreamer>,
}

/// Runs the graphs of one context. The readers wait for their reads when it is dropped.
pub(crate) struct StreamExecutor {
    experts: Option<ExpertSide>,
    dense: Option<DenseStreamer>,
    tables: Option<TableStreamer>,
    places: HashMap<WeightId, Place>,
    step: Option<OpenStep>,
    stats: StreamStats,
    /// Where counters are published; `None` when they are not.
    shared: Option<StatsPart>,
}

impl StreamExecutor {
    /// What streams on one device; `shared` is where counters are published.
    pub fn new(streams: Streams, shared: Option<StatsPart>) -> Self {
        let Streams { experts, dense, tables } = streams;
        let stats = StreamStats::default();
        Self { experts, dense, tables, places: HashMap::new(), step: None, stats, shared }
    }

    /// Finds out what each streamed weight of the graph is; by name the first time, by identity afterwards.
    fn resolve(&mut self, run: &GraphRun<'_>, ops: &[StreamedOp]) -> Result<Vec<PlacedOp>, ExecError> {
        let mut place = |op: &StreamedOp| -> Result<Place, ExecError> {
            match self.places.get(&op.weight) {
                Some(place) => Ok(*place),
                None => {
                    let place = self.look_up(run, *op).map_err(ExecError::engine)?;
                    self.places.insert(op.weight, place);
                    Ok(place)
                }
            }
        };
        ops.iter().map(|op| Ok(PlacedOp { node: op.node, ids: op.ids, place: place(op)? })).collect()
    }

    fn look_up(&self, run: &GraphRun<'_>, op: StreamedOp) -> Result<Place, StreamError> {
        let tensor = run.graph().weight_name(op);
        let expert = self
            .experts
            .as_ref()
            .and_then(|side| side.streamer.slots().layout().by_tensor().get(tensor.as_str()).copied())
            .map(|(layer, part)| Place::Expert { layer, part });
        let dense = self
            .dense
            .as_ref()
            .and_then(|dense| dense.weights().iter().position(|weight| weight.tensor == tensor))
            .map(Place::Dense);
        let table = self.tables.as_ref().and_then(|tables| tables.position(&tensor)).map(Place::Rows);
        let place = expert.or(dense).or(table).ok_or_else(|| StreamError::UnknownTensor(tensor.clone()))?;
        match (place, op.kind) {
            (Place::Expert { .. }, StreamedKind::Experts)
            | (Place::Dense(_), StreamedKind::Dense)
            | (Place::Rows(_), StreamedKind::Rows) => Ok(place),
            _ => Err(StreamError::Unsupported { tensor, op: run.graph().op_name(op.node) }),
        }
    }

    fn walk(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let ops = run.graph().streamed();
        let placed = self.resolve(run, &ops)?;
        if let Some(tables) = &mut self.tables {
            let nodes = ops.iter().zip(&placed).filter_map(|(op, placed)| Some((*op, placed.table()?)));
            tables.begin_graph(run, nodes)?;
        }
        if let Some(dense) = &mut self.dense {
            let weights: Vec<usize> = placed.iter().filter_map(PlacedOp::dense_weight).collect();
            dense.begin_graph(run, &weights);
            if !run.is_host() && self.experts.is_none() && weights.len() == ops.len() {
                let products: Vec<_> = ops.into_iter().zip(weights).collect();
                return dense.run_graph(run, &products);
            }
        }
        let entries = self.begin_experts(run, &ops, &placed)?;
        let parts = |layer: usize| {
            self.experts.as_ref().map_or(0, |side| side.streamer.slots().layout().layers[layer].parts.len())
        };
        // Nodes before this one have been computed: a chain takes several segments at once.
        let mut done = 0;
        let segments = segments(&placed, entries, parts, run.graph().len());
        for (index, segment) in segments.iter().enumerate() {
            let rest = &segments[index..];
            done = match self.run_on_device(run, &ops, &placed, rest)? {
                Some(end) => end,
                None => {
                    if let Some(side) = self.experts.as_mut().filter(|_| !run.is_host()) {
                        side.ask_before(run, rest, done)?;
                    }
                    self.run_segment(run, &ops, segment, done)?
                }
            };
        }
        Ok(())
    }

    /// A layer that a device computes in one call, together with what comes before the host must know the
    /// next ids; returns the node up to which all is done, `None` where that is not how it is computed.
    fn run_on_device(
        &mut self,
        run: &mut GraphRun<'_>,
        ops: &[StreamedOp],
        placed: &[PlacedOp],
        segments: &[Segment],
    ) -> Result<Option<usize>, ExecError> {
        let (Some((Segment::Layer { op, layer, ops: layer_ops }, behind)), Some(side)) =
            (segments.split_first(), &mut self.experts)
        else {
            return Ok(None);
        };
        if run.is_host() {
            return Ok(None);
        }
        side.begin_layer(run, ops[*op], *layer, layer_ops)?;
        let last = run.graph().len();
        let nodes = ops[*op].node..end_of_layer(behind, ops).unwrap_or(last);
        let inside = ops.iter().zip(placed).skip(*op).take_while(|(op, _)| op.node < nodes.end);
        let parts: Option<Vec<PartOp>> = inside.map(|(op, placed)| part_of(*op, placed, *layer)).collect();
        let Some(parts) = parts.filter(|parts| parts.len() == layer_ops.count) else {
            return Ok(Some(nodes.start));
        };
        if let Some(next) = next_layer(behind) {
            side.ask_device(run, next)?;
        }
        if side.streamer.run_on_device(&mut side.io, run, &parts, nodes.clone())? {
            side.look_ahead_on_device(run, *layer)?;
            return Ok(Some(nodes.end));
        }
        MatMul::ask_nothing(run);
        Ok(Some(nodes.start))
    }

    /// Computes a segment, as far as that has not been done; returns the node up to which all is done.
    fn run_segment(
        &mut self,
        run: &mut GraphRun<'_>,
        ops: &[StreamedOp],
        segment: &Segment,
        done: usize,
    ) -> Result<usize, ExecError> {
        if let (Segment::Rows { op, table }, Some(tables)) = (segment, &mut self.tables) {
            tables.run_op(run, ops[*op], *table)?;
            return Ok(ops[*op].node + 1);
        }
        match (segment, &mut self.experts, &mut self.dense) {
            (Segment::Plain(nodes), ..) => {
                let nodes = nodes.start.max(done)..nodes.end.max(done);
                let end = nodes.end;
                self.run_plain(run, nodes)?;
                Ok(end)
            }
            (Segment::LookAhead { node, view }, Some(side), _) if *node >= done => {
                side.look_ahead(run, *view)?;
                Ok(done)
            }
            (Segment::Layer { op, layer, ops: layer_ops }, Some(side), _) => {
                side.begin_layer(run, ops[*op], *layer, layer_ops)?;
                let of_layer = ops.get(*op..*op + layer_ops.count).unwrap_or_default();
                match side.streamer.chain_of(run, of_layer, layer_ops) {
                    Some(chain) => {
                        side.streamer.run_chain(&mut side.io, run, &chain, &layer_ops.parts)?;
                        Ok(chain.end())
                    }
                    None => Ok(done),
                }
            }
            (Segment::Expert { op, part }, Some(side), _) if ops[*op].node >= done => {
                side.streamer.run_op(&mut side.io, run, ops[*op], *part)?;
                Ok(ops[*op].node + 1)
            }
            (Segment::Dense { op, weight }, _, Some(dense)) if ops[*op].node >= done => {
                dense.run_op(run, ops[*op], *weight)?;
                Ok(ops[*op].node + 1)
            }
            _ => Ok(done),
        }
    }

    /// Nodes without streamed weights; the disk is kept busy meanwhile.
    fn run_plain(&mut self, run: &mut GraphRun<'_>, nodes: Range<usize>) -> Result<(), ExecError> {
        match &mut self.experts {
            Some(side) => run.meanwhile(&mut || side.streamer.poll_reads(&mut side.io), |run| run.run(nodes)),
            None => run.run(nodes),
        }
    }

    /// Begins the experts' part of a graph; returns where to look ahead.
    fn begin_experts(
        &mut self,
        run: &GraphRun<'_>,
        ops: &[StreamedOp],
        placed: &[PlacedOp],
    ) -> Result<Vec<(usize, View)>, ExecError> {
        let (Some(side), Some(step)) = (&mut self.experts, &mut self.step) else { return Ok(Vec::new()) };
        let mut first = true;
        for (op, placed) in ops.iter().zip(placed) {
            let Place::Expert { layer, part } = placed.place else { continue };
            if std::mem::take(&mut first) && step.is_new_pass(layer, part) {
                let tokens = run.graph().moe_tokens(*op)?;
                if let Some(tap) = side.tap.as_mut().filter(|_| step.passes > 0) {
                    tap.end_pass(true);
                }
                step.begin_pass(tokens);
                side.begin_pass(tokens);
            }
            step.note_use(layer, part);
        }
        if first {
            return Ok(Vec::new());
        }
        side.prefetcher.begin_graph(run, side.streamer.slots().layout());
        Ok(side.prefetcher.entries())
    }

    /// Gives back everything that a failed or stopped graph holds.
    fn abandon(&mut self) {
        if let Some(side) = &mut self.experts {
            side.streamer.abandon(&mut side.io);
        }
        if let Some(dense) = &mut self.dense {
            dense.reset();
        }
        if let Some(tables) = &mut self.tables {
            tables.abandon();
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
        if let Some(tables) = &self.tables {
            held.pins += tables.pins();
            held.reads += tables.io().in_flight();
        }
        held
    }

    fn publish(&mut self, elapsed: Duration) {
        let Some(shared) = &self.shared else { return };
        let stalled_before = self.stats.read_stall;
        let mut stats = StreamStats { graphs: self.stats.graphs + 1, ..StreamStats::default() };
        if let Some(side) = &self.experts {
            side.count_into(&mut stats);
        }
        if let Some(dense) = &self.dense {
            dense.count_into(&mut stats);
        }
        if let Some(tables) = &self.tables {
            tables.count_into(&mut stats);
        }
        let stalled = stats.read_stall.saturating_sub(stalled_before);
        stats.compute = self.stats.compute + elapsed.saturating_sub(stalled);
        self.stats = stats;
        shared.set(stats);
    }
}

/// The node where the next thing begins that the host must look at.
fn end_of_layer(behind: &[Segment], ops: &[StreamedOp]) -> Option<usize> {
    behind.iter().find_map(|segment| match segment {
        Segment::Layer { op, .. } | Segment::Dense { op, .. } | Segment::Rows { op, .. } => {
            Some(ops[*op].node)
        }
        Segment::Plain(_) | Segment::LookAhead { .. } | Segment::Expert { .. } => None,
    })
}

/// The layer whose ids are what the host must look at next.
fn next_layer(behind: &[Segment]) -> Option<usize> {
    behind.iter().find_map(|segment| match segment {
        Segment::Layer { layer, .. } => Some(Some(*layer)),
        Segment::Dense { .. } | Segment::Rows { .. } => Some(None),
        Segment::Plain(_) | Segment::LookAhead { .. } | Segment::Expert { .. } => None,
    })?
}

/// A node of this layer's experts; `None` for any other.
fn part_of(op: StreamedOp, placed: &PlacedOp, layer: usize) -> Option<PartOp> {
    match placed.place {
        Place::Expert { layer: of, part } if of == layer => Some((op, part)),
        Place::Expert { .. } | Place::Dense(_) | Place::Rows(_) => None,
    }
}

impl StreamExecutor {
    /// A decode begins.
    pub fn begin_step(&mut self) {
        if self.step.replace(OpenStep::default()).is_some() {
            // The last one never ended.
            self.abandon();
        }
        if let Some(dense) = &mut self.dense {
            dense.begin_step();
        }
    }

    /// Computes a graph; one that belongs to no decode is a step of its own.
    pub fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let alone = self.step.is_none();
        if alone {
            self.begin_step();
        }
        let start = Instant::now();
        if let Some(step) = &mut self.step {
            step.start.get_or_insert(start);
        }
        self.experts.iter().for_each(|side| side.set_phase(Phase::Computing));
        let outcome = self.walk(run);
        self.experts.iter().for_each(|side| side.set_phase(Phase::Idle));
        if outcome.is_err() {
            // What is given back may be read into at once.
            run.synchronize();
            self.abandon();
        }
        if let Some(step) = &mut self.step {
            step.failed |= outcome.is_err();
            step.busy += start.elapsed();
            step.end = Some(Instant::now());
        }
        if alone {
            self.end_step(outcome.is_ok());
        }
        outcome
    }

    /// The decode has ended, and nothing of it is being computed any more.
    pub fn end_step(&mut self, ok: bool) {
        let Some(step) = self.step.take() else { return };
        // Somebody else failed, or a panic left no chance to clean up.
        if !ok && !step.failed && step.start.is_some() {
            self.abandon();
        }
        if let Some(side) = &mut self.experts {
            side.streamer.settle();
            side.streamer.settle_guesses();
            if let Some(tap) = side.tap.as_mut().filter(|_| step.passes > 0) {
                tap.end_pass(ok);
            }
            // While the slots get their first pages, times say little about guessing.
            if let Some((tokens, time)) = step.decode_time().filter(|_| ok && side.is_settled()) {
                side.prefetcher.observe(tokens, time);
            }
        }
        if let Some(dense) = &mut self.dense {
            dense.end_step(ok);
        }
        debug_assert_eq!(self.held().pins, 0, "a pin leaked");
        if let Some(shared) = &self.shared {
            shared.set_held(self.held());
        }
        if step.start.is_some() {
            self.publish(step.busy);
        }
    }

    /// Slots of each size class that there are now.
    pub fn slots(&self) -> Vec<u32> {
        self.experts.as_ref().map(|side| side.streamer.slots().slot_counts()).unwrap_or_default()
    }

    /// Which experts are in memory; `None` where none stream.
    pub fn expert_map(&self) -> Option<ExpertMap> {
        self.experts.as_ref().map(|side| side.streamer.expert_map())
    }

    /// Bytes of memory that it could do without.
    pub fn spare_bytes(&self) -> u64 {
        self.experts.as_ref().map_or(0, |side| side.streamer.slots().spare_bytes())
    }

    /// Gives up at least so many bytes of memory, as far as it can do without them; returns how many.
    pub fn give_back(&mut self, bytes: u64) -> u64 {
        let freed = self.experts.as_mut().map_or(0, |side| side.streamer.give_back(&mut side.io, bytes));
        if let Some(shared) = &self.shared {
            shared.set_held(self.held());
        }
        freed
    }
}
