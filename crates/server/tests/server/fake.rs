//! A scripted engine behind the server: no model, no disk; slow, failing or busy exactly when a test says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hypura_core::plan::Mode;
use hypura_engine::budget::SharedMemory;
use hypura_engine::media::{MediaFile, Modalities, marker};
use hypura_engine::request::{
    EmbedSink, Event, Finish, Options, Outcome, RequestError, RequestErrorKind, Sink, SpeculationStats,
    TokenInfo,
};
use hypura_engine::serve::{RunnerInfo, RunnerStatus};
use hypura_engine::stream::{ExpertMap, Lookups, StreamStats};
use hypura_engine::{ChatDelta, Grammar, SamplerOptions, Token};
use hypura_server::Failure;
use hypura_server::job::Format;
use hypura_server::models::PlanQuestion;
use hypura_server::models::backend::{
    AnswerParser, Backend, ChatInput, ContextWish, Engine, Fit, LoadHost, LoadProgress, LoadRequest, Plan,
    Prompt, PromptInput, RenderError, Renderer, Ticket,
};
use hypura_store::ModelEntry;

/// A gate that tests hold shut and open.
#[derive(Default)]
pub struct Gate {
    shut: Mutex<bool>,
    bell: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.bell.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            shut = self.bell.wait(shut).unwrap();
        }
    }
}

