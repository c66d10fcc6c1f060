//! What the server needs of an engine: small traits in the engine's own words, so that every HTTP test also
//! runs against a scripted one.
//!
//! [`Backend`] plans and loads; [`Engine`] is one loaded model that answers many requests at once. Nothing
//! here knows tokio: the sink of `submit` is called on a thread of the engine. Calls about text take as long
//! as their text, and the engine may be another process: make them where blocking is allowed.
//! [`Backend::plan`], [`Plan::load`] and [`Engine::stop`] block for long.

use hypura_core::audit::Expected;
use hypura_core::profile::Profile;
use hypura_engine::budget::SharedMemory;
use hypura_engine::media::{MediaFile, MediaPrompt, PromptMedia};
use hypura_engine::request::{EmbedSink, Options, Sink};
use hypura_engine::serve::{RequestHandle, RunnerInfo, RunnerStatus};
use hypura_engine::stream::ExpertMap;
use hypura_engine::{ChatDelta, ChatParser, Grammar, Token, ToolChoice};
use hypura_store::ModelEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use super::advice::PlanQuestion;
use super::forecast::Forecast;
use crate::Failure;
use crate::job::{Format, Think};

/// Plans and loads models.
pub trait Backend: Send + Sync {
    /// What loading this model within `free_bytes` would be like. Reads the header of the file. Blocks.
    ///
    /// # Errors
    /// The file cannot be read or is no model; not: too little memory, see [`Fit::TooSmall`].
    fn plan(&self, model: &ModelEntry, settings: &LoadRequest, free_bytes: u64) -> Result<Fit, Failure>;
    /// What was measured of this machine and of the disk that the models are on; `None`: nothing yet. Reads a
    /// small file.
    fn profile(&self) -> Option<Profile> {
        None
    }
    /// What loading this model within `budget_bytes` would be like, as JSON for people's programs. Blocks.
    ///
    /// # Errors
    /// 400 when there is no such plan.
    fn advise(
        &self,
        model: &ModelEntry,
        budget_bytes: u64,
        question: &PlanQuestion,
    ) -> Result<String, Failure>;
}

/// How a model is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// Tokens of context that the first request wants.
    pub context: Option<u32>,
    /// Whether more than that is as good: nobody asked for exactly so many.
    pub may_grow: bool,
}

impl LoadRequest {
    /// With the context that somebody asked for by number, if anybody did.
    #[must_use]
    pub fn asked(context: Option<u32>) -> Self {
        Self { context, may_grow: context.is_none() }
    }

    /// The context to plan with; `default`: where nothing is asked for.
    #[must_use]
    pub fn context_or(self, default: u32) -> u32 {
        let asked = self.context.unwrap_or(default).max(1);
        if self.may_grow { asked.max(default) } else { asked }
    }
}

impl Default for LoadRequest {
    fn default() -> Self {
        Self::asked(None)
    }
}

/// How a model fits a given memory.
pub enum Fit {
    /// All of it.
    Resident(Box<dyn Plan>),
    /// Its weights will stream.
    Streaming(Box<dyn Plan>),
    /// Not even so; the sentence says what is needed.
    TooSmall(Failure),
}

/// A plan that can be carried out.
pub trait Plan: Send {
    /// Bytes that the loaded model will hold.
    fn bytes(&self) -> u64;
    /// Loads the model. Blocks.
    ///
    /// # Errors
    /// Why not, in a sentence for the client.
    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure>;
}

/// The caller that has a model loaded.
pub trait LoadHost {
    /// The load got on. False: it is to end, nobody will use the model.
    fn advanced(&self, progress: LoadProgress) -> bool;
    /// Whether somebody still wants the model; says nothing about how the load gets on.
    fn is_wanted(&self) -> bool;
    /// The memory of all models, of which a loaded one may ask more.
    fn memory(&self) -> Arc<dyn SharedMemory>;
}

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadProgress {
    /// Bytes that were read of what stays in memory.
    pub read_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
}

