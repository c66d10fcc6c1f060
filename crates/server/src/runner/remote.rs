//! A loaded model in a runner, as an [`Engine`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hypura_core::audit::Expected;
use hypura_engine::media::{MediaFile, Modalities};
use hypura_engine::request::{EmbedSink, Options, Sink};
use hypura_engine::serve::{RunnerInfo, RunnerStatus};
use hypura_engine::stream::ExpertMap;
use hypura_engine::{ChatDelta, Grammar, Token};

use super::audit;
use super::deltas::Deltas;
use super::link::{Held, Link, Listener};
use super::message::{Answer, Call, Chat, File, Loaded, PromptAnswer, Submit, ToRunner};
use super::places::Place;
use super::trial;
use crate::Failure;
use crate::job::Format;
use crate::models::Forecast;
use crate::models::backend::{
    AnswerParser, ChatInput, Engine, KeptPrompt, Prompt, PromptInput, RenderError, Renderer, Ticket,
};

/// How long a snapshot may take before the last one has to do.
const SNAPSHOT: Duration = Duration::from_millis(100);

/// A model in a runner. Dropping it ends the runner.
pub(super) struct RemoteEngine {
    link: Held,
    info: RunnerInfo,
    lacks_template: bool,
    forecast: Option<Forecast>,
    expected: Option<Expected>,
    /// The texts of its tokens that begin and end a text.
    tokens: OnceLock<(String, String)>,
}

impl RemoteEngine {
    /// The model that a runner has loaded.
    pub fn new(link: Held, loaded: Loaded) -> Self {
        let Loaded { info, status, lacks_template, forecast, expected } = loaded;
        link.0.loaded(status);
        if info.modalities != Modalities::default() {
            // A picture is encoded in one go.
            link.0.movement.allow(link.0.limits().media);
        }
        Self { link, info, lacks_template, forecast, expected, tokens: OnceLock::new() }
    }

    fn text(&self, call: Call) -> Result<Answer, Failure> {
        let _place = self.link.0.place(false)?;
        self.link.0.call(call, self.link.0.limits().text)
    }

    /// Has a template that came with the conversation tried where it harms nobody.
    ///
    /// # Errors
    /// 400: it fails, never ends, or makes too much.
    fn try_template(&self, chat: &ChatInput, messages: &[usize]) -> Result<(), Failure> {
        if chat.template.is_none() {
            return Ok(());
        }
        let (bos, eos) = self.tokens.get_or_init(|| {
            let text =
                |token: Option<Token>| token.map(|token| self.detokenize(&[token])).unwrap_or_default();
            (text(self.info.bos), text(self.info.eos))
        });
        trial::attempt(self.link.0.limits(), chat, messages, (bos, eos))
    }

    /// Calls that decode media may take longer.
    fn limit(&self, media: bool) -> Duration {
        let limits = self.link.0.limits();
        if media { limits.media } else { limits.text }
    }

    fn prompt_of(&self, answer: PromptAnswer) -> Prompt {
        let PromptAnswer { tokens, stops, grammar, kept, has_parser } = answer;
        let kept = kept.map(|id| {
            let deltas = Arc::<Deltas>::default();
            if has_parser {
                self.link.0.expect_deltas(id, Arc::clone(&deltas));
            }
            (Arc::new(Kept { link: Arc::clone(&self.link.0), id }), deltas)
        });
        let parser = kept.as_ref().filter(|_| has_parser).map(|(_, deltas)| {
            let parser: Box<dyn AnswerParser> = Box::new(RemoteParser(Arc::clone(deltas)));
            parser
        });
        let kept = kept.map(|(kept, _)| -> Arc<dyn KeptPrompt> { kept });
        Prompt { input: PromptInput { tokens, kept, ..PromptInput::default() }, stops, grammar, parser }
    }
}

/// What no runner should say.
fn unexpected(answer: &Answer) -> Failure {
    tracing::error!(?answer, "an answer of the wrong kind");
    Failure::internal("the model's process gave an answer of the wrong kind")
}

