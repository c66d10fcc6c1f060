//! The loop itself: one step computes the next token of every running sequence, and as much of the waiting prompts as fits
//! beside them.
//!
//! A sequence is its tokens; what of them is in memory is the KV cache's business. Whatever is missing is computed, be it a
//! prompt, the last token, or everything again after the memory was lost. Invariant: between steps the KV cache holds exactly
//! what [`Memory`] says, also after a failed or stopped step, which counts as never having happened.
//!
//! Media are negative tokens (`crate::media`); what is special about their steps is in `media`.

use hypura_ggml::{Batch, Context, DecodeError, Token, Vocab};
use std::sync::Arc;
use std::time::Duration;

use super::Finish;
use super::divide::{most_rows, share};
use super::kv_disk::KvDisk;
use super::media::{Encoded, next_stretch};
use super::memory::{Choice, Memory};
use super::sequence::{Sequence, Setup};
use crate::error::GenerateError;
use crate::load::LoadedModel;
use crate::media::table::Places;
use crate::serve::{Event, SharedMemory};

/// Gets the events of a request; false means that nobody listens any more.
pub(crate) type Emit<'a> = dyn FnMut(u64, Event) -> bool + 'a;

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

pub(super) struct Active {
    pub id: u64,
    pub row: usize,
    pub sequence: Sequence,
    /// The rows of the medium that it is at.
    pub encoded: Option<Encoded>,
}

/// What one sequence has in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub id: u64,
    /// Index into the running sequences.
    pub(super) active: usize,
    pub tokens: usize,
    /// Batch entry with logits.
    pub(super) logits: Option<i32>,
    /// Rows of a medium, which are alone in their step.
    pub(super) is_media: bool,
}

/// The running sequences of a loaded model.
pub(crate) struct Batcher {
    pub(super) loaded: LoadedModel,
    vocab: Vocab,
    pub(super) batch: Batch,
    pub(super) memory: Memory,
    pub(super) active: Vec<Active>,
    /// Where tokens and media are.
    pub(super) places: Places,
    /// Where idle conversations are kept, if anywhere.
    pub(super) disk: Option<KvDisk>,
    /// Most rows of a step in which every row adds experts.
    most_rows: usize,
    /// Bytes of streamed dense weights that rows of a step did not have to read, because another row did.
    saved_dense: u64,
    /// Bytes of dense weights that each step reads.
    dense_bytes: u64,
    /// The memory that this model shares with others; `None`: what was planned for it is its own.
    pub(crate) shared_memory: Option<Arc<dyn SharedMemory>>,
    /// The sequence that gets the first share of a batch; moves on, so that none starves.
    pub(super) turn: usize,
}

impl Batcher {
    /// Takes over a loaded model.
    pub fn new(loaded: LoadedModel) -> Self {
        let vocab = loaded.model.vocab();
        let batch = Batch::new(loaded.context.batch_capacity() as usize);
        let memory = Memory::new(loaded.context.sequences() as usize);
        let most_rows = most_rows(&loaded.planned);
        let places = Places(loaded.media.as_ref().map(|media| Arc::clone(&media.table)));
        let dense_bytes = loaded.planned.plan.streamed_dense_bytes(&loaded.planned.source.shape);
        Self {
            loaded,
            vocab,
            batch,
            memory,
            active: Vec::new(),
            places,
            disk: None,
            most_rows,
            saved_dense: 0,
            dense_bytes,
            shared_memory: None,
            turn: 0,
        }
    }

    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Tokens that one sequence may have in memory.
    pub fn context(&self) -> usize {
        (self.loaded.context.capacity() / self.loaded.planned.settings.sequences.max(1)) as usize
    }

    /// Whether the context is gone: it could not be made anew, nor as it had been. Nothing can be computed any more.
    pub fn is_lost(&self) -> bool {
        self.loaded.context.capacity() == 0
    }

    /// Most tokens of a step.
    pub fn room(&self) -> usize {
        self.loaded.context.batch_capacity().max(1) as usize
    }

    /// Most tokens of a step that are embedded.
    pub(super) fn embed_room(&self) -> usize {
        self.room().min(self.loaded.context.output_capacity().max(1) as usize)
    }

