//! Looking one layer ahead: which experts the next layer will probably want, asked of its own router.
//!
//! The hidden state changes little from layer to layer, so the next router applied to the state of today names most of
//! its experts. Only decode steps look ahead, only for experts that are absent, and only into idle disk time; whether at
//! all is decided by token times ([`Controller`]).

use hypura_core::prefetch::{Controller, top_experts};
use hypura_ggml::{ExecError, GraphRun, MatMul, WeightId};
use std::collections::HashMap;
use std::time::Duration;

use hypura_core::plan::ExpertLayout;

/// How to guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefetch {
    /// By the next layer's router, as long as token times show that it pays.
    #[default]
    Auto,
    /// By the next layer's router, always.
    Router,
    /// At random, always: the worst that can happen, for tests.
    Random(u64),
    /// Not at all.
    Off,
}

pub(crate) struct Ahead {
    kind: Prefetch,
    controller: Controller,
    /// Index of the expert layer whose router a matrix is, as far as asked.
    routers: HashMap<WeightId, Option<usize>>,
    /// The routers of the graph in progress, by expert layer.
    of_layer: Vec<Option<MatMul>>,
    random: u64,
    active: bool,
}

impl Ahead {
    pub fn new(kind: Prefetch) -> Self {
        let random = if let Prefetch::Random(seed) = kind { seed | 1 } else { 1 };
        Self {
            kind,
            controller: Controller::default(),
            routers: HashMap::new(),
            of_layer: Vec::new(),
            random,
            active: false,
        }
    }

    /// A graph begins.
    pub fn begin_graph(&mut self, run: &GraphRun<'_>, layout: &ExpertLayout, decode: bool) {
        self.active = decode
            && match self.kind {
                Prefetch::Auto => self.controller.is_on(),
                Prefetch::Router | Prefetch::Random(_) => true,
                Prefetch::Off => false,
            };
        if !self.active || matches!(self.kind, Prefetch::Random(_)) {
            return;
        }
        self.of_layer.clear();
        self.of_layer.resize(layout.layers.len(), None);
        for matmul in run.matmuls() {
            let layer = *self
                .routers
                .entry(matmul.weight)
                .or_insert_with(|| router_layer(&run.matrix_name(matmul), layout));
            if let Some(layer) = layer {
                self.of_layer[layer] = Some(matmul);
            }
        }
    }

    /// The experts that the layer after `layer` will probably use, likeliest first. Called when the router of `layer` has
    /// run and its input is still there.
    pub fn predict(
        &mut self,
        run: &mut GraphRun<'_>,
        layout: &ExpertLayout,
        layer: usize,
    ) -> Result<Vec<u32>, ExecError> {
        let Some(next) = layout.layers.get(layer + 1).filter(|_| self.active) else { return Ok(Vec::new()) };
        if let Prefetch::Random(_) = self.kind {
            return Ok((0..next.used).map(|_| self.draw(next.experts)).collect());
        }
        match (self.of_layer.get(layer), self.of_layer.get(layer + 1)) {
            (Some(Some(now)), Some(Some(then))) => {
                let scores = run.lookahead(*now, *then)?;
                Ok(top_experts(&scores, next.experts as usize, next.used as usize))
            }
            // An architecture with another kind of router: nothing to go by.
            _ => Ok(Vec::new()),
        }
    }

    /// xorshift64 (Marsaglia 2003): a test's guesses need no better.
    fn draw(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(self.random % u64::from(below.max(1))).unwrap_or(0)
    }

    /// A decode step took this long.
    pub fn observe(&mut self, elapsed: Duration) {
        if self.kind == Prefetch::Auto {
            self.controller.observe(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// `blk.N.ffn_gate_inp.weight` of an expert layer.
fn router_layer(name: &str, layout: &ExpertLayout) -> Option<usize> {
    let layer = name.strip_prefix("blk.")?.strip_suffix(".ffn_gate_inp.weight")?.parse::<u32>().ok()?;
    layout.layers.iter().position(|known| known.layer == layer)
}
