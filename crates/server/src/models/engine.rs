//! The engine behind the server's traits: plans within what memory is left, runs requests on a [`Runner`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypura_core::audit::Expected;
use hypura_core::gguf::Metadata;
use hypura_core::plan::{CostInput, Mode, PoolId};
use hypura_core::profile::Profile;
use hypura_engine::error::LoadError;
use hypura_engine::load::{self, Drafting, LoadSettings, Planned};
use hypura_engine::media::prompt::DecodedMedia;
use hypura_engine::media::{MediaFile, MediaPromptError, marker};
use hypura_engine::profile::{Need, cache_folder, known};
use hypura_engine::request::{EmbedSink, Event, Options, RequestError, RequestErrorKind, Sink, SubmitError};
use hypura_engine::serve::{Runner, RunnerInfo, RunnerSettings, RunnerStatus};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::ExpertMap;
use hypura_engine::{ChatError, ChatParser, ChatPrompt, ChatRequest, Grammar, ReasoningSplit, Token};
use hypura_store::{Capability, ModelEntry, Store};
use serde_json::Value;

use super::advice::{PlanQuestion, advise_here};
use super::backend::{
    Backend, ChatInput, Engine, Fit, LoadHost, LoadProgress, LoadRequest, Plan, Prompt, PromptInput,
    RenderError, Renderer, Ticket,
};
use super::forecast::Forecast;
use super::order::LoadOrder;
use super::store_catalog::failure_of_store;
use crate::job::{Format, Think};
use crate::{Failure, without_paths};

/// Conversations that a model remembers beyond those that run. They live in the cells that running ones
/// leave, so that they take nothing, and the oldest leaves when cells run out.
const REMEMBERED: u32 = 7;

/// Loads models with the engine, in this process.
pub struct EngineBackend {
    /// Opens their files.
    pub store: Arc<Store>,
    /// How; budget and sequences are set for each model, and the context where a request asks for one.
    pub settings: LoadSettings,
    /// How requests run.
    pub runner: RunnerSettings,
}

impl Backend for EngineBackend {
    fn plan(&self, model: &ModelEntry, load_request: &LoadRequest, free_bytes: u64) -> Result<Fit, Failure> {
        plan(self.order(model, load_request, free_bytes)?)
    }

    fn advise(
        &self,
        model: &ModelEntry,
        budget_bytes: u64,
        question: &PlanQuestion,
    ) -> Result<String, Failure> {
        advise_here(&self.advice_order(model, budget_bytes, question)?, question)
    }

    fn profile(&self) -> Option<Profile> {
        let places = self.store.places();
        let target = places.existing().first().map(|(_, folder)| (*folder).to_owned());
        self.profile_of(&target.unwrap_or_else(|| PathBuf::from(".")))
    }
}

