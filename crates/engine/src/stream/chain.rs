//! A layer of a decode step, expert by expert: whatever has landed is computed through all nodes of the layer
//! at once, so that the hits of a layer, not only their first matrices, are computed while its misses are in
//! flight, and an expert that lands costs one call of the backend.

use hypura_ggml::{ChainRow, ExecError, ExpertChain, GraphRun, SlotBinding, StreamedOp};

use super::expert_slots::ExpertSlots;
use super::experts::ExpertStreamer;
use super::io::Io;
use super::lookups::DECODE_TOKENS;
use super::slots::SlotBank;
use super::step::{LayerOps, Place, Step};
use super::target::{Target, no_layer, no_slots};

/// How far an expert has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    /// All but its last product is computed.
    Upper,
    Done,
}

impl ExpertStreamer {
    /// The chain of the layer that has just begun, if it can be computed as one: every expert has a slot.
    pub fn chain_of(
        &self,
        run: &GraphRun<'_>,
        ops: &[StreamedOp],
        layer_ops: &LayerOps,
    ) -> Option<ExpertChain> {
        let step = self.step.as_ref()?;
        let whole = step.tokens <= DECODE_TOKENS
            && step.slots.is_some()
            && step.none.is_empty()
            && !step.wanted.is_empty()
            && !self.synchronous
            && self.device.is_none();
        // The parts of the layer come in the order of its nodes, each once.
        let once = layer_ops.count == ops.len() && layer_ops.parts.len() == ops.len();
        if whole && once { ExpertChain::of(run, ops) } else { None }
    }

    /// Computes all streamed nodes of the layer that has just begun, and what lies between them.
    pub fn run_chain(
        &mut self,
        io: &mut Io<Target>,
        run: &mut GraphRun<'_>,
        chain: &ExpertChain,
        parts: &[usize],
    ) -> Result<(), ExecError> {
        let step = self.step.take().ok_or_else(no_layer)?;
        let outcome = self.compute_chain(io, run, chain, parts, &step);
        if outcome.is_ok() {
            self.end_layer(io, &step);
        } else {
            // `abandon` gives back what it holds.
            self.step = Some(step);
        }
        outcome
    }

    fn compute_chain(
        &mut self,
        io: &mut Io<Target>,
        run: &mut GraphRun<'_>,
        chain: &ExpertChain,
        parts: &[usize],
        step: &Step,
    ) -> Result<(), ExecError> {
        chain.begin(run)?;
        let mut landing = self.landing(io);
        let bank = landing.slots.pool(step.layer).bank().ok_or_else(no_slots)?;
        let mut progress = vec![Progress::Waiting; step.wanted.len()];
        while progress.iter().any(|state| *state != Progress::Done) {
            landing.poll();
            let (upper, lower) = landing.slots.advance(step, parts, &mut progress);
            if upper.is_empty() && lower.is_empty() {
                let waiting: Vec<usize> =
                    (0..progress.len()).filter(|want| progress[*want] != Progress::Done).collect();
                landing.slots.check(step, &waiting)?;
                let landed = landing.io.wait()?;
                landing.slots.absorb(landed);
            } else {
                let pools = landing.slots.bindings(&bank, step, parts)?;
                run.meanwhile(&mut || landing.poll(), |run| chain.run(run, &pools, &upper, &lower))?;
            }
        }
        chain.finish(run)
    }
}

impl ExpertSlots {
    /// Takes every expert as far as its parts allow; returns the rows to compute for that.
    fn advance(
        &self,
        step: &Step,
        parts: &[usize],
        progress: &mut [Progress],
    ) -> (Vec<ChainRow>, Vec<ChainRow>) {
        let pool = self.pool(step.layer);
        let (mut upper, mut lower) = (Vec::new(), Vec::new());
        let Some((last, first)) = parts.split_last() else { return (upper, lower) };
        for (want, state) in step.wanted.iter().zip(progress) {
            let Place::Slot(slot) = want.place else { continue };
            let number = i32::try_from(slot.0).unwrap_or(i32::MAX);
            let rows = || want.pairs.iter().map(move |pair| (*pair, number));
            if *state == Progress::Waiting && first.iter().all(|part| pool.ready(slot, *part)) {
                upper.extend(rows());
                *state = Progress::Upper;
            }
            if *state == Progress::Upper && pool.ready(slot, *last) {
                lower.extend(rows());
                *state = Progress::Done;
            }
        }
        (upper, lower)
    }

    fn bindings<'m>(
        &self,
        bank: &'m SlotBank,
        step: &Step,
        parts: &[usize],
    ) -> Result<Vec<SlotBinding<'m>>, ExecError> {
        let layer = &self.layout.layers[step.layer];
        parts.iter().map(|part| bank.binding(&layer.parts[*part])).collect::<Option<_>>().ok_or_else(no_slots)
    }
}
