//! The handle of a loaded model that serves many requests.

use hypura_ggml::{Grammar, Sampler, Token, Vocab};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use super::queue::{Job, Queue, Stop, Task};
use super::scheduler::Scheduler;
use super::text_tools::TextTools;
use super::types::{RunnerInfo, RunnerSettings, RunnerStatus};
use crate::budget::SharedMemory;
use crate::error::LoadError;
use crate::load::LoadedModel;
use crate::media::{MediaPrompt, MediaPromptError};
use crate::request::{EmbedSink, Options, Request, Sink, SubmitError};
use crate::session::batcher::Batcher;
use crate::session::embed::EmbedWork;
use crate::session::sequence::Setup;
use crate::stream::ExpertMap;

/// A loaded model that serves many requests. Cheap to clone; the last one dropped ends it.
#[derive(Clone)]
pub struct Runner(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    text: Arc<TextTools>,
    info: RunnerInfo,
    memory: Option<Arc<dyn SharedMemory>>,
    /// What the model alone may take, where nothing is shared.
    budget_bytes: u64,
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
    /// [`LoadError::Thread`] when the system gives no thread, [`LoadError::KvCache`] when the folder is of no
    /// use.
    pub fn start(loaded: LoadedModel, settings: RunnerSettings) -> Result<Self, LoadError> {
        let sequences = loaded.planned.plan.context.sequences.max(1) as usize;
        let parallel = settings.parallel.clamp(1, sequences);
        let text = Arc::new(TextTools::new(&loaded.model, loaded.media.clone()));
        let queue =
            Arc::new(Queue::new(Arc::clone(&loaded.abort), loaded.movement(), parallel, settings.max_queue));
        let mut batcher = Batcher::new(loaded);
        if let Some(dir) = &settings.kv_cache_dir {
            let kept = batcher.use_disk(dir, settings.kv_cache_quota_bytes);
            kept.map_err(|source| LoadError::KvCache { path: dir.clone(), source })?;
        }
        batcher.kv_mut().share_memory(settings.memory.clone());
        let info = describe(&batcher, parallel);
        let budget_bytes = batcher.loaded().planned.plan.budget_bytes();
        let scheduler = Scheduler::new(batcher, Arc::clone(&queue));
        let (worker_queue, worker_text) = (Arc::clone(&queue), Arc::clone(&text));
        thread::Builder::new()
            .name("scheduler".to_owned())
            .spawn(move || {
                // Dropped in this order even when the scheduler panics: then the model is freed, and nobody
                // waits for ever.
                let _freed = Freed { queue: worker_queue, text: worker_text };
                scheduler.run();
            })
            .map_err(LoadError::Thread)?;
        Ok(Self(Arc::new(Handle { queue, text, info, memory: settings.memory, budget_bytes })))
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

    /// Which experts are in memory; `None` where none stream, and before the first step. Never waits for a
    /// step: while steps are computed it is as of less than a second ago.
    #[must_use]
    pub fn experts(&self) -> Option<ExpertMap> {
        self.0.queue.experts()
    }

    /// Tokens, text and chat templates.
    #[must_use]
    pub fn text(&self) -> &TextTools {
        &self.0.text
    }

    /// Queues a request. `sink` gets its events on the scheduler's thread. A prompt with media is decoded
    /// first, here.
    ///
    /// # Errors
    /// [`SubmitError`]; the sink is not called then.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<RequestHandle, SubmitError> {
        let Request { prompt, options } = request;
        let prompt = self.0.text.cut(prompt).map_err(|error| match error {
            MediaPromptError::Unloaded => SubmitError::Stopped,
            error => SubmitError::UnusableMedia(error.to_string()),
        })?;
        self.submit_cut(prompt, options, sink)
    }

    /// Queues a request whose prompt this runner's [`Self::text`] has cut already.
    ///
    /// # Errors
    /// [`SubmitError`]; the sink is not called then.
    pub fn submit_cut(
        &self,
        prompt: MediaPrompt,
        options: Options,
        sink: Sink,
    ) -> Result<RequestHandle, SubmitError> {
        let vocab = self.0.text.vocab().ok_or(SubmitError::Stopped)?;
        let most = self.context_for(options.num_ctx) as usize;
        let has_media = !prompt.media.is_empty();
        if has_media && !prompt.media.fits(&prompt.tokens) {
            return Err(SubmitError::BadMedia);
        }
        check(&prompt.tokens, has_media, &vocab, most.saturating_sub(1), most)?;
        let mut sampler = sampler(&vocab, &options)?;
        prompt.words().for_each(|token| sampler.accept_prompt(token));
        let setup = Setup { prompt, options, sampler, hash_logits: false, forced: None, every_token: false };
        self.queue(Task::Generate(Box::new(setup), sink))
    }

    /// Queues texts to embed. `sink` gets a vector for each, in order, on the scheduler's thread.
    ///
    /// # Errors
    /// [`SubmitError`]; the sink is not called then.
    pub fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<RequestHandle, SubmitError> {
        let vocab = self.0.text.vocab().ok_or(SubmitError::Stopped)?;
        let most = self.0.info.embed_most;
        inputs.iter().try_for_each(|input| check(input, false, &vocab, most, most))?;
        self.queue(Task::Embed(EmbedWork::new(inputs), sink))
    }

    /// Tokens of context that a request which asks for `num_ctx` gets: at least what there is, at most what
    /// memory is free for.
    #[must_use]
    pub fn context_for(&self, num_ctx: Option<u32>) -> u32 {
        let now = self.0.queue.context();
        match num_ctx {
            Some(wanted) if wanted > now => wanted.min(self.context_most()).max(now),
            _ => now,
        }
    }

    /// Most tokens of context that a sequence can get now, about.
    #[must_use]
    pub fn context_most(&self) -> u32 {
        let status = self.status();
        let free = match &self.0.memory {
            Some(memory) => memory.free_bytes(),
            None => self.0.budget_bytes.saturating_sub(status.memory_bytes),
        };
        status.context.most(free)
    }

    /// Whether it can still answer. False once it was stopped or has died.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.queue.is_open()
    }

    fn queue(&self, task: Task) -> Result<RequestHandle, SubmitError> {
        let cancelled = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&cancelled);
        let id = self.0.queue.push(|id| Job { id, task, cancelled: flag, since: Instant::now() })?;
        Ok(RequestHandle { id, cancelled, queue: Some(Arc::clone(&self.0.queue)) })
    }

    /// Ends it: with `drain` after everything that was accepted is done, otherwise now. Waits until the model
    /// is freed. Not to be called from a sink.
    pub fn stop(&self, drain: bool) {
        self.0.queue.stop(if drain { Stop::Drain } else { Stop::Now });
        self.0.queue.wait_freed();
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
        // After a panic somebody may still wait: a sink that is dropped says that nothing will come.
        drop(self.queue.rest());
    }
}

