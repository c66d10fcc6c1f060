//! Looking ahead: which experts the next layers will probably want, asked of their own routers.
//!
//! The hidden state changes little from layer to layer, so a later router applied to the state of today names most of
//! its experts. Only decode steps look ahead, only for experts that are absent, and only into idle disk time; whether at
//! all is decided by token times ([`Controller`]).

use hypura_core::prefetch::{Controller, Width, top_experts};
use hypura_ggml::{ExecError, GraphRun, MatMul, WeightId};
use std::collections::HashMap;
use std::time::Duration;

use super::selection::Selection;
use hypura_core::plan::{ExpertLayout, LayerLayout};

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

/// How many layers ahead at most.
const HORIZON: usize = Width::Deep.layers() as usize;

/// With forced routes, how many in a hundred guesses are right, by distance: what the routers of the demo model, which was
/// trained on text, reach with as many guesses (docs/experiments.md, "How far routers see").
const FORESEEN_PERCENT: [u32; HORIZON] = [68, 62, 54, 38];

/// How many of a layer's experts are guessed `distance` layers ahead (from 1): all `used` of the next one, fewer of those
/// behind it. A router's first choices are known early: with synthetic Qwen3 weights its best two of eight are right 97
/// times in 100 five layers ahead, its last is right half the time in the next one.
fn guesses_at(distance: usize, used: usize) -> usize {
    let share = match distance {
        0 | 1 => used,
        2 => used / 2,
        _ => used / 4,
    };
    share.max(1)
}

/// An expert that will probably be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    /// Index of the expert layer.
    pub layer: usize,
    pub expert: u32,
}

pub(crate) struct Ahead {
    kind: Prefetch,
    selections: Vec<Selection>,
    controller: Controller,
    /// Index of the expert layer whose router a matrix is, as far as asked.
    routers: HashMap<WeightId, Option<usize>>,
    /// The routers of the graph in progress, by expert layer.
    of_layer: Vec<Option<MatMul>>,
    random: u64,
    width: Width,
}

impl Ahead {
    /// `selections`: of each expert layer.
    pub fn new(kind: Prefetch, selections: Vec<Selection>) -> Self {
        let random = if let Prefetch::Random(seed) = kind { seed | 1 } else { 1 };
        Self {
            kind,
            selections,
            controller: Controller::default(),
            routers: HashMap::new(),
            of_layer: Vec::new(),
            random,
            width: Width::Off,
        }
    }

    /// A graph begins.
    pub fn begin_graph(&mut self, run: &GraphRun<'_>, layout: &ExpertLayout, decode: bool) {
        self.width = match self.kind {
            _ if !decode => Width::Off,
            Prefetch::Auto => self.controller.width(),
            Prefetch::Router | Prefetch::Random(_) => Width::Likely,
            Prefetch::Off => Width::Off,
        };
        if self.width == Width::Off || matches!(self.kind, Prefetch::Random(_)) {
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

    /// The experts that the layers after `layer` will probably use: nearest layer first, within a layer likeliest first.
    /// Called when the router of `layer` has run and its input is still there.
    pub fn predict(
        &mut self,
        run: &mut GraphRun<'_>,
        layout: &ExpertLayout,
        layer: usize,
    ) -> Result<Vec<Guess>, ExecError> {
        if self.width == Width::Off {
            return Ok(Vec::new());
        }
        let later = layer + 1..layout.layers.len().min(layer + 1 + self.width.layers() as usize);
        if let Prefetch::Random(_) = self.kind {
            return Ok(later.flat_map(|layer| self.random_guesses(layout, layer)).collect());
        }
        let Some(Some(now)) = self.of_layer.get(layer).copied() else {
            // An architecture with another kind of router: nothing to go by.
            return Ok(Vec::new());
        };
        let known: Vec<(usize, MatMul)> =
            later.filter_map(|layer| self.of_layer[layer].map(|router| (layer, router))).collect();
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let routers: Vec<MatMul> = known.iter().map(|(_, router)| *router).collect();
        let scores = run.lookahead(now, &routers)?;
        let mut guesses = Vec::new();
        for ((ahead, _), mut scores) in known.into_iter().zip(scores) {
            if let Some(selection) = self.selections.get(ahead) {
                selection.apply(&mut scores);
            }
            let LayerLayout { experts, used, .. } = layout.layers[ahead];
            let count = guesses_at(ahead - layer, used as usize);
            let likely = top_experts(&scores, experts as usize, count);
            guesses.extend(likely.into_iter().map(|expert| Guess { layer: ahead, expert }));
        }
        Ok(guesses)
    }

    /// With forced routes the model's own routers know nothing: their guesses are replaced by what the trace says, as often
    /// right as routers are.
    pub fn foresee(
        &mut self,
        guesses: &mut [Guess],
        layout: &ExpertLayout,
        layer: usize,
        upcoming: impl Fn(u32) -> Option<Vec<u32>>,
    ) {
        if matches!(self.kind, Prefetch::Random(_)) {
            return;
        }
        let mut rank = (usize::MAX, 0, Vec::new());
        for guess in guesses {
            let LayerLayout { layer: number, experts, .. } = layout.layers[guess.layer];
            if rank.0 != guess.layer {
                let Some(truth) = upcoming(number) else { return };
                rank = (guess.layer, 0, truth);
            }
            let right = self.draw(100) < FORESEEN_PERCENT[(guess.layer - layer - 1).min(HORIZON - 1)];
            let truth = rank.2.get(rank.1).filter(|_| right).copied();
            guess.expert = truth.unwrap_or_else(|| self.draw(experts));
            rank.1 += 1;
        }
    }

    fn random_guesses(&mut self, layout: &ExpertLayout, layer: usize) -> Vec<Guess> {
        let LayerLayout { experts, used, .. } = layout.layers[layer];
        (0..used).map(|_| Guess { layer, expert: self.draw(experts) }).collect()
    }

    /// xorshift64 (Marsaglia 2003): a test's guesses need no better.
    fn draw(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(self.random % u64::from(below.max(1))).unwrap_or(0)
    }

    /// How often the controller found that guessing does not pay.
    pub fn times_switched_off(&self) -> u64 {
        self.controller.times_switched_off()
    }

    /// A step of a single token took this long.
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
