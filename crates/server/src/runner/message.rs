//! What server and runner say to each other.
//!
//! JSON values travel as their text: the codec is not self-describing. Numbers of calls, requests, chats and
//! prompts are given by the side that makes them; a number is never used twice.

use std::path::PathBuf;
use std::sync::Arc;

use hypura_core::audit::Expected;
use hypura_engine::media::MediaFile;
use hypura_engine::request::{Event, Options, RequestError};
use hypura_engine::serve::{RunnerInfo, RunnerStatus};
use hypura_engine::stream::ExpertMap;
use hypura_engine::{ChatDelta, Grammar, Token, ToolChoice};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::confine::Confinement;
use crate::Failure;
use crate::job::{Format, Think};
use crate::models::backend::{ChatInput, LoadProgress};
use crate::models::{Forecast, LoadOrder, PlanQuestion};

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRunner {
    /// First of all, once: what to load, and the text that stands for media in messages.
    Plan { order: Box<LoadOrder>, marker: String },
    /// Instead of that, and nothing after it: try a conversation with the template that came with it. The
    /// texts of the tokens that begin and end a text.
    Try { chat: Box<Chat>, bos: String, eos: String },
    /// Likewise: say what loading this would be like on such a machine.
    Advise { order: Box<LoadOrder>, question: PlanQuestion },
    /// Likewise: write a model in another quantisation.
    Quantize { input: PathBuf, output: PathBuf, kind: String },
    /// Carry the plan out.
    Load,
    /// Something that has an answer.
    Call { id: u64, call: Call },
    /// Nobody waits for this request any more.
    Cancel { request: u64 },
    /// A chat that was opened is done with.
    CloseChat { chat: u64 },
    /// A prompt that was made is done with.
    Forget { prompt: u64 },
    /// The answer to [`FromRunner::Reserve`] and [`FromRunner::FreeBytes`].
    Memory { id: u64, bytes: u64 },
    /// End, after what runs (`drain`) or now.
    Stop { drain: bool },
}

/// What the runner says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromRunner {
    /// First of all: what it can no longer do, whatever the file makes of it.
    Confined(Confinement),
    /// What loading would be like.
    Planned(Result<Planned, Failure>),
    /// The load got on.
    Progress(LoadProgress),
    /// The model is there, or is not.
    Loaded(Result<Box<Loaded>, Failure>),
    /// The answer of a call.
    Answer { id: u64, answer: Result<Answer, Failure> },
    /// Something happened to a request; what the parser of its answer made of it.
    Event { request: u64, event: Event, deltas: Vec<ChatDelta> },
    /// The vectors of a request.
    Embedded { request: u64, vectors: Result<Vec<Vec<f32>>, RequestError> },
    /// Nothing more comes of a request.
    Over { request: u64 },
    /// Once a second, and before memory is given back: the process is alive. The model's state, once there is
    /// one, and whether it still answers.
    Alive { status: Option<Box<RunnerStatus>>, is_open: bool },
    /// Asks for so much of the memory of all models.
    Reserve { id: u64, bytes: u64 },
    /// Asks how much of it is free.
    FreeBytes { id: u64 },
    /// Gives back what was reserved.
    Release { bytes: u64 },
    /// The bytes that a template made, or why it made none.
    Tried(Result<usize, Failure>),
    /// A plan as JSON, or why there is none.
    Advised(Result<String, Failure>),
    /// So much of so much is quantised.
    Quantizing { done: u64, all: u64 },
    /// All of it is, or why not.
    Quantized(Result<(), String>),
    /// Everything ended as asked.
    Stopped,
}

/// How a model fits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Planned {
    /// All of it, in so many bytes.
    Resident(u64),
    /// Its weights will stream; it takes so many bytes.
    Streaming(u64),
    /// Not even so.
    TooSmall(Failure),
}

/// A loaded model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub info: RunnerInfo,
    pub status: RunnerStatus,
    pub lacks_template: bool,
    pub forecast: Option<Forecast>,
    pub expected: Option<Expected>,
}

/// Something that has an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    /// Decodes the media of a conversation, and makes the prompt of these of its messages; the number of the
    /// call is the chat's until it is closed.
    OpenChat {
        chat: Box<Chat>,
        messages: Vec<usize>,
    },
    /// The prompt of others of its messages.
    Render {
        chat: u64,
        messages: Vec<usize>,
    },
    /// A conversation as text.
    RenderText(Box<Chat>),
    Tokenize {
        text: String,
        begin: bool,
        control: bool,
    },
    TokenizeWithMedia {
        text: String,
        media: Vec<File>,
    },
    Detokenize {
        tokens: Vec<Token>,
    },
    Pieces {
        tokens: Vec<Token>,
    },
    Infill {
        before: String,
        after: String,
    },
    Grammar(FormatText),
    /// Queues a prompt; the number of the call is the request's.
    Submit(Box<Submit>),
    /// Queues texts to embed; likewise.
    Embed {
        inputs: Vec<Vec<Token>>,
    },
    Status,
    /// Which experts are in memory.
    Experts,
}