    pub(super) fn context_mut(&mut self) -> &mut Context {
        &mut self.loaded.context
    }

    /// Whether tokens can be dropped from the end of a sequence and shared with others.
    pub(super) fn rewinds(&self) -> bool {
        !self.loaded.model.is_recurrent()
    }

    /// An empty row got these tokens back.
    pub(super) fn set_cached(&mut self, row: usize, tokens: Vec<Token>) {
        *self.memory.cached_mut(row) = tokens;
    }

    /// Bytes that rows of a step did not have to read, because another row of the same step did.
    pub fn saved_bytes(&self) -> u64 {
        self.loaded.stats.get().shared_bytes + self.saved_dense
    }

    pub(super) fn batch_mut(&mut self) -> &mut Batch {
        &mut self.batch
    }

    pub(super) fn decode(&mut self) -> Result<(), DecodeError> {
        self.loaded.context.decode(&self.batch)
    }

    /// The context was made anew, with this many tokens for each sequence if it grew.
    pub(super) fn rebuilt(&mut self, context: Option<usize>) {
        if let Some(context) = context {
            self.loaded.planned.settings.context = u32::try_from(context).unwrap_or(u32::MAX);
        }
        self.loaded.memory = self.loaded.context.memory_use();
    }

    /// Has the cache of experts give up at least so many bytes, as far as it can; returns how many.
    pub(super) fn give_back(&mut self, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let freed = self.loaded.context.give_back(bytes);
        let plan = &mut self.loaded.planned.plan;
        plan.slot_bytes = plan.slot_bytes.saturating_sub(freed);
        plan.slots = self.loaded.context.slots();
        self.most_rows = most_rows(&self.loaded.planned);
        freed
    }

    /// Running sequences.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// A running request's row and sequence.
    pub fn find(&self, id: u64) -> Option<(usize, &Sequence)> {
        self.active.iter().find(|active| active.id == id).map(|active| (active.row, &active.sequence))
    }

    /// Forgets all sequences and everything in memory.
    pub fn clear(&mut self) {
        self.active.clear();
        self.loaded.context.clear();
        self.memory = Memory::new(self.memory.rows().len());
    }

    /// Lets a request join. The caller sees to it that a row is free.
    pub fn admit(&mut self, id: u64, setup: Setup, emit: &mut Emit<'_>) {
        let (prompt, context) = (setup.prompt.tokens.len(), self.context());
        self.forget_media();
        if self.is_lost() {
            emit(id, Event::Failed(GenerateError::Unloaded));
            return;
        }
        if prompt >= context {
            // The context was to grow for it, and another model took the memory first.
            emit(id, Event::Failed(GenerateError::PromptTooLong { prompt, context }));
            return;
        }
        let mut sequence = Sequence::new(setup, self.loaded.stats.get());
        self.recall(sequence.tokens());
        let Some(choice) = self.choose(sequence.tokens()) else {
            emit(id, Event::Failed(GenerateError::NoSequence));
            return;
        };
        self.memory.take(choice.row, id);
        let reused = match choice.from {
            None => self.keep(choice.row, choice.common),
            Some(from) => self.copy(from, choice.row, choice.common),
        };
        sequence.set_reused(reused);
        let started = Event::Started {
            prompt_tokens: count(sequence.prompt_len()),
            reused_tokens: count(reused),
            queued: Duration::ZERO,
        };
        self.active.push(Active { id, row: choice.row, sequence, encoded: None });
        if !emit(id, started) {
            self.remove(id);
        }
    }

    /// One step of every running sequence that has room in the batch.
    pub fn step(&mut self, emit: &mut Emit<'_>) -> Step {
        let parts = self.fill();
        self.compute(parts, emit)
    }

    /// What the next step would do, without doing it.
    pub fn fill(&mut self) -> Vec<Part> {
        let all: Vec<u64> = self.active.iter().map(|active| active.id).collect();
        self.fill_with(&all)
    }