impl Engine for RemoteEngine {
    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn status(&self) -> RunnerStatus {
        // What it says now, where it says it at once.
        match self.link.0.ask(Call::Status, SNAPSHOT) {
            Some(Answer::Status { status, .. }) => *status,
            _ => self.link.0.last_status(),
        }
    }

    fn forecast(&self) -> Option<Forecast> {
        self.forecast
    }

    fn experts(&self) -> Option<ExpertMap> {
        match self.link.0.ask(Call::Experts, SNAPSHOT)? {
            Answer::Experts(map) => map,
            _ => None,
        }
    }

    fn held_bytes(&self) -> u64 {
        self.link.0.held_bytes()
    }

    fn is_alive(&self) -> bool {
        self.link.0.is_alive()
    }

    fn lacks_template(&self) -> bool {
        self.lacks_template
    }

    fn context_for(&self, num_ctx: Option<u32>) -> u32 {
        self.link.0.last_status().context_for(num_ctx, self.link.0.free_bytes())
    }

    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        let most = u32::try_from(self.info.embed_most).unwrap_or(u32::MAX);
        num_ctx.map_or(most, |wanted| wanted.min(most))
    }

    fn renderer<'a>(&'a self, chat: &'a ChatInput) -> Result<Box<dyn Renderer + 'a>, Failure> {
        let has_media = chat.media.iter().any(|media| !media.is_empty());
        let place = OnceLock::new();
        Ok(Box::new(RemoteRenderer { engine: self, chat, id: OnceLock::new(), has_media, place }))
    }

    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure> {
        let all: Vec<usize> = (0..chat.messages.len()).collect();
        self.try_template(chat, &all)?;
        match self.text(Call::RenderText(Box::new(Chat::from(chat))))? {
            Answer::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    fn tokenize(&self, text: &str, begin: bool, control: bool) -> Vec<Token> {
        let call = Call::Tokenize { text: text.to_owned(), begin, control };
        match self.text(call) {
            Ok(Answer::Tokens(tokens)) => tokens.unwrap_or_default(),
            // The request that needs them will be told.
            _ => Vec::new(),
        }
    }

    fn tokenize_with_media(&self, text: &str, media: &[MediaFile]) -> Result<PromptInput, Failure> {
        let limit = self.limit(!media.is_empty());
        let _place = self.link.0.place(!media.is_empty())?;
        let media = media.iter().cloned().map(File).collect();
        match self.link.0.call(Call::TokenizeWithMedia { text: text.to_owned(), media }, limit)? {
            Answer::Prompt(answer) => Ok(self.prompt_of(*answer).input),
            other => Err(unexpected(&other)),
        }
    }

    fn detokenize(&self, tokens: &[Token]) -> String {
        match self.text(Call::Detokenize { tokens: tokens.to_vec() }) {
            Ok(Answer::Text(text)) => text,
            _ => String::new(),
        }
    }

    fn pieces(&self, tokens: &[Token]) -> Vec<String> {
        match self.text(Call::Pieces { tokens: tokens.to_vec() }) {
            Ok(Answer::Texts(pieces)) => pieces,
            _ => Vec::new(),
        }
    }

    fn infill(&self, before: &str, after: &str) -> Option<Vec<Token>> {
        let call = Call::Infill { before: before.to_owned(), after: after.to_owned() };
        match self.text(call) {
            Ok(Answer::Tokens(tokens)) => tokens,
            _ => None,
        }
    }

    fn grammar(&self, format: &Format) -> Result<Option<Grammar>, Failure> {
        if *format == Format::Free {
            return Ok(None);
        }
        match self.text(Call::Grammar(format.into()))? {
            Answer::Grammar(grammar) => Ok(grammar),
            other => Err(unexpected(&other)),
        }
    }

    fn submit(&self, prompt: PromptInput, options: Options, sink: Sink) -> Result<Box<dyn Ticket>, Failure> {
        let PromptInput { tokens, kept, .. } = prompt;
        let id = kept.as_ref().map(|kept| kept.id());
        let deltas = id.and_then(|id| self.link.0.deltas_of(id));
        let submit = Submit { tokens, prompt: id, options };
        let request =
            self.link.0.request(Call::Submit(Box::new(submit)), Listener::Generate { sink, deltas })?;
        Ok(Box::new(RemoteTicket { link: Arc::clone(&self.link.0), request, _kept: kept }))
    }

    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure> {
        let request = self.link.0.request(Call::Embed { inputs }, Listener::Embed(Some(sink)))?;
        Ok(Box::new(RemoteTicket { link: Arc::clone(&self.link.0), request, _kept: None }))
    }

    fn stop(&self, drain: bool) {
        self.link.0.stop(drain);
        if let Some(expected) = self.expected.clone() {
            audit::remember(expected, &self.info, &self.link.0.last_status());
        }
    }
}

/// A request in a runner.
struct RemoteTicket {
    link: Arc<Link>,
    request: u64,
    /// Until the request is over.
    _kept: Option<Arc<dyn KeptPrompt>>,
}

impl Ticket for RemoteTicket {}

impl Drop for RemoteTicket {
    fn drop(&mut self) {
        self.link.cancel(self.request);
    }
}

/// A prompt that the runner keeps.
struct Kept {
    link: Arc<Link>,
    id: u64,
}

impl KeptPrompt for Kept {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.link.forget(self.id);
    }
}

