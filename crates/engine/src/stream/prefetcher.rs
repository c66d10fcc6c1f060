//! Looking ahead: which experts the next layers will probably want, asked of their own routers.
//!
//! The hidden state changes little from layer to layer, so a later router applied to the state of today names
//! most of its experts. Routers are asked where a layer begins: all that its own router will see beyond that
//! is its attention. Only decode steps look ahead, only for experts that are absent, and only into idle disk
//! time; whether at all is decided by token times ([`Controllers`]), and how much by how accurate predictions
//! were ([`PredictionStats`]).

use hypura_core::cache::DECODE_TOKENS;
use hypura_core::plan::{ExpertLayout, LayerLayout};
use hypura_core::prefetch::{Controllers, HORIZON, PredictionStats, PrefetchDepth, top_experts};
use hypura_core::random::SplitMix64;
use hypura_ggml::{ExecError, GraphRun, MatMul, MoeIds, WeightId};
use std::collections::HashMap;
use std::time::Duration;

use super::selection::Selection;

/// How to guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// With forced routes, how many in a hundred choices of a router are right, by distance and by quarter of its
/// ranks: what the routers of the demo model, which was trained on text, reach on text (docs/experiments.md,
/// "Asked where a layer begins").
const ROUTER_ACCURACY_PERCENT: [[u32; 4]; HORIZON] =
    [[98, 88, 72, 52], [78, 61, 52, 40], [64, 49, 40, 33], [54, 44, 38, 30]];

/// An expert that will probably be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    /// Index of the expert layer.
    pub layer: usize,
    pub expert: u32,
}

/// What a router chooses for the hidden state of an earlier layer.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    /// Index of the expert layer.
    layer: usize,
    /// How many layers ahead it is; 1 is the nearest.
    distance: usize,
    /// Likeliest first.
    ranked: Vec<u32>,
    /// Those of one token: their ranks tell how likely they are.
    single: bool,
}

/// A matrix of an expert layer: its router, or any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LayerNode {
    layer: usize,
    router: bool,
}

/// Nodes of an expert layer.
#[derive(Clone, Copy, Debug, Default)]
struct Nodes {
    router: Option<MatMul>,
    /// Its first product, where the input of that is the normalised hidden state.
    entry: Option<MatMul>,
    /// Whether its first product was looked for.
    entered: bool,
}

/// From where layers are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The product whose input is the hidden state to go by; `None`: guesses at random.
    from: Option<MatMul>,
    /// The nearest layer to guess.
    pub first: usize,
}

impl View {
    /// Guesses at random from a layer on.
    pub fn at_random(first: usize) -> Self {
        Self { from: None, first }
    }
}

pub(crate) struct Prefetcher {
    kind: Prefetch,
    selections: Vec<Selection>,
    controllers: Controllers,
    /// What a matrix is to us, as far as asked.
    known: HashMap<WeightId, Option<LayerNode>>,
    /// The nodes of the graph in progress that matter, by expert layer.
    of_layer: Vec<Nodes>,
    predictions: PredictionStats,
    /// Choices for layers that have not come yet, by expert layer.
    pending: Vec<Vec<Choices>>,
    random: SplitMix64,
    depth: PrefetchDepth,
}

impl Prefetcher {
    /// `selections`: of each expert layer.
    pub fn new(kind: Prefetch, selections: Vec<Selection>) -> Self {
        let random = SplitMix64::new(if let Prefetch::Random(seed) = kind { seed } else { 0 });
        Self {
            kind,
            selections,
            controllers: Controllers::default(),
            known: HashMap::new(),
            of_layer: Vec::new(),
            predictions: PredictionStats::default(),
            pending: Vec::new(),
            random,
            depth: PrefetchDepth::Off,
        }
    }

    /// A pass over the layers begins, of so many tokens.
    pub fn begin_pass(&mut self, layout: &ExpertLayout, tokens: usize) {
        self.depth = match self.kind {
            _ if tokens > DECODE_TOKENS as usize => PrefetchDepth::Off,
            Prefetch::Auto => self.controllers.depth(tokens),
            Prefetch::Router | Prefetch::Random(_) => PrefetchDepth::Likely,
            Prefetch::Off => PrefetchDepth::Off,
        };
        self.pending.iter_mut().for_each(Vec::clear);
        self.pending.resize(layout.layers.len(), Vec::new());
    }

    /// A graph of the pass begins: finds the nodes that say something about its layers.
    pub fn begin_graph(&mut self, run: &GraphRun<'_>, layout: &ExpertLayout) {
        self.of_layer.clear();
        if self.depth == PrefetchDepth::Off || matches!(self.kind, Prefetch::Random(_)) {
            return;
        }
        self.of_layer.resize(layout.layers.len(), Nodes::default());
        for matmul in run.graph().matmuls() {
            let known = self.known.entry(matmul.weight);
            let Some(LayerNode { layer, router }) =
                *known.or_insert_with(|| layer_node(&run.graph().matrix_name(matmul), layout))
            else {
                continue;
            };
            let nodes = &mut self.of_layer[layer];
            if router {
                nodes.router = Some(matmul);
            }
            // A device is asked about the inputs of routers alone.
            if !nodes.entered && run.is_host() {
                nodes.entered = true;
                nodes.entry = matmul.is_normalised(run.graph()).then_some(matmul);
            }
        }
    }