    /// The same for some of the requests.
    pub fn fill_with(&mut self, ids: &[u64]) -> Vec<Part> {
        let room = self.room();
        if let Some(part) = self.fill_media(ids) {
            return vec![part];
        }
        let stretch = |active: &Active| {
            let first = self.memory.row(active.row).cached.len();
            next_stretch(&active.sequence.tokens()[first..])
        };
        let wanted: Vec<usize> = self
            .active
            .iter()
            .map(|active| if ids.contains(&active.id) { stretch(active) } else { 0 })
            .collect();
        let shares = share(&wanted, room, self.most_rows, self.turn);
        self.batch.clear();
        let mut parts = Vec::new();
        for (at, (active, tokens)) in self.active.iter().zip(shares).enumerate() {
            if tokens == 0 {
                continue;
            }
            let first = self.memory.row(active.row).cached.len();
            let all = active.sequence.tokens();
            let mut logits = None;
            let position = self.places.position(all, first);
            for (offset, token) in all[first..first + tokens].iter().enumerate() {
                let last = first + offset + 1 == all.len();
                let entry = self.batch.push(*token, index(position + offset), index(active.row), last);
                logits = entry.filter(|_| last);
            }
            parts.push(Part { id: active.id, active: at, tokens, logits, is_media: false });
        }
        self.turn = self.turn.wrapping_add(1);
        parts
    }

    /// Computes what was filled in.
    pub fn compute(&mut self, mut parts: Vec<Part>, emit: &mut Emit<'_>) -> Step {
        if parts.is_empty() {
            return Step::Done;
        }
        if let Err(error) = self.place_media(&mut parts) {
            return Step::Failed { error, requests: parts.iter().map(|part| part.id).collect() };
        }
        loop {
            match self.decode() {
                Ok(()) => break,
                Err(DecodeError::NoRoom(_)) if self.forget_oldest() => {}
                Err(error) => {
                    self.undo(&parts);
                    return match error {
                        DecodeError::Aborted => Step::Aborted,
                        error => Step::Failed {
                            error: error.into(),
                            requests: parts.iter().map(|part| part.id).collect(),
                        },
                    };
                }
            }
        }
        self.saved_dense += self.dense_bytes * (parts.len() as u64 - 1);
        for part in &parts {
            let Active { row, sequence, .. } = &self.active[part.active];
            let cached = self.memory.cached_mut(*row);
            let first = cached.len();
            cached.extend_from_slice(&sequence.tokens()[first..first + part.tokens]);
        }
        self.drop_read_media();
        // Sequences end while their logits are used: go by id, not by place.
        for part in parts {
            self.follow(part, emit);
        }
        Step::Done
    }

    /// Ends a request with an error.
    pub fn fail(&mut self, id: u64, error: GenerateError, emit: &mut Emit<'_>) {
        if self.remove(id).is_some() {
            emit(id, Event::Failed(error));
        }
    }

    /// Ends a request that somebody stopped.
    pub fn end(&mut self, id: u64, emit: &mut Emit<'_>) {
        if let Some(sequence) = self.remove(id) {
            let outcome = sequence.finished(Finish::Stopped, &self.loaded.stats.get());
            emit(id, Event::Done(Box::new(outcome)));
        }
    }

    /// Ends all requests.
    pub fn end_all(&mut self, emit: &mut Emit<'_>) {
        let all: Vec<u64> = self.active.iter().map(|active| active.id).collect();
        for id in all {
            self.end(id, emit);
        }
    }

    /// Takes a request out; its tokens stay in memory for the next one that can use them.
    pub fn remove(&mut self, id: u64) -> Option<Sequence> {
        let at = self.active.iter().position(|active| active.id == id)?;
        let active = self.active.remove(at);
        self.memory.release(active.row);
        Some(active.sequence)
    }

