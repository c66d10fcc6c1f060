//! The thread that owns the model: takes requests from the queue, steps, and hands out what comes.

use hypura_core::plan::{Mode, Purpose};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::live::{Meter, StepWork};
use super::queue::{Job, Queue, Stop, Task, Work};
use super::types::{MemoryParts, RunnerStatus, SequenceStatus, Totals};
use crate::error::GenerateError;
use crate::request::{EmbedSink, Event, RequestError, Sink};
use crate::session::active::Part;
use crate::session::batcher::{Batcher, Emit, Step};
use crate::session::embed::EmbedWork;
use crate::session::sequence::Sequence;
use crate::stream::StreamStats;

/// A request that runs.
struct Running {
    sink: Sink,
    cancelled: Arc<AtomicBool>,
    queued: Duration,
}

/// Texts that are being embedded.
struct Embedding {
    work: EmbedWork,
    sink: EmbedSink,
    cancelled: Arc<AtomicBool>,
}

/// The sinks of the running requests, and totals of what was reported to them.
#[derive(Default)]
struct Listeners {
    running: HashMap<u64, Running>,
    totals: Totals,
}

impl Listeners {
    fn is_cancelled(&self, id: u64) -> bool {
        self.running.get(&id).is_none_or(|running| running.cancelled.load(Ordering::Relaxed))
    }
}

impl Emit for Listeners {
    /// Passes an event on; the last one ends the request. The scheduler ends cancelled requests itself, so
    /// that each is counted once.
    fn event(&mut self, id: u64, event: Event) -> bool {
        let Some(running) = self.running.get_mut(&id) else { return false };
        let event = match event {
            Event::Started { prompt_tokens, reused_tokens, .. } => {
                Event::Started { prompt_tokens, reused_tokens, queued: running.queued }
            }
            event => event,
        };
        let last = match &event {
            Event::Done(outcome) => {
                self.totals.requests += 1;
                self.totals.prompt_tokens += outcome.prompt_tokens as u64;
                self.totals.reused_tokens += outcome.reused_tokens as u64;
                self.totals.generated_tokens += outcome.tokens.len() as u64;
                self.totals.speculation.add(&outcome.speculation);
                self.totals.prefill += outcome.prefill;
                self.totals.decode += outcome.total.saturating_sub(outcome.prefill);
                true
            }
            Event::Failed(_) => {
                self.totals.requests += 1;
                self.totals.failed += 1;
                true
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Text { .. } => false,
        };
        let listens = (running.sink)(event);
        if last {
            self.running.remove(&id);
        } else if !listens {
            running.cancelled.store(true, Ordering::Relaxed);
        }
        true
    }

    fn failed(&mut self, id: u64, error: GenerateError) {
        self.event(id, Event::Failed((&error).into()));
    }
}

/// Owns the model.
pub(super) struct Scheduler {
    batcher: Batcher,
    queue: Arc<Queue>,
    listeners: Listeners,
    /// One at a time, between the steps of the others.
    embeddings: VecDeque<Embedding>,
    kv_cache_error: Option<String>,
    meter: Meter,
}

impl Scheduler {
    pub fn new(batcher: Batcher, queue: Arc<Queue>) -> Self {
        let scheduler = Self {
            batcher,
            queue,
            listeners: Listeners::default(),
            embeddings: VecDeque::new(),
            kv_cache_error: None,
            meter: Meter::default(),
        };
        scheduler.publish();
        scheduler
    }

    /// Serves until it is asked to stop.
    pub fn run(mut self) {
        loop {
            let running = self.batcher.active() + self.embeddings.len();
            if running == 0 {
                let queue = Arc::clone(&self.queue);
                self.keep_idle(&|| queue.is_busy());
                // For whoever asks while nothing is computed.
                queue.publish_experts(self.batcher.loaded().experts());
            }
            let Work { jobs, stop } = self.queue.take(running, running == 0);
            let nothing_left = running == 0 && jobs.is_empty();
            for job in jobs {
                self.admit(job);
            }
            if stop == Stop::Now || (stop == Stop::Drain && nothing_left) {
                break;
            }
            if self.batcher.kv().is_lost() {
                self.fail_all();
                break;
            }
            self.end_cancelled();
            self.embed();
            self.grow_full();
            self.step();
            self.end_cancelled();
            self.publish();
            if self.queue.wants_experts() {
                self.queue.publish_experts(self.batcher.loaded().experts());
            }
        }
        self.refuse_all();
        self.keep_idle(&|| false);
        self.publish();
    }