    /// The entries of expert layers, in the order of the graph: nodes before which guesses know most, because
    /// all layers before have been computed.
    pub fn entries(&self) -> Vec<(usize, View)> {
        if self.depth == PrefetchDepth::Off {
            return Vec::new();
        }
        let entry = |(first, nodes): (usize, &Nodes)| {
            nodes.entry.map(|from| (from.node, View { from: Some(from), first }))
        };
        self.of_layer.iter().enumerate().filter_map(entry).collect()
    }

    /// What [`Prefetcher::predict`] asks when the ids of `layer` are known: the router of that layer, for
    /// layers whose entry it cannot use.
    pub fn after_router(&self, layer: usize) -> Option<View> {
        if matches!(self.kind, Prefetch::Random(_)) && self.depth != PrefetchDepth::Off {
            return Some(View::at_random(layer + 1));
        }
        let unknown = self.of_layer.get(layer + 1).is_some_and(|next| next.entry.is_none());
        let router = self.of_layer.get(layer)?.router.filter(|_| unknown)?;
        (self.depth != PrefetchDepth::Off).then_some(View { from: Some(router), first: layer + 1 })
    }

    /// A device is about to compute up to where the ids of `layer` are known: has it ask the router of the
    /// next layer as well.
    ///
    /// # Errors
    /// [`ExecError::Engine`] when the device has no memory for it.
    pub fn ask_device(&self, run: &mut GraphRun<'_>, layer: usize) -> Result<(), ExecError> {
        let router = |layer: usize| self.of_layer.get(layer)?.router;
        if let (Some(now), Some(next)) = (router(layer), router(layer + 1)) {
            now.ask_behind(run, next)?;
        }
        Ok(())
    }

    /// What a device said when it was asked at `layer`; empty where it was not.
    pub fn device_choices(
        &mut self,
        run: &mut GraphRun<'_>,
        layout: &ExpertLayout,
        layer: usize,
    ) -> Vec<Choices> {
        let next = layer + 1;
        if self.depth == PrefetchDepth::Off || next >= layout.layers.len() {
            return Vec::new();
        }
        if matches!(self.kind, Prefetch::Random(_)) {
            return vec![self.random_choices(layout, next, 1)];
        }
        let router = self.of_layer.get(next).and_then(|nodes| nodes.router);
        let scores = router.and_then(|router| router.take_answer(run));
        scores.map(|scores| self.rank(layout, next, 1, scores)).into_iter().collect()
    }

    /// What the routers of the next layers choose for the hidden state of today, nearest layer first.
    pub fn predict(
        &mut self,
        run: &mut GraphRun<'_>,
        layout: &ExpertLayout,
        view: View,
    ) -> Result<Vec<Choices>, ExecError> {
        let View { from, first } = view;
        let later = first..layout.layers.len().min(first + self.depth.layers() as usize);
        let Some(from) = from else {
            return Ok(later.map(|layer| self.random_choices(layout, layer, layer - first + 1)).collect());
        };
        let known: Vec<(usize, MatMul)> =
            later.filter_map(|layer| self.of_layer[layer].router.map(|router| (layer, router))).collect();
        if known.is_empty() {
            // An architecture with another kind of router: nothing to go by.
            return Ok(Vec::new());
        }
        let routers: Vec<MatMul> = known.iter().map(|(_, router)| *router).collect();
        let scores = from.lookahead(run, &routers)?;
        let mut choices = Vec::with_capacity(known.len());
        for ((ahead, _), scores) in known.into_iter().zip(scores) {
            choices.push(self.rank(layout, ahead, ahead - first + 1, scores));
        }
        Ok(choices)
    }

    /// What a router chooses by its scores.
    fn rank(&self, layout: &ExpertLayout, layer: usize, distance: usize, mut scores: Vec<f32>) -> Choices {
        if let Some(selection) = self.selections.get(layer) {
            selection.apply(&mut scores);
        }
        let LayerLayout { experts, used, .. } = layout.layers[layer];
        let (experts, used) = (experts as usize, used as usize);
        let tokens = scores.len() / experts.max(1);
        // Of several tokens, as many of each as are read: their ranks tell nothing.
        let count = if tokens > 1 { self.predictions.worth(distance, used, self.depth) } else { used };
        Choices { layer, distance, ranked: top_experts(&scores, experts, count), single: tokens == 1 }
    }