    /// Uses the logits of a part, or tells of progress.
    fn follow(&mut self, part: Part, emit: &mut Emit<'_>) {
        let context = self.context();
        let stats = self.loaded.stats.get();
        let Some(at) = self.active.iter().position(|active| active.id == part.id) else { return };
        let Active { row, sequence, .. } = &mut self.active[at];
        if sequence.in_prompt() && sequence.options().progress {
            let progress = Event::Progress {
                processed: count(self.memory.row(*row).cached.len()),
                total: count(sequence.prompt_len()),
                reused: count(sequence.reused()),
                elapsed: sequence.elapsed(),
            };
            if !emit(part.id, progress) {
                self.remove(part.id);
                return;
            }
        }
        let Some(entry) = part.logits else { return };
        let advanced = match self.loaded.context.logits(entry) {
            Ok(logits) => sequence.advance(logits, &self.vocab, context, &stats).map_err(GenerateError::from),
            Err(error) => Err(error.into()),
        };
        let advance = match advanced {
            Ok(advance) => advance,
            Err(error) => return self.fail(part.id, error, emit),
        };
        let tells = sequence.tells(&advance);
        let listens = !tells || emit(part.id, Event::Text { text: advance.text, tokens: advance.tokens });
        if let Some(finish) = advance.finish {
            if let Some(sequence) = self.remove(part.id) {
                emit(part.id, Event::Done(Box::new(sequence.finished(finish, &stats))));
            }
        } else if !listens {
            self.remove(part.id);
        } else {
            self.make_room(at);
        }
    }

    /// A sequence that fills its context goes on without a part of it. What stays is computed anew, because keys know their
    /// positions, and cells may belong to other sequences too.
    fn make_room(&mut self, at: usize) {
        let context = self.context();
        let Active { row, sequence, .. } = &mut self.active[at];
        if sequence.tokens().len() > context {
            let (row, keep) = (*row, sequence.shift(context));
            self.keep(row, keep);
        }
    }

    /// Makes the step not have happened.
    fn undo(&mut self, parts: &[Part]) {
        for part in parts {
            let row = self.active[part.active].row;
            let length = self.memory.row(row).cached.len();
            self.keep(row, length);
        }
    }

    /// Drops what a row has beyond `length` tokens; everything, where the memory cannot drop a part. A medium of which something
    /// is to go goes as a whole. Returns what is left.
    fn keep(&mut self, row: usize, length: usize) -> usize {
        let mut tokens = std::mem::take(self.memory.cached_mut(row));
        let length = self.places.whole(&tokens, length);
        let from = index(self.places.position(&tokens, length));
        tokens.truncate(length);
        if self.loaded.context.forget(index(row), from) && self.holds(row, &tokens) {
            *self.memory.cached_mut(row) = tokens;
            return length;
        }
        self.empty(row);
        0
    }

    /// How a prompt gets a row.
    pub(super) fn choose(&self, prompt: &[Token]) -> Option<Choice> {
        self.memory.choose(prompt, self.rewinds(), |length| self.places.whole(prompt, length))
    }

    /// Copies the beginning of a row to another.
    fn copy(&mut self, from: usize, to: usize, length: usize) -> usize {
        self.empty(to);
        let tokens: Vec<Token> = self.memory.row(from).cached[..length].to_vec();
        let end = index(self.places.position(&tokens, length));
        self.loaded.context.share(index(from), index(to), end);
        if !self.holds(to, &tokens) {
            self.empty(to);
            return 0;
        }
        *self.memory.cached_mut(to) = tokens;
        length
    }

    /// Whether llama.cpp has exactly the positions of these tokens in a row. A sliding window may have dropped some; of recurrent
    /// state, which stands for all that came before, only the last position is told.
    pub(super) fn holds(&self, row: usize, tokens: &[Token]) -> bool {
        match self.loaded.context.positions(index(row)) {
            None => tokens.is_empty(),
            Some((first, last)) => {
                (first == 0 || !self.rewinds()) && self.places.last_position(tokens).map(index) == Some(last)
            }
        }
    }

    pub(super) fn empty(&mut self, row: usize) {
        self.loaded.context.forget(index(row), 0);
        self.memory.cached_mut(row).clear();
    }

    /// Makes room by dropping the idle conversation that nobody missed for longest.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.memory.oldest_idle();
        if let Some(row) = oldest {
            self.empty(row);
        }
        oldest.is_some()
    }
}

/// A position or sequence id for llama.cpp.
pub(super) fn index(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