/// What loading a model as ordered would be like.
///
/// # Errors
/// As [`Backend::plan`].
pub fn plan(order: LoadOrder) -> Result<Fit, Failure> {
    let profile = order.profile();
    let LoadOrder { model, path, mut settings, runner, needs_template, .. } = order;
    if !settings.model.workers.is_empty() {
        settings.model.speeds.clone_from(&profile);
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let failed = |error: &LoadError| {
        tracing::debug!(%model, %error, "cannot load");
        load_failure(&model, error, &folder)
    };
    let source = ModelSource::open(&path).map_err(|error| failed(&error))?;
    let planned = match load::prepare(source, settings) {
        Ok(planned) => planned,
        Err(error @ LoadError::Plan(_)) => return Ok(Fit::TooSmall(failed(&error))),
        Err(error) => return Err(failed(&error)),
    };
    let resident = planned.plan.mode() == Mode::FullResident;
    let of_profile = |profile| {
        let profile = planned.with_workers_of(profile);
        Forecast::of(&planned.source.shape, &planned.layout, &planned.plan, &profile)
    };
    let forecast = profile.as_ref().map(of_profile);
    // What workers do says little about this machine.
    let alone = profile.as_ref().filter(|_| planned.workers.is_empty());
    let expected = alone.and_then(|profile| expected(&planned, profile));
    let plan = Box::new(EnginePlan { planned, runner, model, needs_template, folder, forecast, expected });
    Ok(if resident { Fit::Resident(plan) } else { Fit::Streaming(plan) })
}

impl EngineBackend {
    /// What loading this model within `free_bytes` takes.
    ///
    /// # Errors
    /// When the store cannot make its file openable.
    pub fn order(
        &self,
        model: &ModelEntry,
        load_request: &LoadRequest,
        free_bytes: u64,
    ) -> Result<LoadOrder, Failure> {
        let path = self.store.open_path(model).map_err(|error| failure_of_store(&error))?;
        let default = &self.settings.model;
        let mut speculation = self.settings.tuning.speculation.clone();
        if model.draft.is_some() && speculation.drafting == Drafting::Requested {
            speculation.drafting = Drafting::Auto;
        }
        let settings = self
            .settings
            .clone()
            .with_budget_bytes(free_bytes)
            .with_context(load_request.context_or(default.context))
            .with_context_may_grow(default.context_may_grow && load_request.may_grow)
            // A context that was asked for is a preference: it shrinks before the model does not load at all.
            .with_least_context(Some(default.context))
            .with_sequences(self.sequences(model))
            .with_idle_sequences(REMEMBERED)
            .with_projector(model.usable_projector().cloned())
            .with_draft(self.draft(model))
            .with_draft_is_optional(true)
            .with_speculation(speculation);
        let profile = self.profile_of(&path);
        Ok(LoadOrder {
            profile: profile.and_then(|profile| serde_json::to_string(&profile).ok()),
            model: model.name.to_string(),
            path,
            settings,
            runner: self.runner.clone(),
            needs_template: model.can(Capability::Completion) && model.own_jinja().is_none(),
        })
    }

    /// What planning this model as asked takes.
    ///
    /// # Errors
    /// As [`Self::order`].
    pub fn advice_order(
        &self,
        model: &ModelEntry,
        budget_bytes: u64,
        question: &PlanQuestion,
    ) -> Result<LoadOrder, Failure> {
        let load_request = LoadRequest::asked(question.context_tokens);
        self.order(model, &load_request, question.memory_bytes.unwrap_or(budget_bytes))
    }

    /// What was measured of this machine and the disk that `target` is on.
    fn profile_of(&self, target: &Path) -> Option<Profile> {
        let need = Need { target, threads: self.settings.tuning.threads, disk: true };
        known(&cache_folder()?, &need)
    }

    /// The model that drafts for this one: not for itself, and not where nothing is written.
    fn draft(&self, model: &ModelEntry) -> Option<PathBuf> {
        let draft = model.draft.clone().or_else(|| self.settings.model.draft.clone())?;
        let is_other = !model.files.iter().any(|file| is_same_file(file, &draft));
        Some(draft).filter(|_| is_other && model.can(Capability::Completion))
    }

    /// Sequences with a context each. A model that only embeds needs one: texts go through one graph after
    /// another, several in each, whoever asked for them.
    fn sequences(&self, model: &ModelEntry) -> u32 {
        if !model.can(Capability::Completion) {
            return 1;
        }
        u32::try_from(self.runner.parallel).unwrap_or(u32::MAX).max(1)
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    place(one) == place(other)
}

fn load_failure(model: &str, error: &LoadError, folder: &Path) -> Failure {
    Failure::internal(format!("cannot load model '{model}': {}", public(error, folder)))
}

/// What a client may read of an error about files in `folder`, which may be a relative one.
fn public(error: &dyn std::error::Error, folder: &Path) -> String {
    let text = error.to_string();
    let folder = format!("{}/", folder.display());
    let text = if folder.len() > 1 { text.replace(&folder, "") } else { text };
    without_paths(&text)
}

/// Whether a file has a chat template.
fn has_template(metadata: &Metadata) -> bool {
    let named = |key| metadata.str(key).ok().flatten().is_some_and(|template| !template.is_empty());
    named("tokenizer.chat_template") || named("tokenizer.chat_template.tool_use")
}

struct EnginePlan {
    planned: Planned,
    runner: RunnerSettings,
    model: String,
    /// Its own template would be used, where it has one.
    needs_template: bool,
    folder: PathBuf,
    forecast: Option<Forecast>,
    expected: Option<Expected>,
}

/// What the profile alone predicts of the usual answer, where this machine's processor and disk decide.
fn expected(planned: &Planned, profile: &Profile) -> Option<Expected> {
    let Planned { source, layout, plan, gpu, workers, .. } = planned;
    let shape = &source.shape;
    let workload = Forecast::workload(shape, plan);
    let is_usual = gpu.is_none() && workers.is_empty();
    Expected::of(&CostInput { shape, layout, plan, profile, workload }).filter(|_| is_usual)
}

impl Plan for EnginePlan {
    fn bytes(&self) -> u64 {
        // What is shared between models is the memory of the host.
        self.planned.plan.ledger.pool_bytes(PoolId::HOST)
    }

    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure> {
        let failed = |error: &LoadError| load_failure(&self.model, error, &self.folder);
        // What a template can do is found out by running it, which may never end: not while others wait for
        // this load.
        let lacks_template = self.needs_template && !has_template(&self.planned.source.metadata);
        let mut watch = |read_bytes, total_bytes| host.advanced(LoadProgress { read_bytes, total_bytes });
        let loaded = load::load_watched(self.planned, &mut watch).map_err(|error| failed(&error))?;
        let settings = RunnerSettings { memory: Some(host.memory()), ..self.runner };
        let runner = Runner::start(loaded, settings).map_err(|error| failed(&error))?;
        let (folder, forecast, expected) = (self.folder, self.forecast, self.expected);
        let told = AtomicBool::new(false);
        Ok(Arc::new(RunnerEngine { folder, runner, lacks_template, told, forecast, expected }))
    }
}

/// A runner as an [`Engine`].
struct RunnerEngine {
    runner: Runner,
    /// Where its files are.
    folder: PathBuf,
    lacks_template: bool,
    /// What is to be told of its template was told.
    told: AtomicBool,
    forecast: Option<Forecast>,
    expected: Option<Expected>,
}

impl Engine for RunnerEngine {
    fn info(&self) -> &RunnerInfo {
        self.runner.info()
    }

    fn status(&self) -> RunnerStatus {
        self.runner.status()
    }

    fn forecast(&self) -> Option<Forecast> {
        self.forecast
    }

    fn expected(&self) -> Option<Expected> {
        self.expected.clone()
    }

    fn experts(&self) -> Option<ExpertMap> {
        self.runner.experts()
    }

    fn is_alive(&self) -> bool {
        self.runner.is_alive()
    }

    fn lacks_template(&self) -> bool {
        self.lacks_template
    }

    fn context_for(&self, num_ctx: Option<u32>) -> u32 {
        self.runner.context_for(num_ctx)
    }

    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        let most = u32::try_from(self.runner.info().embed_most).unwrap_or(u32::MAX);
        num_ctx.map_or(most, |wanted| wanted.min(most))
    }

    fn renderer<'a>(&'a self, chat: &'a ChatInput) -> Result<Box<dyn Renderer + 'a>, Failure> {
        let files: Vec<&[u8]> = chat.media.iter().flatten().map(|file| file.as_slice()).collect();
        let media = self.runner.text().decode(&files).map_err(|error| see_failure(&error))?;
        Ok(Box::new(RunnerRenderer { engine: self, chat, media }))
    }

    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure> {
        let prompt = self.apply(chat, chat.messages.clone()).map_err(|error| chat_failure(&error))?;
        Ok(with_tags(&prompt.text))
    }

    fn tokenize(&self, text: &str, begin: bool, control: bool) -> Vec<Token> {
        self.runner.text().tokenize(text, begin, control)
    }

    fn tokenize_with_media(&self, text: &str, media: &[MediaFile]) -> Result<PromptInput, Failure> {
        let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
        let seen = self.runner.text().tokenize_text_with_media(text, &media);
        Ok(seen.map_err(|error| see_failure(&error))?.into())
    }

    fn detokenize(&self, tokens: &[Token]) -> String {
        self.runner.text().detokenize(tokens)
    }

    fn infill(&self, before: &str, after: &str) -> Option<Vec<Token>> {
        let text = self.runner.text();
        let (prefix, suffix, middle) = text.infill()?;
        let mut tokens = text.tokenize("", true, false);
        tokens.push(prefix);
        tokens.extend(text.tokenize(before, false, false));
        tokens.push(suffix);
        tokens.extend(text.tokenize(after, false, false));
        tokens.push(middle);
        Some(tokens)
    }

    fn grammar(&self, format: &Format) -> Result<Option<Grammar>, Failure> {
        let Some(schema) = schema_of(format) else { return Ok(None) };
        self.runner.text().check_schema(&schema).map_err(|error| chat_failure(&error))?;
        Ok(Some(Grammar::json_schema(schema)))
    }

    fn submit(
        &self,
        prompt: PromptInput,
        options: Options,
        mut sink: Sink,
    ) -> Result<Box<dyn Ticket>, Failure> {
        let folder = self.folder.clone();
        let sink = Box::new(move |event| {
            sink(match event {
                Event::Failed(error) => Event::Failed(public_error(error, &folder)),
                event => event,
            })
        });
        let handle = self.runner.submit_cut(prompt.into_media_prompt(), options, sink).map_err(refused)?;
        Ok(Box::new(handle))
    }

    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure> {
        let folder = self.folder.clone();
        let sink = Box::new(move |result: Result<_, _>| {
            sink(result.map_err(|error| public_error(error, &folder)));
        });
        let handle = self.runner.embed(inputs, sink).map_err(refused)?;
        Ok(Box::new(handle))
    }

    fn stop(&self, drain: bool) {
        self.runner.stop(drain);
    }
}

impl RunnerEngine {
    fn apply(&self, chat: &ChatInput, messages: Vec<Value>) -> Result<ChatPrompt, ChatError> {
        let request = chat_request(chat, messages);
        let text = self.runner.text();
        if let Some(template) = &chat.template {
            return text.apply_template(template, &request);
        }
        let applied = text.apply(&request);
        // That there is none was told when the model was loaded.
        let note = text.template_note().filter(|_| !self.lacks_template);
        if let Some(note) = note.filter(|_| !self.told.swap(true, Ordering::Relaxed)) {
            tracing::warn!("{note}");
        }
        applied
    }
}

fn chat_request(chat: &ChatInput, messages: Vec<Value>) -> ChatRequest {
    let (enable_thinking, reasoning_effort) = match &chat.think {
        None => (None, None),
        Some(Think::Switch(on)) => (Some(*on), None),
        Some(Think::Level(level)) => (Some(true), Some(level.clone())),
    };
    ChatRequest {
        messages_json: Value::Array(messages).to_string(),
        tools_json: (!chat.tools.is_empty()).then(|| Value::Array(chat.tools.clone()).to_string()),
        tool_choice: chat.tool_choice,
        parallel_tool_calls: chat.parallel_tool_calls,
        json_schema: schema_of(&chat.format),
        enable_thinking,
        reasoning_effort,
        continue_final_message: chat.continues,
        ..ChatRequest::default()
    }
}

/// Tries a conversation's own template without a model. Gives the bytes of the text.
///
/// # Errors
/// 400: what the template says.
pub fn try_template(chat: ChatInput, (bos, eos): (&str, &str)) -> Result<usize, Failure> {
    let request = chat_request(&chat, chat.messages.clone());
    let template = chat.template.unwrap_or_default();
    hypura_engine::try_template(&template, (bos, eos), &request)
        .map_err(|error| Failure::bad_request(without_paths(&error.to_string())))
}

/// A conversation and its decoded media.
struct RunnerRenderer<'a> {
    engine: &'a RunnerEngine,
    chat: &'a ChatInput,
    /// Of all messages, one after the other.
    media: DecodedMedia,
}

