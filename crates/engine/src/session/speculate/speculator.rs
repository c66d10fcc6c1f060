//! Before a step: which drafts join it. After it: what they were worth.
//!
//! Drafts join only steps in which nobody's prompt is computed: what rows cost beside a prompt is another
//! matter, and prompts should not be held up.

use hypura_core::speculate::{Draft, Joined, Policy, PolicySettings, StepSample, Verdict, Widening};
use hypura_ggml::Vocab;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::forced::Forced;
use super::lookup::Lookup;
use super::model::DraftModel;
use super::proposer::{Ask, Proposer};
use crate::load::{Drafting, LoadedModel, Speculation};
use crate::session::active::{Active, Part, Running};
use crate::session::kv::KvRows;
use crate::stream::StreamStats;

/// Proposes drafts for the sequences that run, and learns what they are worth.
pub(in crate::session) struct Speculator {
    settings: Speculation,
    vocab: Vocab,
    lookup: Lookup,
    model: Option<DraftModel>,
    forced: Option<Forced>,
    policy: Policy,
    /// What each request was offered for the step.
    offered: HashMap<u64, Vec<Draft>>,
    step: StepInProgress,
}

/// A step while it is computed.
#[derive(Default)]
struct StepInProgress {
    begun: Option<(Instant, StreamStats)>,
    sequences: usize,
    rows: usize,
    drafts: usize,
    accepted: usize,
    drafting: Duration,
}

impl Speculator {
    /// For a model that can take drafts back; `None` for any other, and where nobody wants any.
    pub fn new(loaded: &mut LoadedModel) -> Option<Self> {
        let draft = loaded.draft.take();
        let settings = loaded.planned.settings.tuning.speculation.clone();
        if settings.drafting == Drafting::Off || loaded.model.is_recurrent() {
            return None;
        }
        let vocab = loaded.model.vocab();
        let policy = PolicySettings {
            most: settings.most as usize,
            fixed: settings.fixed.map(|fixed| fixed as usize),
            widening: Widening::of(&loaded.planned.source.shape, &loaded.planned.plan),
        };
        let model = draft.filter(|_| settings.uses_model()).map(|draft| DraftModel::new(*draft, vocab.len()));
        Some(Self {
            lookup: Lookup::default(),
            model,
            forced: settings.forced.clone().map(Forced::new),
            policy: Policy::new(policy),
            offered: HashMap::new(),
            step: StepInProgress::default(),
            settings,
            vocab,
        })
    }

    /// A request begins.
    pub fn begin(&mut self, active: &Active) {
        let prediction = active.sequence.options().prediction.as_deref().unwrap_or_default();
        if self.settings.looks_up() || !prediction.is_empty() {
            let reference = if prediction.is_empty() {
                Vec::new()
            } else {
                self.vocab.tokenize(prediction, false, false)
            };
            self.lookup.begin(active.id, &reference);
        }
    }

    /// A request is over.
    pub fn forget(&mut self, id: u64) {
        self.lookup.forget(id);
        self.offered.remove(&id);
    }

    /// Gives the sequences drafts for the next step, which has room for so many rows.
    pub fn propose(&mut self, running: &mut Running, kv: &KvRows, room: usize) {
        self.offered.clear();
        self.step = StepInProgress::default();
        let wanted: Vec<(usize, bool)> = running.all().iter().map(|active| active.decodes(kv)).collect();
        if wanted.iter().any(|(tokens, _)| *tokens > 1) {
            return;
        }
        let sequences = wanted.iter().filter(|(_, decodes)| *decodes).count();
        let mut rows = sequences;
        for (at, _) in wanted.iter().enumerate().filter(|(_, (_, decodes))| *decodes) {
            let active = running.get_mut(at);
            if self.model.is_none() && self.forced.is_none() && !self.lookup.knows(active.id) {
                continue;
            }
            let begun = Instant::now();
            let drafts = self.drafts(active, Joined { sequences, rows }, room.saturating_sub(rows));
            let drafting = begun.elapsed();
            self.step.drafting += drafting;
            active.sequence.note_drafting(drafting);
            if drafts.is_empty() {
                continue;
            }
            active.sequence.propose(drafts.iter().map(|draft| draft.token).collect());
            rows += drafts.len();
            self.offered.insert(active.id, drafts);
        }
    }