    /// Nothing else is to do: what conversations leave in memory goes to disk, if anywhere.
    fn keep_idle(&mut self, hurry: &dyn Fn() -> bool) {
        if let Err(error) = self.batcher.keep_idle(hurry) {
            self.kv_cache_error = Some(error.to_string());
            self.publish();
        }
    }

    fn admit(&mut self, job: Job) {
        let Job { id, task, cancelled, since } = job;
        match task {
            Task::Generate(setup, sink) => {
                self.listeners.running.insert(id, Running { sink, cancelled, queued: since.elapsed() });
                if let Some(wanted) = setup.options.num_ctx {
                    self.grow(wanted as usize);
                }
                let listeners = &mut self.listeners;
                self.batcher.admit(id, *setup, listeners);
            }
            Task::Embed(work, sink) => self.embeddings.push_back(Embedding { work, sink, cancelled }),
        }
    }

    fn grow(&mut self, wanted: usize) {
        let promised = self.batcher.kv_mut().grow(wanted);
        // What it holds now is reported before the reservation ends, so that those bytes never count as free
        // in between.
        self.publish();
        drop(promised);
    }

    /// An answer that has filled the context gets a larger one, if it may: once, since without memory for it
    /// the answer ends with the next token.
    fn grow_full(&mut self) {
        if let Some(wanted) = self.batcher.wanted_context() {
            self.grow(wanted);
        }
    }

    /// One graph for the texts that wait longest.
    fn embed(&mut self) {
        self.embeddings.retain(|embedding| !embedding.cancelled.load(Ordering::Relaxed));
        let Some(first) = self.embeddings.front_mut() else { return };
        let mut failed = None;
        if !first.work.is_done() {
            let flag = Arc::clone(&first.cancelled);
            if !self.queue.begin_step(vec![(flag, first.work.next_tokens().max(1))]) {
                return;
            }
            failed = self.batcher.embed_step(&mut first.work).err();
            self.queue.end_step();
        }
        if failed.is_none() && !first.work.is_done() {
            return;
        }
        let Some(Embedding { work, sink, cancelled }) = self.embeddings.pop_front() else { return };
        if !cancelled.load(Ordering::Relaxed) {
            self.listeners.totals.requests += 1;
            self.listeners.totals.failed += u64::from(failed.is_some());
            sink(failed.map_or(Ok(work.done), |error| Err((&error).into())));
        }
    }

    /// One step of all, or, when it fails, of each alone: only those that fail alone are given up.
    fn step(&mut self) {
        let parts = self.batcher.fill();
        if let Step::Failed { error, requests } = self.compute(parts) {
            if let [only] = requests.as_slice() {
                self.fail(*only, error);
                return;
            }
            for id in requests {
                if self.listeners.is_cancelled(id) || self.queue.stops_now() {
                    continue;
                }
                let parts = self.batcher.fill_with(&[id]);
                if let Step::Failed { error, .. } = self.compute(parts) {
                    self.fail(id, error);
                }
            }
        }
    }

    fn compute(&mut self, parts: Vec<Part>) -> Step {
        if parts.is_empty() {
            return Step::Done;
        }
        let flags = parts.iter().filter_map(|part| {
            let running = self.listeners.running.get(&part.id)?;
            Some((Arc::clone(&running.cancelled), part.tokens))
        });
        if !self.queue.begin_step(flags.collect()) {
            return Step::Aborted;
        }
        let before = Before::new(self, &parts);
        let listeners = &mut self.listeners;
        listeners.totals.steps += 1;
        let step = self.batcher.compute(parts, listeners);
        self.queue.end_step();
        if matches!(step, Step::Done) {
            let work = before.until_now(self);
            self.meter.add(&work);
        }
        step
    }

    /// Tokens of answers so far, those of running ones included.
    fn answer_tokens(&self) -> u64 {
        let running = self.listeners.running.keys().filter_map(|id| self.batcher.find(*id));
        let running: usize = running.map(generated).sum();
        self.listeners.totals.generated_tokens + running as u64
    }

    fn fail(&mut self, id: u64, error: GenerateError) {
        let listeners = &mut self.listeners;
        self.batcher.fail(id, error, listeners);
    }