impl Renderer for RunnerRenderer<'_> {
    fn render(&self, messages: &[usize]) -> Result<Prompt, RenderError> {
        let chosen = messages.iter().filter_map(|at| self.chat.messages.get(*at).cloned()).collect();
        let prompt = self.engine.apply(self.chat, chosen).map_err(|error| match error {
            ChatError::Template(_) | ChatError::Refused(_) => RenderError::Template(chat_failure(&error)),
            _ => RenderError::Other(chat_failure(&error)),
        })?;
        let which = self.chat.media_of(messages);
        let input = self.engine.runner.text().see_decoded(&prompt, &self.media, &which);
        let input = input.map_err(|error| RenderError::Other(see_failure(&error)))?;
        let parser = ChatParser::new(&prompt, ReasoningSplit::Separate);
        let input = input.into();
        Ok(Prompt { input, stops: prompt.stops, grammar: prompt.grammar, parser: Some(Box::new(parser)) })
    }
}

fn see_failure(error: &MediaPromptError) -> Failure {
    match error {
        MediaPromptError::Unloaded => Failure::internal(error.to_string()),
        error => Failure::bad_request(without_paths(&error.to_string())),
    }
}

/// A rendered prompt for people: media as Ollama writes them.
fn with_tags(text: &str) -> String {
    let mut pieces = text.split(marker());
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.enumerate().fold(first, |text, (at, piece)| format!("{text}[img-{at}]{piece}"))
}