/// A prompt to continue.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Submit {
    pub tokens: Vec<Token>,
    /// What the runner keeps of it: media, and what reads the answer.
    pub prompt: Option<u64>,
    pub options: Options,
}

/// What a call gives.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Done.
    Done,
    Text(String),
    Texts(Vec<String>),
    Tokens(Option<Vec<Token>>),
    Prompt(Box<PromptAnswer>),
    /// The conversation is no prompt; whether the template said so.
    NoPrompt {
        by_template: bool,
        failure: Failure,
    },
    Grammar(Option<Grammar>),
    Status {
        status: Box<RunnerStatus>,
        is_open: bool,
    },
    Experts(Option<ExpertMap>),
}

/// A prompt that the runner made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PromptAnswer {
    pub tokens: Vec<Token>,
    pub stops: Vec<String>,
    pub grammar: Option<Grammar>,
    /// Its number, where the runner keeps something of it.
    pub kept: Option<u64>,
    /// Whether the answer comes with deltas.
    pub has_parser: bool,
}

/// [`ChatInput`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chat {
    messages: Vec<String>,
    media: Vec<Vec<File>>,
    tools: Vec<String>,
    tool_choice: ToolChoice,
    parallel_tool_calls: bool,
    format: FormatText,
    think: Option<Think>,
    continues: bool,
    template: Option<String>,
}

impl From<&ChatInput> for Chat {
    fn from(chat: &ChatInput) -> Self {
        let text = |values: &[Value]| values.iter().map(Value::to_string).collect();
        let files = |files: &Vec<MediaFile>| files.iter().cloned().map(File).collect();
        Self {
            messages: text(&chat.messages),
            media: chat.media.iter().map(files).collect(),
            tools: text(&chat.tools),
            tool_choice: chat.tool_choice,
            parallel_tool_calls: chat.parallel_tool_calls,
            format: (&chat.format).into(),
            think: chat.think.clone(),
            continues: chat.continues,
            template: chat.template.clone(),
        }
    }
}

impl Chat {
    /// Some messages of a conversation, for its template alone: without media.
    pub fn to_try(chat: &ChatInput, messages: &[usize]) -> Self {
        let chosen = messages.iter().filter_map(|at| chat.messages.get(*at));
        let chat = ChatInput { messages: Vec::new(), media: Vec::new(), ..chat.clone() };
        Self { messages: chosen.map(Value::to_string).collect(), ..Self::from(&chat) }
    }

    /// The conversation.
    ///
    /// # Errors
    /// 400 where a text is no JSON that this side reads: nested too deeply.
    pub fn read(self) -> Result<ChatInput, Failure> {
        let values = |texts: Vec<String>| texts.iter().map(|text| value(text)).collect::<Result<_, _>>();
        let media = self.media.into_iter().map(|files| files.into_iter().map(|file| file.0).collect());
        Ok(ChatInput {
            messages: values(self.messages)?,
            media: media.collect(),
            tools: values(self.tools)?,
            tool_choice: self.tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            format: self.format.read()?,
            think: self.think,
            continues: self.continues,
            template: self.template,
        })
    }
}

fn value(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::bad_request(error.to_string()))
}

/// [`Format`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FormatText {
    Free,
    Json,
    Schema(String),
}

impl From<&Format> for FormatText {
    fn from(format: &Format) -> Self {
        match format {
            Format::Free => Self::Free,
            Format::Json => Self::Json,
            Format::Schema(schema) => Self::Schema(schema.to_string()),
        }
    }
}

impl FormatText {
    /// The format.
    ///
    /// # Errors
    /// As [`Chat::read`].
    pub fn read(self) -> Result<Format, Failure> {
        Ok(match self {
            Self::Free => Format::Free,
            Self::Json => Format::Json,
            Self::Schema(text) => Format::Schema(value(&text)?),
        })
    }
}

/// A media file, as bytes and not as a list of numbers.
#[derive(Clone, Debug)]
pub(super) struct File(pub MediaFile);

impl Serialize for File {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = File;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<File, E> {
                Ok(File(Arc::new(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
