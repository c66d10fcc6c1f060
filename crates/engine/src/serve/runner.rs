//! The handle of a loaded model that serves many requests.

use hypura_ggml::{Grammar, Sampler, Vocab};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use super::queue::{Job, Queue, Stop};
use super::scheduler::Scheduler;
use super::text_tools::TextTools;
use super::types::{Request, RunnerInfo, RunnerSettings, RunnerStatus, SequenceOptions, Sink, SubmitError};
use crate::error::LoadError;
use crate::load::LoadedModel;
use crate::session::batcher::Batcher;
use crate::session::sequence::Setup;

/// A loaded model that serves many requests. Cheap to clone; the last one dropped ends it.
#[derive(Clone)]
pub struct Runner(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    text: Arc<TextTools>,
    info: RunnerInfo,
    context: usize,
}

/// A submitted request. Dropping it cancels the request; [`detach`](Self::detach) lets it run on.
#[must_use = "a request is cancelled when its handle is dropped"]
pub struct RequestHandle {
    id: u64,
    cancelled: Arc<AtomicBool>,
    queue: Option<Arc<Queue>>,
}

impl Runner {
    /// Starts serving.
    ///
    /// # Errors
    /// [`LoadError::Thread`] when the system gives no thread.
    pub fn start(loaded: LoadedModel, settings: RunnerSettings) -> Result<Self, LoadError> {
        let sequences = loaded.planned.settings.sequences.max(1) as usize;
        let parallel = settings.parallel.clamp(1, sequences);
        let info = describe(&loaded, parallel);
        let text = Arc::new(TextTools::new(&loaded.model));
        let queue = Arc::new(Queue::new(Arc::clone(&loaded.abort), parallel, settings.max_queue));
        let batcher = Batcher::new(loaded);
        let context = batcher.context();
        let scheduler = Scheduler::new(batcher, Arc::clone(&queue));
        let (worker_queue, worker_text) = (Arc::clone(&queue), Arc::clone(&text));
        thread::Builder::new()
            .name("scheduler".to_owned())
            .spawn(move || {
                // Dropped in this order even when the scheduler panics: then the model is freed, and nobody waits for ever.
                let _freed = Freed { queue: worker_queue, text: worker_text };
                scheduler.run();
            })
            .map_err(LoadError::Thread)?;
        Ok(Self(Arc::new(Handle { queue, text, info, context })))
    }

    /// What never changes.
    #[must_use]
    pub fn info(&self) -> &RunnerInfo {
        &self.0.info
    }

    /// What is going on. Never waits for a step.
    #[must_use]
    pub fn status(&self) -> RunnerStatus {
        self.0.queue.status()
    }

    /// Tokens, text and chat templates.
    #[must_use]
    pub fn text(&self) -> &TextTools {
        &self.0.text
    }

    /// Queues a request. `sink` gets its events on the scheduler's thread.
    ///
    /// # Errors
    /// [`SubmitError`]; the sink is not called then.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<RequestHandle, SubmitError> {
        let Request { prompt, options } = request;
        let vocab = self.0.text.vocab().ok_or(SubmitError::Stopped)?;
        self.check(&prompt, &vocab)?;
        let mut sampler = sampler(&vocab, &options)?;
        prompt.iter().for_each(|token| sampler.accept(*token));
        let setup = Setup { prompt, options, sampler, hash_logits: false, forced: None, every_token: false };
        let cancelled = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&cancelled);
        let id = self.0.queue.push(|id| Job { id, setup, sink, cancelled: flag, since: Instant::now() })?;
        Ok(RequestHandle { id, cancelled, queue: Some(Arc::clone(&self.0.queue)) })
    }

    /// Ends it: with `drain` after everything that was accepted is done, otherwise now. Waits until the model is freed.
    /// Not to be called from a sink.
    pub fn stop(&self, drain: bool) {
        self.0.queue.stop(if drain { Stop::Drain } else { Stop::Now });
        self.0.queue.wait_freed();
    }

    fn check(&self, prompt: &[hypura_ggml::Token], vocab: &Vocab) -> Result<(), SubmitError> {
        let context = self.0.context;
        if prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(SubmitError::PromptTooLong { prompt: prompt.len(), context });
        }
        let known = |token: &i32| usize::try_from(*token).is_ok_and(|token| token < vocab.len());
        match prompt.iter().find(|token| !known(token)) {
            Some(token) => Err(SubmitError::BadToken(*token)),
            None => Ok(()),
        }
    }
}

impl RequestHandle {
    /// A number that no other request of this runner has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends the request within one step; its sink gets `Done` with `Stopped`, or nothing if it still waits.
    pub fn cancel(&self) {
        if let Some(queue) = &self.queue {
            queue.cancel(&self.cancelled);
        }
    }

    /// Lets the request run on by itself.
    pub fn detach(mut self) {
        self.queue = None;
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.stop(Stop::Now);
    }
}

/// Tells, when dropped, that the model is freed.
struct Freed {
    queue: Arc<Queue>,
    text: Arc<TextTools>,
}

impl Drop for Freed {
    fn drop(&mut self) {
        self.text.close();
        self.queue.set_freed();
    }
}

fn sampler(vocab: &Vocab, options: &SequenceOptions) -> Result<Sampler, SubmitError> {
    match options.grammar.as_ref().filter(|Grammar { gbnf, .. }| !gbnf.is_empty()) {
        Some(grammar) => Sampler::with_grammar(vocab, &options.sampler, grammar)
            .map_err(|error| SubmitError::BadGrammar(error.to_string())),
        None => Ok(Sampler::new(vocab, &options.sampler)),
    }
}

fn describe(loaded: &LoadedModel, parallel: usize) -> RunnerInfo {
    let vocab = loaded.model.vocab();
    let planned = &loaded.planned;
    let plan = &planned.plan;
    let shape = &planned.source.shape;
    let pooling = planned.source.metadata.get(&format!("{}.pooling_type", shape.architecture));
    RunnerInfo {
        architecture: shape.architecture.clone(),
        context_train: loaded.model.context_train(),
        embedding_length: loaded.model.embedding(),
        vocab_size: vocab.len(),
        bos: vocab.bos(),
        eos: vocab.eos(),
        adds_bos: vocab.adds_bos(),
        is_embedding_model: pooling.is_some(),
        parallel,
        mode: plan.mode,
        file_bytes: planned.source.file_bytes(),
        resident_bytes: plan.resident_bytes,
        stream_bytes: plan.slot_bytes + (plan.cells * plan.cell_bytes) as u64,
        slots: plan.slots.iter().sum(),
        reader: loaded.reader,
        load_time: loaded.load_time,
        notes: loaded.notes.clone(),
    }
}