/// What the engine does next.
#[derive(Clone, Debug)]
pub enum Step {
    Text(&'static str),
    Fail(&'static str),
    /// Waits until [`Script::gate`] is open.
    Wait,
    /// Ends with this reason instead of "the model ended".
    Length,
    /// Ends because this stop string came.
    Stop(&'static str),
    /// So many tokens of the prompt are read, of so many.
    Progress(u32, u32),
}

/// What tests can set and see.
#[derive(Default)]
pub struct Script {
    pub answer: Mutex<Vec<Step>>,
    pub gate: Gate,
    pub load_gate: Gate,
    /// Shut, plans that were made are not told.
    pub plan_gate: Gate,
    /// Plans that were made.
    pub planned: AtomicUsize,
    /// Shut, models that are stopped keep their memory.
    pub stop_gate: Gate,
    pub fail_load: Mutex<Option<&'static str>>,
    pub fail_submit: Mutex<Option<Failure>>,
    /// What the template says to every conversation.
    pub fail_render: Mutex<Option<Failure>>,
    /// Requests that the engine is said to work on and to have waiting.
    pub load: Mutex<(usize, usize)>,
    /// Most tokens of context that there is memory for, where it is not 4096.
    pub context_most: Mutex<Option<u32>>,
    /// The context that models were loaded for.
    pub loaded_for: Mutex<Vec<Option<u32>>>,
    /// Most tokens of a text to embed, where it is not the context.
    pub embed_limit: Mutex<Option<u32>>,
    pub vectors: Mutex<Vec<Vec<f32>>>,
    /// Bytes of each model; others take 100.
    pub sizes: Mutex<HashMap<String, u64>>,
    pub loads: AtomicUsize,
    pub loading_now: AtomicUsize,
    pub most_loading: AtomicUsize,
    pub stops: AtomicUsize,
    pub cancelled: AtomicUsize,
    pub embedded: Mutex<Vec<Vec<Token>>>,
    pub requests: Mutex<Vec<Seen>>,
    pub chats: Mutex<Vec<ChatInput>>,
    /// Engines that were loaded before this was set are dead.
    pub dead_before: AtomicUsize,
    /// The memory that the engine loaded last may ask.
    pub memory: Mutex<Option<Arc<dyn SharedMemory>>>,
    /// What every status says.
    pub status: Mutex<RunnerStatus>,
    /// How often a status was asked for.
    pub statuses: AtomicUsize,
    /// How often a plan was made for somebody who only asks.
    pub plans: AtomicUsize,
    /// What the map of experts says.
    pub experts: Mutex<Option<ExpertMap>>,
    /// The media that were shown: the token −n stands for the nth of them.
    pub media: Mutex<Vec<MediaFile>>,
    /// Media files that were decoded.
    pub decoded: AtomicUsize,
    /// What the template says to conversations whose first message is an answer.
    pub fail_answer_first: Mutex<Option<Failure>>,
}

/// A request as the engine saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub text: String,
    /// Its pictures.
    pub media: Vec<MediaFile>,
    pub stops: Vec<String>,
    pub max_tokens: Option<u32>,
    pub context: ContextWish,
    pub sampling: SamplerOptions,
    pub grammar: Option<String>,
}

impl Script {
    pub fn answering(steps: &[Step]) -> Arc<Self> {
        let script = Self::default();
        *script.answer.lock().unwrap() = steps.to_vec();
        Arc::new(script)
    }

    pub fn set(&self, steps: &[Step]) {
        *self.answer.lock().unwrap() = steps.to_vec();
    }

    pub fn last(&self) -> Seen {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

/// Loads fake models.
pub struct FakeBackend(pub Arc<Script>);

struct FakePlan(Arc<Script>, u64);

impl Backend for FakeBackend {
    fn plan(&self, model: &ModelEntry, load_request: &LoadRequest, free_bytes: u64) -> Result<Fit, Failure> {
        self.0.loaded_for.lock().unwrap().push(load_request.context);
        let bytes = self.0.sizes.lock().unwrap().get(&model.name.to_string()).copied().unwrap_or(100);
        self.0.planned.fetch_add(1, Ordering::SeqCst);
        self.0.plan_gate.pass();
        if bytes <= free_bytes {
            return Ok(Fit::Resident(Box::new(FakePlan(Arc::clone(&self.0), bytes))));
        }
        if free_bytes >= bytes / 4 {
            return Ok(Fit::Streaming(Box::new(FakePlan(Arc::clone(&self.0), free_bytes))));
        }
        Ok(Fit::TooSmall(Failure::internal(format!("model needs {bytes} bytes"))))
    }

    fn advise(
        &self,
        model: &ModelEntry,
        budget_bytes: u64,
        question: &PlanQuestion,
    ) -> Result<String, Failure> {
        self.0.plans.fetch_add(1, Ordering::SeqCst);
        let bytes = question.memory_bytes.unwrap_or(budget_bytes);
        Ok(serde_json::json!({"model": model.name.to_string(), "budget_bytes": bytes}).to_string())
    }
}

impl Plan for FakePlan {
    fn bytes(&self) -> u64 {
        self.1
    }

    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure> {
        let script = self.0;
        let now = script.loading_now.fetch_add(1, Ordering::SeqCst) + 1;
        script.most_loading.fetch_max(now, Ordering::SeqCst);
        // What the first bytes of every model are.
        host.advanced(LoadProgress { read_bytes: self.1 / 4, total_bytes: self.1 });
        script.load_gate.pass();
        let goes_on = host.advanced(LoadProgress { read_bytes: self.1, total_bytes: self.1 });
        script.loading_now.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return Err(Failure::internal("loading was stopped"));
        }
        let number = script.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(why) = *script.fail_load.lock().unwrap() {
            return Err(Failure::internal(why));
        }
        let info = RunnerInfo {
            architecture: "fake".to_owned(),
            context_train: 4096,
            embedding_length: 4,
            embed_most: 4096,
            vocab_size: 256,
            bos: Some(1),
            eos: None,
            adds_bos: true,
            modalities: Modalities { pictures: true, sounds: true },
            is_embedding_model: false,
            parallel: 2,
            mode: Mode::FullResident,
            layers: 2,
            experts: 0,
            experts_used: 0,
            file_bytes: self.1 * 2,
            resident_bytes: self.1,
            reader: None,
            load_time: Duration::ZERO,
            notes: Vec::new(),
        };
        *script.memory.lock().unwrap() = Some(host.memory());
        Ok(Arc::new(FakeEngine { script, info, bytes: self.1, number }))
    }
}

pub struct FakeEngine {
    script: Arc<Script>,
    info: RunnerInfo,
    bytes: u64,
    number: usize,
}

struct FakeTicket(Arc<Script>, Arc<AtomicBool>);

impl Ticket for FakeTicket {}

impl Drop for FakeTicket {
    fn drop(&mut self) {
        if !self.1.swap(true, Ordering::SeqCst) {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// One token a character, and 1 in front.
fn tokens_of(text: &str, begin: bool) -> Vec<Token> {
    let begin = begin.then_some(1);
    begin.into_iter().chain(text.chars().map(|c| c as Token)).collect()
}

/// A conversation as text, with the markers of media in it.
fn text_of(chat: &ChatInput) -> String {
    let mut out = String::new();
    for message in &chat.messages {
        let text = |part: &serde_json::Value| part["text"].as_str().unwrap_or_default().to_owned();
        let content = match message["content"].as_array() {
            Some(parts) => parts.iter().map(text).collect(),
            None => message["content"].as_str().unwrap_or_default().to_owned(),
        };
        out.push_str(&format!("<{}>{content}", message["role"].as_str().unwrap_or_default()));
    }
    out + if chat.continues { "" } else { "<assistant>" }
}

impl FakeEngine {
    fn text(&self, chat: &ChatInput) -> Result<String, Failure> {
        self.script.chats.lock().unwrap().push(chat.clone());
        let begins_with_answer = chat.messages.first().is_some_and(|first| first["role"] == "assistant");
        let first = self.script.fail_answer_first.lock().unwrap().clone().filter(|_| begins_with_answer);
        let failure = self.script.fail_render.lock().unwrap().clone();
        failure.or(first).map_or_else(|| Ok(text_of(chat)), Err)
    }

    /// Tokens of a text, with a negative one for each medium.
    fn cut<'a>(&self, text: &str, media: impl Iterator<Item = &'a MediaFile>) -> PromptInput {
        let mut known = self.script.media.lock().unwrap();
        let mut pieces = text.split(marker());
        let mut tokens = tokens_of(pieces.next().unwrap_or_default(), true);
        for (piece, file) in pieces.zip(media) {
            known.push(Arc::clone(file));
            tokens.push(-(known.len() as Token));
            tokens.extend(tokens_of(piece, false));
        }
        tokens.into()
    }
}

struct FakeRenderer<'a> {
    engine: &'a FakeEngine,
    chat: &'a ChatInput,
    files: Vec<MediaFile>,
}

impl Renderer for FakeRenderer<'_> {
    fn render(&self, messages: &[usize]) -> Result<Prompt, RenderError> {
        let chat = ChatInput {
            messages: messages.iter().map(|at| self.chat.messages[*at].clone()).collect(),
            ..self.chat.clone()
        };
        let text = self.engine.text(&chat).map_err(|failure| match failure.status.is_server_error() {
            true => RenderError::Template(failure),
            false => RenderError::Other(failure),
        })?;
        let which = self.chat.media_of(messages);
        Ok(Prompt {
            input: self.engine.cut(&text, which.iter().map(|at| &self.files[*at])),
            stops: vec!["<end>".to_owned()],
            grammar: self.engine.grammar(&chat.format).map_err(RenderError::Other)?,
            parser: Some(Box::new(FakeParser::default())),
        })
    }
}

impl Engine for FakeEngine {
    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn experts(&self) -> Option<ExpertMap> {
        self.script.experts.lock().unwrap().clone()
    }

    fn status(&self) -> RunnerStatus {
        self.script.statuses.fetch_add(1, Ordering::SeqCst);
        let mut status = self.script.status.lock().unwrap().clone();
        let (active, queued) = *self.script.load.lock().unwrap();
        status.context_length = 4096;
        status.memory_bytes = self.bytes;
        status.weights_on_disk_bytes = self.info.file_bytes - self.bytes;
        status.active = active.max(status.active);
        status.queued = queued.max(status.queued);
        status
    }

    fn is_alive(&self) -> bool {
        self.number >= self.script.dead_before.load(Ordering::SeqCst)
    }

    fn context_for(&self, num_ctx: Option<u32>) -> u32 {
        num_ctx.unwrap_or(4096).min(self.script.context_most.lock().unwrap().unwrap_or(4096))
    }

    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        self.script.embed_limit.lock().unwrap().unwrap_or_else(|| self.context_for(num_ctx))
    }

    fn renderer<'a>(&'a self, chat: &'a ChatInput) -> Result<Box<dyn Renderer + 'a>, Failure> {
        let files: Vec<MediaFile> = chat.media.iter().flatten().cloned().collect();
        self.script.decoded.fetch_add(files.len(), Ordering::SeqCst);
        Ok(Box::new(FakeRenderer { engine: self, chat, files }))
    }

    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure> {
        Ok(self.text(chat)?.replace(marker(), "#"))
    }

    fn tokenize(&self, text: &str, begin: bool, _: bool) -> Vec<Token> {
        tokens_of(text, begin)
    }

    fn tokenize_with_media(&self, text: &str, media: &[MediaFile]) -> Result<PromptInput, Failure> {
        Ok(self.cut(text, media.iter()))
    }

    fn detokenize(&self, tokens: &[Token]) -> String {
        let character = |token: &Token| if *token < 0 { Some('#') } else { char::from_u32(*token as u32) };
        tokens.iter().filter_map(character).filter(|c| *c != '\u{1}').collect()
    }

    fn infill(&self, before: &str, after: &str) -> Option<Vec<Token>> {
        Some(tokens_of(&format!("<pre>{before}<suf>{after}<mid>"), true))
    }

    fn grammar(&self, format: &Format) -> Result<Option<Grammar>, Failure> {
        match format {
            Format::Free => Ok(None),
            Format::Json => Ok(Some(Grammar::user("json"))),
            Format::Schema(schema) if schema["type"] == "nonsense" => {
                Err(Failure::bad_request("invalid schema"))
            }
            Format::Schema(schema) => Ok(Some(Grammar::user(schema.to_string()))),
        }
    }

    fn submit(
        &self,
        prompt: PromptInput,
        options: Options,
        mut sink: Sink,
    ) -> Result<Box<dyn Ticket>, Failure> {
        if let Some(failure) = self.script.fail_submit.lock().unwrap().clone() {
            return Err(failure);
        }
        let known = self.script.media.lock().unwrap().clone();
        let medium = |token: &Token| usize::try_from(-token - 1).ok().map(|at| Arc::clone(&known[at]));
        self.script.requests.lock().unwrap().push(Seen {
            text: self.detokenize(&prompt.tokens),
            media: prompt.tokens.iter().filter_map(medium).collect(),
            stops: options.stops.clone(),
            max_tokens: options.max_tokens,
            context: ContextWish { now: options.num_ctx, most: options.num_ctx_most },
            sampling: options.sampler.clone(),
            grammar: options.grammar.as_ref().map(|grammar| grammar.gbnf.clone()),
        });
        let steps = self.script.answer.lock().unwrap().clone();
        let over = Arc::new(AtomicBool::new(false));
        let (script, done) = (Arc::clone(&self.script), Arc::clone(&over));
        let prompt_tokens = prompt.tokens.len();
        std::thread::spawn(move || {
            if play(&script, steps, options.logprobs, prompt_tokens, &mut sink) {
                done.store(true, Ordering::SeqCst);
            }
        });
        Ok(Box::new(FakeTicket(Arc::clone(&self.script), over)))
    }

    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure> {
        let given = self.script.vectors.lock().unwrap().clone();
        let vectors = inputs
            .iter()
            .enumerate()
            .map(|(at, _)| given.get(at).cloned().unwrap_or_else(|| vec![3.0, 4.0, 0.0, 0.0]));
        let vectors = vectors.collect();
        *self.script.embedded.lock().unwrap() = inputs;
        sink(Ok(vectors));
        Ok(Box::new(FakeTicket(Arc::clone(&self.script), Arc::new(AtomicBool::new(true)))))
    }

    fn stop(&self, _: bool) {
        self.script.stop_gate.pass();
        self.script.stops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Plays the answer. True when it came to its end.
fn play(script: &Script, steps: Vec<Step>, logprobs: Option<u32>, prompt: usize, sink: &mut Sink) -> bool {
    let started = Event::Started { prompt_tokens: prompt as u32, reused_tokens: 2, queued: Duration::ZERO };
    if !sink(started) {
        return false;
    }
    let mut tokens = Vec::new();
    let mut finish = (Finish::End, None);
    for step in steps {
        match step {
            Step::Wait => script.gate.pass(),
            Step::Length => finish = (Finish::Length, None),
            Step::Stop(text) => finish = (Finish::StopString, Some(text.to_owned())),
            Step::Progress(processed, total) => {
                let elapsed = Duration::from_millis(4);
                sink(Event::Progress { processed, total, reused: 2, elapsed });
            }
            Step::Fail(why) => {
                let kind = RequestErrorKind::Engine;
                sink(Event::Failed(RequestError { kind, message: why.to_owned() }));
                return true;
            }
            Step::Text(text) => {
                let token = 100 + tokens.len() as Token;
                tokens.push(token);
                let token = TokenInfo {
                    token,
                    bytes: text.as_bytes().to_vec(),
                    logprob: logprobs.map(|_| -0.5),
                    top: (0..logprobs.unwrap_or(0)).map(|_| (120, b"x".to_vec(), -1.5)).collect(),
                };
                if !sink(Event::Text { text: text.to_owned(), tokens: vec![token] }) {
                    return false;
                }
            }
        }
    }
    sink(Event::Done(Box::new(outcome(prompt, tokens, finish))))
}

fn outcome(prompt: usize, tokens: Vec<Token>, (finish, stop): (Finish, Option<String>)) -> Outcome {
    let decode = Lookups { hits: 3, misses: 1, ..Lookups::default() };
    Outcome {
        finish,
        prompt_tokens: prompt,
        reused_tokens: 2,
        tokens,
        stop,
        prefill: Duration::from_millis(3),
        first_token: Duration::from_millis(3),
        token_times: vec![Duration::from_millis(5)],
        total: Duration::from_millis(8),
        prefill_stats: StreamStats::default(),
        decode_stats: StreamStats { decode, bytes_read: 7, ..StreamStats::default() },
        speculation: SpeculationStats::default(),
        logits_hash: None,
    }
}

/// `<think>…</think>` is reasoning, `<call>name {…}</call>` a call; tags come whole in one text.
#[derive(Default)]
struct FakeParser {
    thinking: bool,
    calls: usize,
}

impl AnswerParser for FakeParser {
    fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        if text == "<think>" || text == "</think>" {
            self.thinking = text == "<think>";
            return Vec::new();
        }
        if let Some(call) = text.strip_prefix("<call>") {
            let (name, arguments) = call.split_once(' ').unwrap();
            let index = self.calls;
            self.calls += 1;
            return vec![ChatDelta::ToolCall {
                index,
                id: format!("call_{index:08}"),
                name: name.to_owned(),
                arguments_json: arguments.to_owned(),
            }];
        }
        let text = text.to_owned();
        vec![if self.thinking { ChatDelta::Reasoning(text) } else { ChatDelta::Content(text) }]
    }

    fn finish(&mut self, _: bool) -> Vec<ChatDelta> {
        Vec::new()
    }
}
