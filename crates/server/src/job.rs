//! What a front end asks for and what it gets back, in no protocol's words.
//!
//! A front end (native, OpenAI's, Anthropic's) turns a body into a [`ChatJob`] or [`GenerateJob`], hands it
//! to [`super::jobs`], and writes the [`Piece`]s that come back in its own format. Pieces come in this order:
//! `Started` once (the request is valid, its model is loaded, it waits for its turn), then any number of
//! `Progress`, `Text` and `ToolCall`, then `Done` or `Failed` as the last one. `Failed` may come at any time,
//! also first.

pub use hypura_engine::ToolChoice;
use hypura_engine::media::{MediaFile, marker_part};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use super::keep_alive::KeepAlive;
use super::options::Options;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`, in lower case (`developer` is `system`).
    pub role: String,
    /// The text.
    pub content: String,
    /// The reasoning of an earlier answer.
    pub thinking: Option<String>,
    /// Pictures and sounds, decoded from base64.
    pub media: Vec<MediaFile>,
    /// Where in the text each of them is, as far as that is known; the others come first of all.
    pub media_places: Vec<usize>,
    /// The calls of an earlier answer.
    pub tool_calls: Vec<ToolCall>,
    /// Which tool this is the answer of.
    pub tool_name: Option<String>,
    /// Which call this is the answer to.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of text alone.
    #[must_use]
    pub fn text(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), ..Self::default() }
    }

    /// Adds a picture or a sound after the text that is there so far.
    pub fn push_media(&mut self, bytes: Vec<u8>) {
        self.media.push(Arc::new(bytes));
        self.media_places.push(self.content.len());
    }

    /// Adds a text on a line of its own, or right after a medium.
    pub fn push_text(&mut self, text: &str) {
        let after_media = self.media_places.last() == Some(&self.content.len());
        if !self.content.is_empty() && !after_media {
            self.content.push('\n');
        }
        self.content.push_str(text);
    }

    /// Puts media where the text says `[img]`, as Ollama does; those that are left come first.
    pub fn place_media(&mut self) {
        const TAG: &str = "[img]";
        if self.media.is_empty() || !self.content.contains(TAG) {
            return;
        }
        let tags = self.content.matches(TAG).count().min(self.media.len());
        let first = self.media.len() - tags;
        self.media_places = vec![0; first];
        for _ in 0..tags {
            let Some(at) = self.content.find(TAG) else { break };
            self.content.replace_range(at..at + TAG.len(), "");
            self.media_places.push(at);
        }
        // Ollama gives the tags to the first of them.
        self.media.rotate_left(tags);
    }

    /// Text and places of media as parts of a content.
    fn parts(&self) -> Value {
        let mut parts = Vec::new();
        let mut from = 0;
        let text = |from: usize, to: usize, parts: &mut Vec<Value>| {
            if let Some(text) = self.content.get(from..to).filter(|text| !text.is_empty()) {
                parts.push(serde_json::json!({"type": "text", "text": text}));
            }
        };
        for at in 0..self.media.len() {
            let place = self.media_places.get(at).copied().unwrap_or(0).max(from);
            text(from, place, &mut parts);
            from = place;
            parts.push(marker_part());
        }
        text(from, self.content.len(), &mut parts);
        Value::Array(parts)
    }

    /// The message in OpenAI's shape, which chat templates read.
    #[must_use]
    pub fn to_openai(&self) -> Value {
        let mut out = Map::new();
        out.insert("role".to_owned(), self.role.clone().into());
        let content = if self.media.is_empty() { self.content.clone().into() } else { self.parts() };
        out.insert("content".to_owned(), content);
        if let Some(thinking) = &self.thinking {
            out.insert("reasoning_content".to_owned(), thinking.clone().into());
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(ToolCall::to_openai).collect();
            out.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        if let Some(name) = &self.tool_name {
            out.insert("name".to_owned(), name.clone().into());
        }
        if let Some(id) = &self.tool_call_id {
            out.insert("tool_call_id".to_owned(), id.clone().into());
        }
        Value::Object(out)
    }
}

/// A call of a tool, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its place among the calls of one answer.
    pub index: u32,
    /// Its name in later messages, `call_xxxxxxxx`.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: an object, in the order in which they were written.
    pub arguments: Value,
}

impl ToolCall {
    fn to_openai(&self) -> Value {
        let arguments = self.arguments.to_string();
        serde_json::json!({
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": arguments},
        })
    }
}

/// What the answer must look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Anything.
    #[default]
    Free,
    /// Any JSON object.
    Json,
    /// What this JSON Schema allows.
    Schema(Value),
}

/// Whether and how hard a model is to think before it answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Think {
    /// Think, or do not.
    Switch(bool),
    /// Think so hard: `low`, `medium`, `high`, `max`.
    Level(String),
}

/// What is common to all jobs.
#[derive(Clone, Debug)]
pub struct JobBase {
    /// The model's name as the client wrote it.
    pub model: String,
    /// What the request says about sampling and limits; the model file's and the defaults fill the rest.
    pub options: Options,
    /// How long the model is to stay, where the request says so.
    pub keep_alive: Option<KeepAlive>,
    /// Log-probabilities wanted, with so many alternatives.
    pub logprobs: Option<u32>,
    /// Whether [`Piece::Progress`] is wanted.
    pub progress: bool,
    /// Whether an answer that fills the context continues without a part of it.
    pub shift: bool,
    /// Whether the context grows for the prompt and the answer that is asked for, in which case neither is
    /// ever cut: a prompt that is too long even so is refused.
    pub grows: bool,
    /// When the request came.
    pub received: Instant,
    /// A text that the answer is probably like.
    pub prediction: Option<String>,
    /// What to do with a request to think on a model that cannot: refuse (native), or ignore.
    pub strict_think: bool,
}

impl JobBase {
    /// A job of this model with nothing special.
    #[must_use]
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            options: Options::default(),
            keep_alive: None,
            logprobs: None,
            progress: false,
            shift: false,
            grows: false,
            received: Instant::now(),
            prediction: None,
            strict_think: true,
        }
    }
}

/// A conversation to continue.
#[derive(Clone, Debug)]
pub struct ChatJob {
    /// What is common to all jobs.
    pub base: JobBase,
    /// The conversation. Not empty.
    pub messages: Vec<Message>,
    /// Tools in OpenAI's shape, their keys in the order in which they came.
    pub tools: Vec<Value>,
    /// Which of them may be called.
    pub tool_choice: ToolChoice,
    /// Whether several calls may come in one answer.
    pub parallel_tool_calls: bool,
    /// What the answer must look like.
    pub format: Format,
    /// `None`: as the model does by itself.
    pub think: Option<Think>,
    /// Drop the oldest messages when they do not fit; otherwise refuse.
    pub truncate: bool,
}

impl ChatJob {
    /// A conversation with nothing special.
    #[must_use]
    pub fn new(base: JobBase, messages: Vec<Message>) -> Self {
        Self {
            base,
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            format: Format::Free,
            think: None,
            truncate: true,
        }
    }
}

/// A prompt to continue.
#[derive(Clone, Debug)]
pub struct GenerateJob {
    /// What is common to all jobs.
    pub base: JobBase,
    /// The prompt.
    pub prompt: String,
    /// What comes after the gap that the model is to fill.
    pub suffix: Option<String>,
    /// Instead of the model's system message.
    pub system: Option<String>,
    /// Instead of the model's template.
    pub template: Option<String>,
    /// The prompt is the whole text: no template.
    pub raw: bool,
    /// Tokens of an earlier exchange.
    pub context: Option<Vec<i32>>,
    /// Whether the answer ends with the tokens of this exchange.
    pub wants_context: bool,
    /// Pictures and sounds, decoded from base64.
    pub media: Vec<MediaFile>,
    /// What the answer must look like.
    pub format: Format,
    /// `None`: as the model does by itself.
    pub think: Option<Think>,
    /// Drop the beginning of a prompt that does not fit; otherwise refuse.
    pub truncate: bool,
}

impl GenerateJob {
    /// A prompt with nothing special.
    #[must_use]
    pub fn new(base: JobBase, prompt: impl Into<String>) -> Self {
        Self {
            base,
            prompt: prompt.into(),
            suffix: None,
            system: None,
            template: None,
            raw: false,
            context: None,
            wants_context: false,
            media: Vec::new(),
            format: Format::Free,
            think: None,
            truncate: true,
        }
    }
}

/// Texts to turn into vectors.
#[derive(Clone, Debug)]
pub struct EmbedJob {
    /// What is common to all jobs.
    pub base: JobBase,
    /// The texts.
    pub inputs: Vec<String>,
    /// Cut texts that are too long; otherwise refuse.
    pub truncate: bool,
    /// Keep so many numbers of each vector.
    pub dimensions: Option<usize>,
    /// Scale each vector to length 1.
    pub normalise: bool,
}

/// The vectors of an [`EmbedJob`].
#[derive(Clone, Debug)]
pub struct Embedded {
    /// One for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub prompt_tokens: u64,
    /// From the request to now.
    pub total: Duration,
    /// The part of it that waited for the model.
    pub load: Duration,
}

/// A token with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token's text; bytes that are no text are replaced.
    pub token: String,
    /// The token's bytes: of a character that spans several tokens a part.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The alternatives, likeliest first: bytes and logarithm.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// The request is valid and has its place in the queue: headers may go.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// The prompt is being read.
    Progress {
        /// Tokens done, the reused ones included.
        processed: u32,
        /// Tokens in all.
        total: u32,
        /// Tokens that were in the cache.
        reused: u32,
        /// Time since the work began.
        elapsed: Duration,
    },
    /// Reasoning.
    Thinking {
        /// Its text.
        text: String,
        /// Log-probabilities of what came since the last piece.
        logprobs: Vec<TokenLogprob>,
    },
    /// The answer.
    Content {
        /// Its text.
        text: String,
        /// Log-probabilities of what came since the last piece.
        logprobs: Vec<TokenLogprob>,
    },
    /// A call of a tool, whole.
    ToolCall(ToolCall),
    /// The end of a good answer.
    Done(Box<Summary>),
    /// The end of a bad one.
    Failed(Failure),
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoneReason {
    /// The model ended it.
    Stop,
    /// This stop string came.
    StopString(String),
    /// A limit of tokens was reached.
    Length,
}

impl DoneReason {
    /// Ollama's word.
    #[must_use]
    pub const fn native(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopString(_) => "stop",
            Self::Length => "length",
        }
    }
}

/// What an answer took.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub reason: DoneReason,
    /// Tokens of the whole prompt, the cached ones included.
    pub prompt_tokens: u32,
    /// How many of them were not computed again.
    pub reused_tokens: u32,
    /// Generated tokens.
    pub generated_tokens: u32,
    /// How many of them were reasoning: the tokens of its text, without the tags around it.
    pub reasoning_tokens: u32,
    /// From the request to the end.
    pub total: Duration,
    /// The part of it that waited for the model.
    pub load: Duration,
    /// Reading the prompt.
    pub prefill: Duration,
    /// Generating.
    pub decode: Duration,
    /// From the request to the first token.
    pub first_token: Duration,
    /// Bytes of weights read from the disk for this request.
    pub bytes_read: u64,
    /// Experts found in memory.
    pub hits: u64,
    /// Experts that had to be read.
    pub misses: u64,
    /// Drafts that were computed.
    pub drafts: u64,
    /// Those of them that came true.
    pub drafts_accepted: u64,
    /// Tokens of prompt and answer, where asked for.
    pub context: Option<Vec<i32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &Message) -> String {
        let content = &message.to_openai()["content"];
        let part = |part: &Value| match part["type"].as_str() {
            Some("media_marker") => "#".to_owned(),
            _ => part["text"].as_str().unwrap_or_default().to_owned(),
        };
        let parts = content.as_array().map(|parts| parts.iter().map(part).collect());
        parts.unwrap_or_else(|| content.as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn chat_images_are_where_they_came() {
        let mut message = Message::text("user", "");
        message.push_text("one");
        message.push_media(vec![1]);
        message.push_text("two");
        message.push_text("three");
        message.push_media(vec![2]);
        assert_eq!(shown(&message), "one#two\nthree#");
        assert_eq!(shown(&Message::text("user", "plain")), "plain");
    }

    #[test]
    fn chat_images_of_ollama_come_first_or_where_the_text_wants_them() {
        let told = |content: &str, media: u8| {
            let mut message = Message::text("user", content);
            message.media = (0..media).map(|number| Arc::new(vec![number])).collect();
            message.place_media();
            let order: Vec<u8> = message.media.iter().map(|image| image[0]).collect();
            (shown(&message), order)
        };
        assert_eq!(told("what?", 2), ("##what?".to_owned(), vec![0, 1]));
        assert_eq!(told("a [img] b", 1), ("a # b".to_owned(), vec![0]));
        assert_eq!(told("a [img] b [img]", 3), ("#a # b #".to_owned(), vec![2, 0, 1]));
        assert_eq!(told("a [img] b [img]", 1), ("a # b [img]".to_owned(), vec![0]));
        assert_eq!(told("a [img]", 0), ("a [img]".to_owned(), vec![]));
    }
}
