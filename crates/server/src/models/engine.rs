//! The engine behind the server's traits: plans within what memory is left, runs requests on a [`Runner`].

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypura_core::plan::Mode;
use hypura_engine::error::LoadError;
use hypura_engine::load::{self, LoadSettings, Planned};
use hypura_engine::media::{MediaFile, MediaPrompt, PromptMedia, SeeError, marker};
use hypura_engine::request::{Options, RequestError, RequestErrorKind, SubmitError};
use hypura_engine::serve::{RequestHandle, Runner, RunnerSettings, SlotStatus};
use hypura_engine::source::ModelSource;
use hypura_engine::{
    ChatError, ChatParser, ChatPrompt, ChatRequest, Grammar, ReasoningSplit, SamplerOptions,
    ToolChoice as EngineToolChoice, json_schema_to_grammar,
};
use hypura_store::{Capability, ModelEntry, Store};
use serde_json::Value;

use super::backend::{
    Backend, ChatInput, EmbedSink, Engine, EngineFacts, EngineHeld, EngineRequest, EngineSequence,
    EngineStatus, EngineTotals, EventSink, Fit, GrammarHandle, LoadHost, LoadWish, MediaHandle, Plan, Prompt,
    Sampling, Ticket, Token,
};
use super::engine_answer::{Parser, event_of};
use super::store_catalog::failure_of_store;
use crate::job::{Format, Think, ToolChoice};
use crate::{Failure, without_paths};

/// Conversations that a model remembers beyond those that run. They live in the cells that running ones leave, so that they
/// take nothing, and the oldest leaves when cells run out.
const REMEMBERED: u32 = 7;

/// Loads models with the engine.
pub struct EngineBackend {
    /// Opens their files.
    pub store: Arc<Store>,
    /// How; budget, context and sequences are set for each model.
    pub settings: LoadSettings,
    /// Context when no request asks for another, in tokens.
    pub default_context: u32,
    /// How requests run.
    pub runner: RunnerSettings,
}

