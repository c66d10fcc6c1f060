//! The loop itself: one step computes the next token of every running sequence, and as much of the waiting
//! prompts as fits beside them.
//!
//! A sequence is its tokens; what of them is in memory is the KV cache's business. Whatever is missing is
//! computed, be it a prompt, the last token, or everything again after the memory was lost. Invariant:
//! between steps the KV cache holds exactly what its rows say ([`KvRows`]), also after a failed or stopped
//! step, which counts as never having happened.
//!
//! Media are negative tokens (`crate::media`); what is special about their steps is in `media`.

#[cfg(test)]
use hypura_ggml::Token;
use hypura_ggml::{Batch, Context, DecodeError, Vocab};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::active::{Active, Part, Running};
use super::divide::{Room, Share, Wanted, row_limit, share};
use super::embed::{EmbedWork, Embedder};
use super::kv::{Added, Admitted, KvRows, Recall, index};
use super::media;
use super::sequence::{Advance, LogitRows, Sequence, Setup};
use super::speculate::Speculator;
use crate::error::GenerateError;
use crate::load::LoadedModel;
use crate::request::{Event, Finish};

/// Gets what happens to the requests.
pub(crate) trait Emit {
    /// Something happened to a request; false means that nobody listens any more. Never [`Event::Failed`].
    fn event(&mut self, id: u64, event: Event) -> bool;
    /// A request failed: it is over.
    fn failed(&mut self, id: u64, error: GenerateError);
}

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Step {
    /// As it should, or there was nothing to do.
    Done,
    /// The abort flag was raised; nothing happened.
    Aborted,
    /// Nothing happened, because of this.
    Failed {
        /// Why.
        error: GenerateError,
        /// The requests that took part.
        requests: Vec<u64>,
    },
}

/// Why drafts are refused.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DraftError {
    /// The state of all tokens before is one: drafts that do not come true could not be taken back.
    #[error("drafts cannot be taken back from the recurrent state of {architecture} models")]
    Recurrent {
        /// llama.cpp's name of the architecture.
        architecture: String,
    },
    /// Nobody runs under this number.
    #[error("no such request is running")]
    NoRequest,
    /// A token that the vocabulary does not have.
    #[error("the vocabulary has no token {0}")]
    BadToken(Token),
}

/// The running sequences of a loaded model.
pub(crate) struct Batcher {
    kv: KvRows,
    recall: Recall,
    vocab: Vocab,
    batch: Batch,
    running: Running,
    /// Bytes of dense weights that each step reads.
    dense_bytes: u64,
    /// Bytes of streamed dense weights that rows of a step did not have to read, because another row did.
    saved_dense: u64,
    /// The sequence that gets the first share of a batch; moves on, so that none starves.
    turn: usize,
    /// What proposes drafts, if anything does.
    speculator: Option<Speculator>,
}

impl Batcher {
    /// Takes over a loaded model.
    pub fn new(mut loaded: LoadedModel) -> Self {
        let speculator = Speculator::new(&mut loaded);
        Self {
            speculator,
            vocab: loaded.model.vocab(),
            batch: Batch::new(loaded.context.batch_capacity() as usize),
            running: Running::default(),
            dense_bytes: loaded.planned.plan.streamed_dense_bytes(&loaded.planned.source.shape),
            saved_dense: 0,
            turn: 0,
            recall: Recall::default(),
            kv: KvRows::new(loaded),
        }
    }

    pub fn loaded(&self) -> &LoadedModel {
        self.kv.loaded()
    }

    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// What is in memory.
    pub fn kv(&self) -> &KvRows {
        &self.kv
    }

    /// The same, to make it larger.
    pub fn kv_mut(&mut self) -> &mut KvRows {
        &mut self.kv
    }

    /// From now on idle conversations are kept in this folder.
    ///
    /// # Errors
    /// When the folder or the model's files cannot be read.
    pub fn use_disk(&mut self, dir: &Path, quota: u64) -> io::Result<()> {
        self.recall = Recall::open(&self.loaded().planned, dir, quota)?;
        Ok(())
    }