/// A conversation. It is opened in the runner with its first prompt, so that most take one round trip.
struct RemoteRenderer<'a> {
    engine: &'a RemoteEngine,
    chat: &'a ChatInput,
    /// Its number in the runner.
    id: OnceLock<u64>,
    has_media: bool,
    /// While it is open what was decoded for it is there.
    place: OnceLock<Place>,
}

impl Renderer for RemoteRenderer<'_> {
    fn render(&self, messages: &[usize]) -> Result<Prompt, RenderError> {
        self.engine.try_template(self.chat, messages).map_err(RenderError::Template)?;
        let (link, limit) = (&self.engine.link.0, self.engine.limit(self.has_media));
        let _place = match (self.has_media, self.place.get()) {
            (true, Some(_)) => None,
            (true, None) => {
                let place = link.place(true).map_err(RenderError::Other)?;
                // Taken once only.
                let _ = self.place.set(place);
                None
            }
            (false, _) => Some(link.place(false).map_err(RenderError::Other)?),
        };
        let messages = messages.to_vec();
        let answer = match self.id.get() {
            Some(chat) => link.call(Call::Render { chat: *chat, messages }, limit),
            None => {
                let chat = Box::new(self.chat.into());
                link.open(Call::OpenChat { chat, messages }, limit).map(|(id, answer)| {
                    // Opened once only.
                    let _ = self.id.set(id);
                    answer
                })
            }
        };
        match answer.map_err(RenderError::Other)? {
            Answer::Prompt(answer) => Ok(self.engine.prompt_of(*answer)),
            Answer::NoPrompt { by_template: true, failure } => Err(RenderError::Template(failure)),
            Answer::NoPrompt { failure, .. } => Err(RenderError::Other(failure)),
            other => Err(RenderError::Other(unexpected(&other))),
        }
    }
}

impl Drop for RemoteRenderer<'_> {
    fn drop(&mut self) {
        if let Some(chat) = self.id.get() {
            self.engine.link.0.tell(&ToRunner::CloseChat { chat: *chat });
        }
    }
}

/// Gives out what the runner parsed, in step with the texts.
struct RemoteParser(Arc<Deltas>);

impl AnswerParser for RemoteParser {
    fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        self.0.take(text.len())
    }

    /// The runner saw itself how the answer ended.
    fn finish(&mut self, _: bool) -> Vec<ChatDelta> {
        self.0.take_last()
    }
}