    fn end_cancelled(&mut self) {
        let gone: Vec<u64> =
            self.listeners.running.keys().copied().filter(|id| self.listeners.is_cancelled(*id)).collect();
        for id in gone {
            let listeners = &mut self.listeners;
            self.batcher.end(id, listeners);
            // One that never got a sequence has no end of its own.
            self.listeners.running.remove(&id);
        }
    }

    /// There is no context any more: no request can be answered, and the model must be loaded again.
    fn fail_all(&mut self) {
        let running: Vec<u64> = self.listeners.running.keys().copied().collect();
        for id in running {
            self.fail(id, GenerateError::Unloaded);
        }
    }

    /// Everything ends: those that run are stopped, those that wait are refused.
    fn refuse_all(&mut self) {
        let listeners = &mut self.listeners;
        self.batcher.end_all(listeners);
        let unloaded = || RequestError::from(&GenerateError::Unloaded);
        for Embedding { sink, .. } in self.embeddings.drain(..) {
            sink(Err(unloaded()));
        }
        for job in self.queue.rest() {
            match job.task {
                Task::Generate(_, mut sink) => drop(sink(Event::Failed(unloaded()))),
                Task::Embed(_, sink) => sink(Err(unloaded())),
            }
        }
    }

    fn publish(&self) {
        let loaded = self.batcher.loaded();
        let in_memory = [Purpose::Weights, Purpose::Slots].map(|purpose| loaded.ledger.bytes_for(purpose));
        let weights = loaded.planned.source.shape.total_bytes();
        let context = self.batcher.kv().context_facts();
        let slots = self.batcher.kv().rows().all().iter().map(|row| {
            let sequence = row.owner.and_then(|id| self.batcher.find(id));
            SequenceStatus {
                request: row.owner,
                cached_tokens: row.cached.len(),
                prompt_tokens: sequence.map_or(0, |sequence| sequence.prompt_len()),
                generated_tokens: sequence.map_or(0, generated),
            }
        });
        self.queue.publish(RunnerStatus {
            context_length: context.tokens,
            context_cells: context.cells,
            memory_bytes: self.batcher.kv().held_bytes(),
            device_bytes: self.batcher.kv().device_bytes(),
            workers: self.batcher.kv().workers(),
            weights_on_disk_bytes: in_memory.iter().fold(weights, |left, bytes| left.saturating_sub(*bytes)),
            kv_bytes: context.kv_bytes,
            parts: MemoryParts::of(&loaded.ledger),
            live: self.meter.live(),
            context,
            moved: 0,
            active: 0,
            queued: 0,
            slots: slots.collect(),
            held: loaded.stats.held(),
            kv_cache_error: self.kv_cache_error.clone(),
            totals: Totals {
                stream: loaded.stats.get(),
                saved_bytes: self.batcher.saved_bytes(),
                ..self.listeners.totals
            },
        });
    }
}

fn generated(sequence: &Sequence) -> usize {
    sequence.tokens().len().saturating_sub(sequence.prompt_len())
}

/// What a step is measured against.
struct Before {
    start: Instant,
    stream: StreamStats,
    answer_tokens: u64,
    /// Requests of the step that have no token of an answer yet.
    prompts: Vec<u64>,
    prompt_tokens: u64,
}

impl Before {
    fn new(scheduler: &Scheduler, parts: &[Part]) -> Self {
        let has_answer = |part: &&Part| scheduler.batcher.find(part.id).is_some_and(|it| generated(it) > 0);
        let prompts: Vec<&Part> = parts.iter().filter(|part| !has_answer(part)).collect();
        Self {
            start: Instant::now(),
            stream: scheduler.batcher.loaded().stats.get(),
            answer_tokens: scheduler.answer_tokens(),
            prompt_tokens: prompts.iter().map(|part| part.tokens as u64).sum(),
            prompts: prompts.iter().map(|part| part.id).collect(),
        }
    }

    fn until_now(&self, scheduler: &Scheduler) -> StepWork {
        let loaded = scheduler.batcher.loaded();
        let begun = |id: &&u64| scheduler.batcher.find(**id).is_none_or(|it| generated(it) > 0);
        let first = self.prompts.iter().filter(begun).count() as u64;
        StepWork {
            prompt_tokens: self.prompt_tokens,
            answer_tokens: scheduler.answer_tokens().saturating_sub(self.answer_tokens + first),
            wall: self.start.elapsed(),
            stream: loaded.stats.get().since(&self.stream),
            observed: loaded.planned.plan.mode() != Mode::FullResident,
        }
    }
}