impl Backend for EngineBackend {
    fn plan(&self, model: &ModelEntry, wish: &LoadWish, free_bytes: u64) -> Result<Fit, Failure> {
        let path = self.store.open_path(model).map_err(|error| failure_of_store(&error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let failed = |error: &LoadError| {
            tracing::debug!(model = %model.name, %error, "cannot load");
            load_failure(&model.name.to_string(), error, folder)
        };
        let settings = self
            .settings
            .clone()
            .with_budget_bytes(free_bytes)
            .with_context(wish.context.unwrap_or(self.default_context).max(1))
            // A context that was asked for is a wish: it shrinks before the model does not load at all.
            .with_least_context(Some(self.default_context))
            .with_sequences(u32::try_from(self.runner.parallel).unwrap_or(u32::MAX).max(1))
            .with_idle_sequences(REMEMBERED)
            .with_projector(model.usable_projector().cloned());
        let source = ModelSource::open(&path).map_err(|error| failed(&error))?;
        let planned = match load::prepare(source, settings) {
            Ok(planned) => planned,
            Err(error @ LoadError::Plan(_)) => return Ok(Fit::TooSmall(failed(&error))),
            Err(error) => return Err(failed(&error)),
        };
        let resident = planned.plan.mode() == Mode::FullResident;
        let plan = Box::new(EnginePlan {
            planned,
            runner: self.runner.clone(),
            model: model.name.to_string(),
            needs_template: model.can(Capability::Completion) && model.own_jinja().is_none(),
            folder: folder.to_owned(),
        });
        Ok(if resident { Fit::Resident(plan) } else { Fit::Streaming(plan) })
    }
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

struct EnginePlan {
    planned: Planned,
    runner: RunnerSettings,
    model: String,
    /// Its own template would be used, where it has one.
    needs_template: bool,
    folder: PathBuf,
}

impl Plan for EnginePlan {
    fn bytes(&self) -> u64 {
        self.planned.plan.total_bytes()
    }

    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure> {
        let failed = |error: &LoadError| load_failure(&self.model, error, &self.folder);
        let loaded =
            load::load_watched(self.planned, &mut |_, _| host.advanced()).map_err(|error| failed(&error))?;
        let settings = RunnerSettings { memory: Some(host.memory()), ..self.runner };
        let runner = Runner::start(loaded, settings).map_err(|error| failed(&error))?;
        for note in &runner.info().notes {
            tracing::info!(model = %self.model, note, "loaded");
        }
        if self.needs_template && !runner.text().caps().explicit {
            tracing::warn!(
                model = %self.model,
                "the file has no chat template: ChatML is assumed, which the model may not know; a Modelfile with \
                 TEMPLATE in Jinja gives it the right one"
            );
        }
        Ok(Arc::new(RunnerEngine { facts: facts(&runner), folder: self.folder, runner }))
    }
}

fn facts(runner: &Runner) -> EngineFacts {
    let info = runner.info();
    let caps = runner.text().caps();
    EngineFacts {
        context_train: info.context_train,
        embedding_length: u32::try_from(info.embedding_length).unwrap_or(u32::MAX),
        tools: caps.tools,
        thinking: caps.thinking,
        infill: runner.text().infill().is_some(),
        file_bytes: info.file_bytes,
        mode: info.mode.name().to_owned(),
        parallel: count(info.parallel),
    }
}

/// A runner as an [`Engine`].
struct RunnerEngine {
    runner: Runner,
    facts: EngineFacts,
    /// Where its files are.
    folder: PathBuf,
}

/// Cancels its request when it is dropped.
struct RunnerTicket(#[expect(dead_code, reason = "held for its drop")] RequestHandle);
impl Ticket for RunnerTicket {}

impl Engine for RunnerEngine {
    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    fn status(&self) -> EngineStatus {
        let status = self.runner.status();
        let totals = &status.totals;
        let stream = &totals.stream;
        EngineStatus {
            context_length: status.context_length,
            host_bytes: status.memory_bytes,
            device_bytes: 0,
            disk_bytes: status.weights_on_disk_bytes,
            active: count(status.active),
            queued: count(status.queued),
            sequences: status.slots.iter().map(sequence_of).collect(),
            held: EngineHeld {
                pins: count(status.held.pins),
                loading_slots: count(status.held.loading_slots),
                cells: count(status.held.cells),
                reads: count(status.held.reads),
            },
            totals: EngineTotals {
                prompt_tokens: totals.prompt_tokens.saturating_sub(totals.reused_tokens),
                reused_tokens: totals.reused_tokens,
                prompt_time: totals.prefill,
                generated_tokens: totals.generated_tokens,
                generated_time: totals.decode,
                decodes: totals.steps,
                bytes_read: stream.bytes_read,
                hits: stream.decode.hits + stream.prefill.hits,
                misses: stream.decode.misses + stream.prefill.misses,
                stalled: stream.read_stall,
                bytes_shared: totals.saved_bytes,
            },
        }
    }

    fn is_alive(&self) -> bool {
        self.runner.is_alive()
    }

    fn context_for(&self, num_ctx: Option<u32>) -> u32 {
        self.runner.context_for(num_ctx)
    }

    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        let most = u32::try_from(self.runner.info().embed_most).unwrap_or(u32::MAX);
        num_ctx.map_or(most, |wanted| wanted.min(most))
    }

    fn render(&self, chat: &ChatInput) -> Result<Prompt, Failure> {
        let prompt = self.apply(chat)?;
        let parser = ChatParser::new(&prompt, ReasoningSplit::Separate);
        let media: Vec<&[u8]> = chat.media.iter().flatten().map(|file| file.as_slice()).collect();
        let (tokens, media) = if media.is_empty() {
            (self.runner.text().tokenize_chat(&prompt), None)
        } else {
            seen(self.runner.text().see_chat(&prompt, &media))?
        };
        Ok(Prompt {
            tokens,
            media,
            stops: prompt.stops.clone(),
            grammar: prompt.grammar.map(|grammar| Box::new(grammar) as GrammarHandle),
            parser: Some(Box::new(Parser(parser))),
        })
    }

    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure> {
        Ok(with_tags(&self.apply(chat)?.text))
    }

    fn tokenize(&self, text: &str, begin: bool, control: bool) -> Vec<Token> {
        self.runner.text().tokenize(text, begin, control)
    }

    fn see(&self, text: &str, media: &[MediaFile]) -> Result<(Vec<Token>, Option<MediaHandle>), Failure> {
        let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
        seen(self.runner.text().see_text(text, &media))
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

    fn grammar(&self, format: &Format) -> Result<Option<GrammarHandle>, Failure> {
        let Some(schema) = schema_of(format) else { return Ok(None) };
        let gbnf =
            json_schema_to_grammar(&schema).map_err(|error| Failure::bad_request(error.to_string()))?;
        Ok(Some(Box::new(Grammar { gbnf, ..Grammar::default() })))
    }

    fn submit(&self, request: EngineRequest, sink: EventSink) -> Result<Box<dyn Ticket>, Failure> {
        let grammar = request.grammar.and_then(|grammar| grammar.downcast::<Grammar>().ok());
        let options = Options {
            max_tokens: request.max_tokens,
            sampler: sampler(&request.sampling),
            grammar: grammar.map(|grammar| *grammar),
            stops: request.stops,
            logprobs: request.logprobs,
            num_ctx: request.num_ctx,
            shift: request.shift,
            ignore_end: false,
            special_pieces: request.special_pieces,
            progress: true,
        };
        let mut sink = sink;
        let folder = self.folder.clone();
        let sink = Box::new(move |event| sink(event_of(event, &folder)));
        let media = request.media.and_then(|media| media.downcast::<PromptMedia>().ok());
        let media = media.map(|media| *media).unwrap_or_default();
        let prompt = MediaPrompt { tokens: request.tokens, media };
        let handle = self.runner.submit_cut(prompt, options, sink).map_err(refused)?;
        Ok(Box::new(RunnerTicket(handle)))
    }

    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure> {
        let folder = self.folder.clone();
        let sink = Box::new(move |result: Result<Vec<Vec<f32>>, RequestError>| {
            sink(result.map_err(|error| generate_failure(&error, &folder)));
        });
        let handle = self.runner.embed(inputs, sink).map_err(refused)?;
        Ok(Box::new(RunnerTicket(handle)))
    }

    fn stop(&self, drain: bool) {
        self.runner.stop(drain);
    }
}

impl RunnerEngine {
    fn apply(&self, chat: &ChatInput) -> Result<ChatPrompt, Failure> {
        let (enable_thinking, reasoning_effort) = match &chat.think {
            None => (None, None),
            Some(Think::Switch(on)) => (Some(*on), None),
            Some(Think::Level(level)) => (Some(true), Some(level.clone())),
        };
        let request = ChatRequest {
            messages_json: Value::Array(chat.messages.clone()).to_string(),
            tools_json: (!chat.tools.is_empty()).then(|| Value::Array(chat.tools.clone()).to_string()),
            tool_choice: match chat.tool_choice {
                ToolChoice::Auto => EngineToolChoice::Auto,
                ToolChoice::None => EngineToolChoice::None,
                ToolChoice::Required => EngineToolChoice::Required,
            },
            parallel_tool_calls: chat.parallel_tool_calls,
            json_schema: schema_of(&chat.format),
            enable_thinking,
            reasoning_effort,
            continue_final_message: chat.continues,
            ..ChatRequest::default()
        };
        let text = self.runner.text();
        let applied = match &chat.template {
            Some(template) => text.apply_template(template, &request),
            None => text.apply(&request),
        };
        applied.map_err(|error| chat_failure(&error))
    }
}

fn seen(prompt: Result<MediaPrompt, SeeError>) -> Result<(Vec<Token>, Option<MediaHandle>), Failure> {
    let MediaPrompt { tokens, media } = prompt.map_err(|error| match error {
        SeeError::Unloaded => Failure::internal(error.to_string()),
        error => Failure::bad_request(without_paths(&error.to_string())),
    })?;
    Ok((tokens, Some(Box::new(media))))
}

/// A rendered prompt for people: media as Ollama writes them.
fn with_tags(text: &str) -> String {
    let mut pieces = text.split(marker());
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.enumerate().fold(first, |text, (at, piece)| format!("{text}[img-{at}]{piece}"))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn sequence_of(slot: &SlotStatus) -> EngineSequence {
    EngineSequence {
        busy: slot.request.is_some(),
        cached_tokens: count(slot.cached_tokens),
        prompt_tokens: count(slot.prompt_tokens),
        generated_tokens: count(slot.generated_tokens),
    }
}

/// What a template or a schema says: a template that fails is a 500, as in Ollama; everything else is the request's fault.
fn chat_failure(error: &ChatError) -> Failure {
    let message = without_paths(&error.to_string());
    match error {
        ChatError::Template(_) => Failure::internal(message),
        ChatError::Input(_) | ChatError::Schema(_) | ChatError::Grammar(_) => Failure::bad_request(message),
    }
}

fn schema_of(format: &Format) -> Option<String> {
    match format {
        Format::Free => None,
        Format::Json => Some(r#"{"type":"object"}"#.to_owned()),
        Format::Schema(schema) => Some(schema.to_string()),
    }
}

fn sampler(sampling: &Sampling) -> SamplerOptions {
    SamplerOptions {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        typical_p: sampling.typical_p,
        repeat_penalty: sampling.repeat_penalty,
        repeat_last: sampling.repeat_last_n,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed.unwrap_or_else(random_seed),
    }
}

/// The standard library's source of random keys serves as one of seeds.
#[expect(clippy::cast_possible_truncation, reason = "half of the bits are enough")]
fn random_seed() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

fn refused(error: SubmitError) -> Failure {
    match error {
        SubmitError::QueueFull(_) => Failure::busy(),
        SubmitError::Stopped => {
            let message = "the model is being unloaded, please try again";
            Failure::new(http::StatusCode::SERVICE_UNAVAILABLE, message)
        }
        SubmitError::PromptTooLong { prompt, context } => Failure::bad_request(format!(
            "the prompt has {prompt} tokens, which exceeds the context length of {context}"
        )),
        other => Failure::bad_request(other.to_string()),
    }
}

pub(super) fn generate_failure(error: &RequestError, folder: &Path) -> Failure {
    let message = public(error, folder);
    match error.kind {
        RequestErrorKind::Request => Failure::bad_request(message),
        RequestErrorKind::Unloaded | RequestErrorKind::Engine => {
            tracing::error!(%error, "a generation failed");
            Failure::internal(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_9_a_client_reads_the_file_but_not_its_folder() {
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
    fn errors_9_a_template_that_fails_is_a_500_and_a_bad_schema_a_400() {
        let status = |error| chat_failure(&error).status.as_u16();
        assert_eq!(status(ChatError::Template("roles must alternate".into())), 500);
        assert_eq!(status(ChatError::Schema("x".into())), 400);
        assert_eq!(status(ChatError::Input("x".into())), 400);
        assert_eq!(status(ChatError::Grammar("x".into())), 400);
    }
}