    /// With forced routes the model's own routers know nothing: their choices are replaced by what the trace
    /// says, as often right as routers are.
    pub fn predict_from_trace(
        &mut self,
        choices: &mut [Choices],
        layout: &ExpertLayout,
        upcoming: impl Fn(u32) -> Option<Vec<u32>>,
    ) {
        if matches!(self.kind, Prefetch::Random(_)) {
            return;
        }
        for Choices { layer, distance, ranked, .. } in choices {
            let LayerLayout { layer: number, experts, .. } = layout.layers[*layer];
            let Some(truth) = upcoming(number) else { return };
            let (of_distance, count) =
                (ROUTER_ACCURACY_PERCENT[(*distance - 1).min(HORIZON - 1)], ranked.len());
            for (rank, expert) in ranked.iter_mut().enumerate() {
                let right = self.draw(100) < of_distance[rank * of_distance.len() / count];
                let truth = truth.get(rank).filter(|_| right).copied();
                *expert = truth.unwrap_or_else(|| self.draw(experts));
            }
        }
    }

    /// Which choices to read: as many of each layer as are right often enough. They are remembered until the
    /// layer comes.
    pub fn choose(&mut self, choices: Vec<Choices>) -> Vec<Guess> {
        let mut guesses = Vec::new();
        for choice in choices {
            let Choices { layer, distance, ranked, single } = &choice;
            let worth = self.predictions.worth(*distance, ranked.len(), self.depth);
            let count = if *single { worth } else { ranked.len() };
            guesses.extend(ranked.iter().take(count).map(|expert| Guess { layer: *layer, expert: *expert }));
            if let Some(pending) = self.pending.get_mut(*layer).filter(|_| *single) {
                pending.push(choice);
            }
        }
        guesses
    }

    /// A layer uses these experts.
    pub fn record_used(&mut self, layer: usize, ids: &MoeIds) {
        let Some(pending) = self.pending.get_mut(layer) else { return };
        for Choices { distance, ranked, .. } in pending.drain(..) {
            let used = |expert: u32| ids.experts.iter().any(|id| u32::try_from(*id) == Ok(expert));
            self.predictions.learn(distance, &ranked, used);
        }
    }

    fn random_choices(&mut self, layout: &ExpertLayout, layer: usize, distance: usize) -> Choices {
        let LayerLayout { experts, used, .. } = layout.layers[layer];
        let ranked = (0..used).map(|_| self.draw(experts)).collect();
        Choices { layer, distance, ranked, single: false }
    }

    fn draw(&mut self, below: u32) -> u32 {
        u32::try_from(self.random.below(below.into())).unwrap_or(0)
    }

    /// How often the controller found that guessing does not pay.
    pub fn times_switched_off(&self) -> u64 {
        self.controllers.times_switched_off()
    }

    /// A decode step of so many tokens took this long.
    pub fn observe(&mut self, tokens: usize, elapsed: Duration) {
        if self.kind == Prefetch::Auto {
            self.controllers.observe(tokens, u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// `blk.N.ffn_gate_inp.weight`, or another matrix, of an expert layer.
fn layer_node(name: &str, layout: &ExpertLayout) -> Option<LayerNode> {
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let number = number.parse::<u32>().ok()?;
    let layer = layout.layers.iter().position(|known| known.layer == number)?;
    Some(LayerNode { layer, router: rest == "ffn_gate_inp.weight" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(layer: usize, distance: usize, single: bool) -> Choices {
        Choices { layer, distance, ranked: vec![3, 1, 4, 5], single }
    }

    fn guessed(prefetcher: &mut Prefetcher, distance: usize, single: bool) -> Vec<u32> {
        let guesses = prefetcher.choose(vec![choices(distance, distance, single)]);
        guesses.into_iter().map(|guess| guess.expert).collect()
    }

    #[test]
    fn of_later_layers_what_came_true_is_read() {
        let mut prefetcher = Prefetcher::new(Prefetch::Router, Vec::new());
        prefetcher.depth = PrefetchDepth::Likely;
        prefetcher.pending.resize(4, Vec::new());
        assert_eq!(guessed(&mut prefetcher, 1, true), [3, 1, 4, 5], "of the nearest layer all");
        assert!(guessed(&mut prefetcher, 2, true).is_empty(), "nobody knows yet");
        for _ in 0..200 {
            let _ = guessed(&mut prefetcher, 2, true);
            prefetcher.record_used(2, &MoeIds { used: 2, tokens: 1, experts: vec![1, 3] });
        }
        assert_eq!(guessed(&mut prefetcher, 2, true), [3, 1]);
        assert_eq!(guessed(&mut prefetcher, 2, false), [3, 1, 4, 5], "of several tokens, what was asked for");
    }

    #[test]
    fn what_was_said_of_several_tokens_teaches_nothing() {
        let mut prefetcher = Prefetcher::new(Prefetch::Router, Vec::new());
        prefetcher.depth = PrefetchDepth::Likely;
        prefetcher.pending.resize(4, Vec::new());
        for _ in 0..200 {
            let _ = guessed(&mut prefetcher, 2, false);
            prefetcher.record_used(2, &MoeIds { used: 4, tokens: 1, experts: vec![1, 3, 4, 5] });
        }
        assert!(guessed(&mut prefetcher, 2, true).is_empty());
    }
}