/// A conversation for the chat template.
#[derive(Clone, Debug, Default)]
pub struct ChatInput {
    /// Messages in OpenAI's shape; where a medium is, there is a part of type `media_marker`.
    pub messages: Vec<Value>,
    /// The pictures and sounds of each message, in the order of their places.
    pub media: Vec<Vec<MediaFile>>,
    /// Tools in OpenAI's shape.
    pub tools: Vec<Value>,
    /// Which may be called.
    pub tool_choice: ToolChoice,
    /// Whether several may be called at once.
    pub parallel_tool_calls: bool,
    /// What the answer must look like.
    pub format: Format,
    /// Whether to think.
    pub think: Option<Think>,
    /// The last message is the beginning of the answer.
    pub continues: bool,
    /// Jinja source instead of the model's template.
    pub template: Option<String>,
}

impl ChatInput {
    /// The numbers of the media of these messages among those of all messages.
    #[must_use]
    pub fn media_of(&self, messages: &[usize]) -> Vec<usize> {
        let before = |message: usize| self.media.iter().take(message).map(Vec::len).sum::<usize>();
        let of = |message: &usize| {
            let first = before(*message);
            first..first + self.media.get(*message).map_or(0, Vec::len)
        };
        messages.iter().flat_map(of).collect()
    }
}

/// The context that a request wants, in tokens; nothing: what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextWish {
    /// At least so much, before it begins.
    pub now: Option<u32>,
    /// It may grow up to so much while the answer is written.
    pub most: Option<u32>,
}

/// What an engine in another process keeps there of a prompt that it made; dropping it lets go of that.
pub trait KeptPrompt: Send + Sync {
    /// Its number there.
    fn id(&self) -> u64;
}

/// What [`Engine::submit`] takes: tokens, and what they cannot say.
#[derive(Clone, Default)]
pub struct PromptInput {
    /// Its tokens, of which negative ones stand for media. Some may be cut out.
    pub tokens: Vec<Token>,
    /// Its media, where they are in this process.
    pub media: PromptMedia,
    /// Its media, and what reads its answer, where they are in another one.
    pub kept: Option<Arc<dyn KeptPrompt>>,
}

impl PromptInput {
    /// What the engine of this process takes.
    #[must_use]
    pub fn into_media_prompt(self) -> MediaPrompt {
        MediaPrompt { tokens: self.tokens, media: self.media }
    }
}

impl From<Vec<Token>> for PromptInput {
    fn from(tokens: Vec<Token>) -> Self {
        Self { tokens, ..Self::default() }
    }
}

impl From<MediaPrompt> for PromptInput {
    fn from(MediaPrompt { tokens, media }: MediaPrompt) -> Self {
        Self { tokens, media, kept: None }
    }
}

/// A prompt ready for [`Engine::submit`].
pub struct Prompt {
    /// Its tokens and its media.
    pub input: PromptInput,
    /// Strings that end the answer.
    pub stops: Vec<String>,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// Splits the answer; `None`: all of it is content.
    pub parser: Option<Box<dyn AnswerParser>>,
}

impl Prompt {
    /// Whether it has media: those cannot be cut.
    #[must_use]
    pub fn has_media(&self) -> bool {
        self.input.tokens.iter().any(|token| *token < 0)
    }
}

/// Splits the text of an answer into reasoning, content and calls as it comes.
pub trait AnswerParser: Send {
    /// More text.
    fn push(&mut self, text: &str) -> Vec<ChatDelta>;
    /// The end of the text. `complete`: the model ended it; otherwise it was cut and may hold half a call.
    fn finish(&mut self, complete: bool) -> Vec<ChatDelta>;
}

impl AnswerParser for ChatParser {
    fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        Self::push(self, text)
    }

    fn finish(&mut self, complete: bool) -> Vec<ChatDelta> {
        Self::finish(self, complete)
    }
}

/// A request in an engine; dropping it cancels what is not done.
pub trait Ticket: Send + Sync {}

impl Ticket for RequestHandle {}

/// Makes prompts of one conversation.
pub trait Renderer {
    /// The prompt of these of its messages; all that is needed of their media is there.
    ///
    /// # Errors
    /// [`RenderError`] with the template's or grammar's words.
    fn render(&self, messages: &[usize]) -> Result<Prompt, RenderError>;
}