    /// The drafts of a sequence that are worth their price.
    fn drafts(&mut self, active: &Active, joined: Joined, room: usize) -> Vec<Draft> {
        let sequence = &active.sequence;
        let most = sequence.options().draft_most.map_or(usize::MAX, |most| most as usize);
        let ask = Ask {
            id: active.id,
            row: active.row,
            tokens: sequence.tokens(),
            generated: sequence.tokens().len().saturating_sub(sequence.prompt_len()),
            most: most.min(room).min(self.policy.most()).min(sequence.most_drafts()),
        };
        if ask.most == 0 {
            return Vec::new();
        }
        if self.forced.is_some() {
            return self.forced_drafts(active, &ask, joined);
        }
        // Copying costs nothing, so the draft model is asked only where nothing worth trying can be copied.
        let mut drafts = self.lookup.propose(&ask, &mut |_| true).unwrap_or_default();
        drafts.truncate(self.policy.depth(joined, &drafts));
        if drafts.is_empty() { self.drafts_of_model(&ask, joined) } else { drafts }
    }

    fn drafts_of_model(&mut self, ask: &Ask<'_>, joined: Joined) -> Vec<Draft> {
        let (Some(model), policy) = (&mut self.model, &self.policy) else { return Vec::new() };
        let behind = model.behind(ask.row, ask.tokens);
        if !policy.wants_drafting(joined, behind) {
            return Vec::new();
        }
        let begun = Instant::now();
        let Ok(mut drafts) = model.propose(ask, &mut |drafts| policy.goes_on(joined, drafts)) else {
            self.model = None;
            return Vec::new();
        };
        self.note_drafting(behind, drafts.len(), begun);
        drafts.truncate(self.policy.depth(joined, &drafts));
        drafts
    }

    fn forced_drafts(&mut self, active: &Active, ask: &Ask<'_>, joined: Joined) -> Vec<Draft> {
        let (Some(forced), policy) = (&mut self.forced, &self.policy) else { return Vec::new() };
        let behind = self.model.as_ref().map_or(1, |model| model.behind(ask.row, ask.tokens));
        if self.model.is_some() && !policy.wants_drafting(joined, behind) {
            return Vec::new();
        }
        let begun = Instant::now();
        let mut goes_on = |drafts: &[Draft]| policy.goes_on(joined, drafts);
        let made = forced.propose(ask, active.sequence.forced_next(), self.model.as_mut(), &mut goes_on);
        let mut drafts = made.unwrap_or_default();
        if self.model.is_some() {
            self.note_drafting(behind, drafts.len(), begun);
        }
        drafts.truncate(self.policy.depth(joined, &drafts));
        drafts
    }

    fn note_drafting(&mut self, behind: usize, drafts: usize, begun: Instant) {
        /// Tokens that a draft model is behind after each step: what did not come from it.
        const USUAL: usize = 2;
        if behind <= USUAL {
            self.policy.observe_drafting(drafts, begun.elapsed().as_secs_f64());
        }
    }

    /// A step begins.
    pub fn begin_step(&mut self, parts: &[Part], stats: StreamStats) {
        let decodes = parts.iter().all(|part| part.tokens == 1 && !part.rows.is_empty() && !part.is_media);
        self.step.begun = decodes.then(|| (Instant::now(), stats));
        self.step.sequences = parts.len();
        self.step.rows = parts.iter().map(|part| part.tokens + part.drafts).sum();
        self.step.drafts = parts.iter().map(|part| part.drafts).sum();
    }

    /// What became of the drafts of a request.
    pub fn verified(&mut self, id: u64, tried: usize, verdict: Verdict) {
        self.step.accepted += verdict.accepted;
        if let Some(drafts) = self.offered.get(&id)
            && let Some(drafts) = drafts.get(..tried)
        {
            self.policy.observe_drafts(drafts, verdict);
        }
    }

    /// The step is over.
    pub fn end_step(&mut self, stats: &StreamStats) {
        let step = std::mem::take(&mut self.step);
        let Some((begun, before)) = step.begun else { return };
        let read = stats.since(&before);
        let sample = StepSample {
            rows: step.rows,
            wall_s: begun.elapsed().as_secs_f64(),
            compute_s: read.compute.as_secs_f64(),
            disk_s: read.disk_busy.as_secs_f64(),
        };
        let drafting_s = step.drafting.as_secs_f64();
        self.policy.observe_step(sample, step.sequences, step.drafts, step.accepted, drafting_s);
    }
}