/// Refuses prompts of no tokens, of more than `most`, or with tokens that there are not. Where a prompt has
/// pictures, negative tokens are theirs.
fn check(
    prompt: &[Token],
    has_media: bool,
    vocab: &Vocab,
    most: usize,
    context: usize,
) -> Result<(), SubmitError> {
    if prompt.is_empty() {
        return Err(SubmitError::EmptyPrompt);
    }
    if prompt.len() > most {
        return Err(SubmitError::PromptTooLong { prompt: prompt.len(), context });
    }
    let known = |token: &Token| match usize::try_from(*token) {
        Ok(token) => token < vocab.len(),
        Err(_) => has_media,
    };
    match prompt.iter().find(|token| !known(token)) {
        Some(token) => Err(SubmitError::BadToken(*token)),
        None => Ok(()),
    }
}

fn sampler(vocab: &Vocab, options: &Options) -> Result<Sampler, SubmitError> {
    match options.grammar.as_ref().filter(|Grammar { gbnf, .. }| !gbnf.is_empty()) {
        Some(grammar) => Sampler::with_grammar(vocab, &options.sampler, grammar)
            .map_err(|error| SubmitError::BadGrammar(error.to_string())),
        None => Ok(Sampler::new(vocab, &options.sampler)),
    }
}

fn describe(batcher: &Batcher, parallel: usize) -> RunnerInfo {
    let loaded = batcher.loaded();
    let vocab = loaded.model.vocab();
    let planned = &loaded.planned;
    let plan = &planned.plan;
    let shape = &planned.source.shape;
    RunnerInfo {
        architecture: shape.architecture.clone(),
        context_train: loaded.model.context_train(),
        embedding_length: loaded.model.embedding(),
        embed_most: batcher.embed_limit(),
        vocab_size: vocab.len(),
        bos: vocab.bos(),
        eos: vocab.eos(),
        adds_bos: vocab.adds_bos(),
        modalities: loaded.media.as_ref().map(|media| media.modalities).unwrap_or_default(),
        is_embedding_model: planned.source.pooling_type().is_some(),
        parallel,
        mode: plan.mode(),
        layers: shape.layers,
        experts: shape.experts,
        experts_used: shape.experts_used,
        file_bytes: planned.source.file_bytes(),
        resident_bytes: plan.resident_bytes(),
        reader: loaded.reader.map(str::to_owned),
        load_time: loaded.load_time,
        notes: loaded.notes.clone(),
    }
}