/// Why a conversation is no prompt.
#[derive(Debug)]
pub enum RenderError {
    /// The template refuses these messages; it may take others.
    Template(Failure),
    /// The request, the schema, or a medium is at fault, or the model is gone: no other messages help.
    Other(Failure),
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Template(failure) | RenderError::Other(failure) => failure,
        }
    }
}

/// One loaded model.
pub trait Engine: Send + Sync {
    /// What does not change.
    fn info(&self) -> &RunnerInfo;
    /// What does. Never waits for the work.
    fn status(&self) -> RunnerStatus;
    /// What was predicted of it when it was loaded; `None` where the machine was not measured.
    fn forecast(&self) -> Option<Forecast> {
        None
    }
    /// What the profile alone predicted of it, to be held against what it comes to.
    fn expected(&self) -> Option<Expected> {
        None
    }
    /// Which of its experts are in memory; `None` where none stream. Never waits for the work.
    fn experts(&self) -> Option<ExpertMap> {
        None
    }
    /// Bytes that it holds, as last reported; one that cannot answer any more holds them until its memory is
    /// free. Waits for nothing at all: the table is locked.
    fn held_bytes(&self) -> u64 {
        self.status().memory_bytes
    }
    /// Whether it can still answer. One that cannot is replaced by the next request.
    fn is_alive(&self) -> bool {
        true
    }
    /// Whether a chat template is needed and the file has none.
    fn lacks_template(&self) -> bool {
        false
    }
    /// The context that a request which asks for `num_ctx` gets.
    fn context_for(&self, num_ctx: Option<u32>) -> u32;
    /// Most tokens of a text to embed in a request that asks for `num_ctx`.
    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        self.context_for(num_ctx)
    }
    /// What renders a conversation: its media are decoded here, once.
    ///
    /// # Errors
    /// 400 for media that cannot be used, and where the model lacks the sense.
    fn renderer<'a>(&'a self, chat: &'a ChatInput) -> Result<Box<dyn Renderer + 'a>, Failure>;
    /// A conversation as the text that the template makes of it.
    ///
    /// # Errors
    /// 400 or 500 with the template's or grammar's words.
    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure>;
    /// Tokens of a text. `begin` adds what the model wants at the beginning; `control` reads control tokens
    /// in it.
    fn tokenize(&self, text: &str, begin: bool, control: bool) -> Vec<Token>;
    /// Tokens of a text with media, as by [`Engine::tokenize`] with both flags: each
    /// `hypura_engine::media::marker` in it is the next of `media`. Decodes them.
    ///
    /// # Errors
    /// 400 for media that cannot be used, and where the model lacks the sense.
    fn tokenize_with_media(&self, text: &str, media: &[MediaFile]) -> Result<PromptInput, Failure>;
    /// The text of tokens, control tokens included.
    fn detokenize(&self, tokens: &[Token]) -> String;
    /// The text of each token, as by [`Engine::detokenize`].
    fn pieces(&self, tokens: &[Token]) -> Vec<String> {
        tokens.iter().map(|token| self.detokenize(&[*token])).collect()
    }
    /// The prompt that has the gap between two texts filled; `None` where the vocabulary cannot.
    fn infill(&self, before: &str, after: &str) -> Option<Vec<Token>>;
    /// The grammar of a format, for prompts without a template.
    ///
    /// # Errors
    /// 400 with what is wrong with the schema.
    fn grammar(&self, format: &Format) -> Result<Option<Grammar>, Failure>;
    /// Queues a prompt. What its events say of a failure may be shown to a client.
    ///
    /// # Errors
    /// 400 (too long, bad grammar), 503 (queue full).
    fn submit(&self, prompt: PromptInput, options: Options, sink: Sink) -> Result<Box<dyn Ticket>, Failure>;
    /// Queues texts to embed; the vectors are not scaled.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure>;
    /// Finishes (`drain`) or aborts what runs, then frees the model. Blocks.
    fn stop(&self, drain: bool);
}