    /// Writes idle conversations to disk, if anywhere, until `hurry` says that there is something better to
    /// do.
    ///
    /// # Errors
    /// Why the disk refused; it is not asked again.
    pub fn keep_idle(&mut self, hurry: &dyn Fn() -> bool) -> io::Result<()> {
        self.recall.keep_idle(&mut self.kv, hurry)
    }

    /// Most tokens of a step.
    fn room(&self) -> usize {
        self.loaded().context.batch_capacity().max(1) as usize
    }

    /// Bytes that rows of a step did not have to read, because another row of the same step did.
    pub fn saved_bytes(&self) -> u64 {
        self.loaded().stats.get().shared_bytes + self.saved_dense
    }

    /// The context that the longest answer needs to go on, where it has filled what there is and may have
    /// more.
    pub fn wanted_context(&self) -> Option<usize> {
        let now = self.kv.context_tokens();
        let wanted = self.running.all().iter().filter_map(|active| {
            let most = active.sequence.options().num_ctx_most? as usize;
            let tokens = active.sequence.tokens().len();
            (tokens >= now && most > now).then(|| (tokens + 1).min(most))
        });
        wanted.max()
    }

    /// Running sequences.
    pub fn active(&self) -> usize {
        self.running.all().len()
    }

    /// A running request's sequence.
    pub fn find(&self, id: u64) -> Option<&Sequence> {
        self.running.find(id).map(|active| &active.sequence)
    }

    /// Forgets all sequences and everything in memory.
    pub fn clear(&mut self) {
        self.running = Running::default();
        self.kv.clear();
    }

    /// Lets a request join. The caller sees to it that a row is free.
    pub fn admit(&mut self, id: u64, setup: Setup, emit: &mut dyn Emit) {
        let (prompt, context) = (setup.prompt.tokens.len(), self.kv.context_tokens());
        self.kv.forget_media();
        if self.kv.is_lost() {
            emit.failed(id, GenerateError::Unloaded);
            return;
        }
        if prompt >= context {
            // The context was to grow for it, and another model took the memory first.
            emit.failed(id, GenerateError::PromptTooLong { prompt, context });
            return;
        }
        let mut sequence = Sequence::new(setup, self.loaded().stats.get());
        self.recall.bring_back(&mut self.kv, sequence.tokens());
        let Some(Admitted { row, reused }) = self.kv.admit(id, sequence.tokens()) else {
            emit.failed(id, GenerateError::NoSequence);
            return;
        };
        sequence.set_reused(reused);
        let started = Event::Started {
            prompt_tokens: count(sequence.prompt_len()),
            reused_tokens: count(reused),
            queued: Duration::ZERO,
        };
        let active = Active { id, row, sequence, encoded: None };
        if let Some(speculator) = &mut self.speculator {
            speculator.begin(&active);
        }
        self.running.push(active);
        if !emit.event(id, started) {
            self.remove(id);
        }
    }

    /// Proposes what a request's answer goes on with, for its next step. Drafts that come true save steps,
    /// and none changes what is said.
    #[cfg(test)]
    pub fn propose(&mut self, id: u64, drafts: Vec<Token>) -> Result<(), DraftError> {
        if !self.kv.rewinds() {
            let architecture = self.loaded().planned.source.shape.architecture.clone();
            return Err(DraftError::Recurrent { architecture });
        }
        let known = |token: &&Token| usize::try_from(**token).is_ok_and(|token| token < self.vocab.len());
        if let Some(token) = drafts.iter().find(|token| !known(token)) {
            return Err(DraftError::BadToken(*token));
        }
        let active = self.running.find_mut(id).ok_or(DraftError::NoRequest)?;
        active.sequence.propose(drafts);
        Ok(())
    }

    /// One step of every running sequence that has room in the batch.
    pub fn step(&mut self, emit: &mut dyn Emit) -> Step {
        let parts = self.fill();
        self.compute(parts, emit)
    }