/// What a template or a schema says: a template that fails is a 500, as in Ollama; one that refuses the
/// conversation in its own words, and everything else, is the request's fault.
fn chat_failure(error: &ChatError) -> Failure {
    let message = without_paths(&error.to_string());
    match error {
        ChatError::Template(_) => Failure::internal(message),
        ChatError::Refused(_) | ChatError::Input(_) | ChatError::Schema(_) | ChatError::Grammar(_) => {
            Failure::bad_request(message)
        }
    }
}

fn schema_of(format: &Format) -> Option<String> {
    match format {
        Format::Free => None,
        Format::Json => Some(r#"{"type":"object"}"#.to_owned()),
        Format::Schema(schema) => Some(schema.to_string()),
    }
}

fn refused(error: SubmitError) -> Failure {
    match error {
        SubmitError::QueueFull(_) => Failure::busy(),
        SubmitError::Stopped => {
            let message = "the model is being unloaded, please try again";
            Failure::new(http::StatusCode::SERVICE_UNAVAILABLE, message)
        }
        SubmitError::PromptTooLong { prompt, context } => Failure::prompt_too_long(prompt, context, ""),
        other => Failure::bad_request(other.to_string()),
    }
}

/// A failure as a client may read it; the log has it whole.
fn public_error(error: RequestError, folder: &Path) -> RequestError {
    if error.kind != RequestErrorKind::Request {
        tracing::error!(%error, "a generation failed");
    }
    RequestError { message: public(&error, folder), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_a_client_reads_the_file_but_not_its_folder() {
        let gone = |path: &str| LoadError::Gguf {
            path: path.into(),
            source: hypura_core::gguf::GgufError::NotGguf { found: *b"abcd" },
        };
        for folder in ["/srv/My Models", "My Models", "a/b c", "/"] {
            let told = public(&gone(&format!("{folder}/x y.gguf")), Path::new(folder));
            assert!(told.starts_with("x y.gguf: "), "{folder}: {told}");
        }
    }

    #[test]
    fn errors_a_template_that_fails_is_a_500_and_a_bad_schema_a_400() {
        let status = |error| chat_failure(&error).status.as_u16();
        assert_eq!(status(ChatError::Template("roles must alternate".into())), 500);
        assert_eq!(status(ChatError::Refused("roles must alternate".into())), 400);
        assert_eq!(status(ChatError::Schema("x".into())), 400);
        assert_eq!(status(ChatError::Input("x".into())), 400);
        assert_eq!(status(ChatError::Grammar("x".into())), 400);
    }
}