    /// What the next step would do, without doing it.
    pub fn fill(&mut self) -> Vec<Part> {
        if let Some(speculator) = &mut self.speculator {
            let room = row_limit(&self.kv.loaded().planned, &self.kv.loaded().slots());
            speculator.propose(&mut self.running, &self.kv, room);
        }
        let all = self.running.ids();
        self.fill_with(&all)
    }

    /// The same for some of the requests.
    pub fn fill_with(&mut self, ids: &[u64]) -> Vec<Part> {
        let (room, turn) = (self.room(), self.turn);
        if let Some(part) = media::next_part(&self.kv, self.running.all(), ids, turn, room) {
            self.turn = turn.wrapping_add(1);
            return vec![part];
        }
        let wanted = |active: &Active| {
            if ids.contains(&active.id) { active.wanted(&self.kv) } else { Wanted::default() }
        };
        let wanted: Vec<Wanted> = self.running.all().iter().map(wanted).collect();
        let outputs = self.loaded().context.output_capacity() as usize;
        let rows = row_limit(&self.loaded().planned, &self.loaded().slots());
        let shares = share(&wanted, Room { tokens: room, outputs, rows }, turn);
        self.batch.clear();
        let mut parts = Vec::new();
        for (at, (active, share)) in self.running.all().iter().zip(shares).enumerate() {
            if share.tokens > 0 {
                let rows = active.fill(&self.kv, &mut self.batch, share);
                let Share { tokens, drafts } = share;
                parts.push(Part { id: active.id, active: at, tokens, drafts, rows, is_media: false });
            }
        }
        self.turn = turn.wrapping_add(1);
        parts
    }

    /// Computes what was filled in.
    pub fn compute(&mut self, mut parts: Vec<Part>, emit: &mut dyn Emit) -> Step {
        if parts.is_empty() {
            return Step::Done;
        }
        let stats = self.loaded().stats.get();
        if let Some(speculator) = &mut self.speculator {
            speculator.begin_step(&parts, stats);
        }
        let computed = self.place_media(&mut parts).and_then(|()| self.decode(&parts).map_err(Into::into));
        if let Err(error) = computed {
            if matches!(error, GenerateError::Decode(DecodeError::Aborted)) {
                return Step::Aborted;
            }
            return Step::Failed { error, requests: parts.iter().map(|part| part.id).collect() };
        }
        self.saved_dense += self.dense_bytes * (parts.len() as u64 - 1);
        self.running.drop_read_media(&self.kv);
        // Sequences end while their logits are used: go by id, not by place.
        for part in parts {
            self.follow(part, emit);
        }
        let stats = self.loaded().stats.get();
        if let Some(speculator) = &mut self.speculator {
            speculator.end_step(&stats);
        }
        Step::Done
    }

    /// Puts the rows of a medium into the batch, if the step is one of a medium.
    fn place_media(&mut self, parts: &mut [Part]) -> Result<(), GenerateError> {
        if let [part] = parts
            && part.is_media
        {
            let room = self.room();
            media::place(&self.kv, self.running.get_mut(part.active), &mut self.batch, part, room)?;
        }
        Ok(())
    }

    fn decode(&mut self, parts: &[Part]) -> Result<(), DecodeError> {
        let added = |part: &Part| {
            let Active { row, sequence, .. } = &self.running.all()[part.active];
            let first = self.kv.rows().row(*row).cached.len();
            let tokens = &sequence.tokens()[first..first + part.tokens];
            [tokens, &sequence.drafts()[..part.drafts]].map(|tokens| Added { row: *row, tokens })
        };
        let added: Vec<Added<'_>> = parts.iter().flat_map(added).collect();
        self.kv.decode(&self.batch, &added)
    }

    /// Ends a request with an error.
    pub fn fail(&mut self, id: u64, error: GenerateError, emit: &mut dyn Emit) {
        if self.remove(id).is_some() {
            emit.failed(id, error);
        }
    }

    /// Ends a request that somebody stopped.
    pub fn end(&mut self, id: u64, emit: &mut dyn Emit) {
        self.finish(id, Finish::Stopped, emit);
    }

    /// Ends all requests.
    pub fn end_all(&mut self, emit: &mut dyn Emit) {
        for id in self.running.ids() {
            self.end(id, emit);
        }
    }

    fn finish(&mut self, id: u64, finish: Finish, emit: &mut dyn Emit) {
        if let Some(sequence) = self.remove(id) {
            let outcome = sequence.finished(finish, &self.loaded().stats.get());
            emit.event(id, Event::Done(Box::new(outcome)));
        }
    }

    /// Takes a request out; its tokens stay in memory for the next one that can use them.
    fn remove(&mut self, id: u64) -> Option<Sequence> {
        let active = self.running.remove(id)?;
        self.kv.release(active.row);
        if let Some(speculator) = &mut self.speculator {
            speculator.forget(id);
        }
        Some(active.sequence)
    }

    /// Uses the logits of a part, or tells of progress.
    fn follow(&mut self, part: Part, emit: &mut dyn Emit) {
        let context = self.kv.context_tokens();
        let stats = self.loaded().stats.get();
        let Some(Active { row, sequence, .. }) = self.running.find_mut(part.id) else { return };
        if sequence.in_prompt() && sequence.options().progress {
            let progress = Event::Progress {
                processed: count(self.kv.rows().row(*row).cached.len()),
                total: count(sequence.prompt_len()),
                reused: count(sequence.reused()),
                elapsed: sequence.elapsed(),
            };
            if !emit.event(part.id, progress) {
                self.remove(part.id);
                return;
            }
        }
        if part.rows.is_empty() {
            return;
        }
        let (row, computed) = (*row, sequence.tokens().len());
        let mut rows = Logits { context: self.kv.context_mut(), entries: part.rows };
        let advanced = sequence.advance_many(&mut rows, &self.vocab, context, &stats);
        let accepted = advanced.as_ref().map_or(0, |advanced| advanced.accepted);
        if accepted < part.drafts {
            self.kv.truncate(row, computed + accepted);
        }
        if let (Some(speculator), Ok(advanced)) = (&mut self.speculator, &advanced) {
            speculator.verified(part.id, part.drafts, advanced.verdict(part.drafts));
        }
        match advanced {
            Ok(advanced) => self.tell(part.id, advanced.rows, emit),
            Err(error) => self.fail(part.id, error, emit),
        }
    }

    /// Tells what rows of logits led to.
    fn tell(&mut self, id: u64, rows: Vec<Advance>, emit: &mut dyn Emit) {
        for advance in rows {
            let Some(sequence) = self.find(id) else { return };
            let tells = sequence.tells(&advance);
            let event = Event::Text { text: advance.text, tokens: advance.tokens };
            let listens = !tells || emit.event(id, event);
            if let Some(finish) = advance.finish {
                self.finish(id, finish, emit);
            } else if !listens {
                self.remove(id);
            }
        }
        self.make_room(id);
    }

    /// A sequence that fills its context continues without a part of it. What stays is computed anew, because
    /// keys know their positions, and cells may belong to other sequences too.
    fn make_room(&mut self, id: u64) {
        let context = self.kv.context_tokens();
        if let Some(Active { row, sequence, .. }) = self.running.find_mut(id)
            && sequence.tokens().len() > context
        {
            let keep = sequence.shift(context);
            self.kv.truncate(*row, keep);
        }
    }

    /// Most tokens of a text to embed.
    pub fn embed_limit(&self) -> usize {
        Embedder::limit(&self.kv)
    }

    /// Embeds the next texts, as many as fit into one graph. A failure leaves everything as it was.
    pub fn embed_step(&mut self, work: &mut EmbedWork) -> Result<(), GenerateError> {
        Embedder::new(&mut self.kv, &mut self.batch).step(work)
    }
}

/// Rows of logits of the last decode.
struct Logits<'a> {
    context: &'a mut Context,
    entries: Range<i32>,
}

impl LogitRows for Logits<'_> {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn row(&mut self, at: usize) -> Result<&[f32], DecodeError> {
        self.context.logits(self.entries.start + index(at))
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
