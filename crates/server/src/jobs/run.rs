//! What all jobs share once there is a prompt: the wait for the model, the submission, the pieces, the line
//! in the log.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypura_engine::request::{self, Event, Finish, Outcome, TokenInfo};
use hypura_engine::{ChatDelta, SamplerOptions};
use hypura_store::ModelEntry;
use serde_json::Value;
use tokio::sync::mpsc;

use super::lookup::Found;
use super::stream::PieceStream;
use crate::Failure;
use crate::job::{DoneReason, JobBase, Piece, Summary, TokenLogprob, ToolCall};
use crate::keep_alive::KeepAlive;
use crate::models::Lease;
use crate::models::backend::{AnswerParser, ContextWish, Engine, LoadRequest, Prompt};
use crate::options::Options;
use crate::request_log::RequestLine;
use crate::state::Server;

/// Loads a model and does nothing with it. Returns what that took.
///
/// # Errors
/// What the loader says.
pub async fn load(
    server: &Arc<Server>,
    entry: &Arc<ModelEntry>,
    options: &Options,
    keep: Option<KeepAlive>,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    let load_request = LoadRequest::asked(options.context());
    drop(server.models.acquire(entry, load_request, keep).await?);
    Ok(start.elapsed())
}

/// Has a model leave. One that is not loaded has left already.
pub fn unload(server: &Server, entry: &ModelEntry) {
    server.models.unload(entry);
}

/// Makes the prompt of a job: called where blocking is allowed, once the model is there.
pub(super) type MakePrompt = Box<dyn FnOnce(&dyn Engine) -> Result<Prepared, Failure> + Send>;

/// A prompt and what its answer is to be read like.
pub(super) struct Prepared {
    pub prompt: Prompt,
    /// The context that it needs.
    pub context: ContextWish,
    /// Whether the summary is to hold the tokens of prompt and answer.
    pub wants_context: bool,
}

/// A job that was found to be good, as far as that can be said without its model.
pub(super) struct Checked {
    pub base: JobBase,
    pub found: Found,
    /// How the model is loaded, where it is not there yet.
    pub load_request: LoadRequest,
    pub make: MakePrompt,
}

/// Checks a job and starts it; its pieces come from the stream. The log has a line of it, whatever becomes of
/// it.
///
/// # Errors
/// What `check` says.
pub(super) async fn start(
    server: &Arc<Server>,
    line: RequestLine,
    check: impl Future<Output = Result<Checked, Failure>>,
) -> Result<PieceStream, Failure> {
    let Checked { base, found, load_request, make } =
        check.await.inspect_err(|failure| line.failed(failure))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let work = Work { server: Arc::clone(server), base, found, load_request, pieces: sender };
    tokio::spawn(work.run(line, make));
    Ok(PieceStream::new(receiver))
}

struct Work {
    server: Arc<Server>,
    base: JobBase,
    found: Found,
    load_request: LoadRequest,
    pieces: mpsc::UnboundedSender<Piece>,
}

impl Work {
    async fn run(self, line: RequestLine, make: MakePrompt) {
        let gone = self.pieces.clone();
        tokio::select! {
            result = self.answer(make, &line) => match result {
                Ok(summary) => {
                    line.done(&summary);
                    drop(gone.send(Piece::Done(Box::new(summary))));
                }
                Err(failure) => {
                    line.failed(&failure);
                    drop(gone.send(Piece::Failed(failure)));
                }
            },
            // Everything that the other branch held is dropped with it: the place in the queue, the ticket,
            // the lease.
            () = gone.closed() => {}
        }
    }

    async fn answer(&self, make: MakePrompt, line: &RequestLine) -> Result<Summary, Failure> {
        let start = Instant::now();
        let Self { found, base, .. } = self;
        let lease = self.server.models.acquire(&found.entry, self.load_request, base.keep_alive).await?;
        let load = start.elapsed();
        let (lease, prepared) = self.prepare(lease, make).await?;
        let Prepared { prompt, context: load_request, wants_context } = prepared;
        let tokens = &prompt.input.tokens;
        let prompt_tokens = count(tokens.len());
        // Pictures are nothing that a later request could name.
        let words = || tokens.iter().copied().filter(|token| *token >= 0).collect();
        let context: Option<Vec<i32>> = wants_context.then(words);
        let room = lease.engine().context_for(load_request.most.or(load_request.now));
        let Prompt { input, stops, grammar, parser } = prompt;
        let options = request::Options {
            grammar,
            special_pieces: parser.is_some(),
            ..self.request_options(load_request, room, stops)
        };
        let (sender, mut events) = mpsc::unbounded_channel();
        let side = line.engine_side();
        let sink = move |event| {
            if let Event::Done(outcome) = &event {
                side.done(outcome);
            }
            sender.send(event).is_ok()
        };
        let engine = Arc::clone(lease.engine());
        let ticket = aside(move || engine.submit(input, options, Box::new(sink))).await??;
        self.send(Piece::Started { prompt_tokens });
        let mut reader =
            Reader { parser, read_bytes: 0, pending: Vec::new(), thinking: String::new(), first_token: None };
        let mut next = None;
        while let Some(event) = match next.take() {
            Some(event) => Some(event),
            None => events.recv().await,
        } {
            match event {
                Event::Started { reused_tokens, .. } => line.started(reused_tokens),
                Event::Progress { processed, total, reused, elapsed } => {
                    if self.base.progress {
                        self.send(Piece::Progress { processed, total, reused, elapsed });
                    }
                }
                Event::Text { mut text, mut tokens } => {
                    line.first_token();
                    if reader.is_slow() {
                        next = gather(&mut events, &mut text, &mut tokens);
                    }
                    let (back, pieces) = reader.push_aside(self.base.received, text, tokens).await?;
                    reader = back;
                    self.send_all(pieces);
                }
                Event::Done(outcome) => {
                    drop(ticket);
                    self.send_all(reader.finish(reason_of(&outcome) == DoneReason::Stop));
                    let reasoning = tokens_of(&lease, std::mem::take(&mut reader.thinking)).await?;
                    return Ok(self.summary(&outcome, load, &reader, reasoning, context));
                }
                Event::Failed(error) => return Err(Failure::of_request(error)),
            }
        }
        Err(Failure::internal("the model stopped before the answer was complete"))
    }

    /// What the request asks for, in a context with room for so many tokens.
    fn request_options(
        &self,
        load_request: ContextWish,
        room: u32,
        stops_of_prompt: Vec<String>,
    ) -> request::Options {
        let wanted = &self.found.options;
        request::Options {
            max_tokens: Some(wanted.most_tokens(room)),
            sampler: sampler(wanted),
            stops: stops(wanted, stops_of_prompt),
            logprobs: self.base.logprobs,
            num_ctx: load_request.now,
            num_ctx_most: load_request.most,
            shift: self.base.shift.then(|| count(self.found.keep_tokens())),
            progress: true,
            repeat_limit: wanted.is_open_ended().then_some(request::REPEAT_LIMIT),
            draft_most: wanted.most_drafts(),
            prediction: self.base.prediction.clone(),
            ..request::Options::default()
        }
    }

    /// Templates and tokens take a moment for long prompts: not on a thread that serves others.
    async fn prepare(&self, lease: Lease, make: MakePrompt) -> Result<(Lease, Prepared), Failure> {
        let made = tokio::task::spawn_blocking(move || {
            let prepared = make(lease.engine().as_ref());
            (lease, prepared)
        });
        let (lease, prepared) = made.await.map_err(|_| Failure::internal("the prompt could not be made"))?;
        Ok((lease, prepared?))
    }

    fn summary(
        &self,
        outcome: &Outcome,
        load: Duration,
        reader: &Reader,
        reasoning: usize,
        context: Option<Vec<i32>>,
    ) -> Summary {
        let context = context.map(|mut tokens| {
            tokens.extend(&outcome.tokens);
            tokens
        });
        let (prefill, decode) = (&outcome.prefill_stats, &outcome.decode_stats);
        let lookups = [prefill.prefill, prefill.decode, decode.prefill, decode.decode];
        Summary {
            reason: reason_of(outcome),
            prompt_tokens: count(outcome.prompt_tokens),
            reused_tokens: count(outcome.reused_tokens),
            generated_tokens: count(outcome.tokens.len()),
            reasoning_tokens: count(reasoning.min(outcome.tokens.len())),
            total: self.base.received.elapsed(),
            load,
            prefill: outcome.prefill,
            decode: outcome.token_times.iter().sum(),
            first_token: reader.first_token.unwrap_or_else(|| self.base.received.elapsed()),
            bytes_read: prefill.bytes_read + decode.bytes_read,
            hits: lookups.iter().map(|lookups| lookups.hits).sum(),
            misses: lookups.iter().map(|lookups| lookups.misses).sum(),
            drafts: outcome.speculation.proposed,
            drafts_accepted: outcome.speculation.accepted,
            context,
        }
    }

    fn send(&self, piece: Piece) {
        // Nobody listens: the other branch of `run` ends this one.
        drop(self.pieces.send(piece));
    }

    fn send_all(&self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.send(piece);
        }
    }
}

/// Does what takes a moment, or waits for an engine, on a thread that serves nobody else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::internal("the request could not be worked on"))
}

/// Tokens that a text has.
async fn tokens_of(lease: &Lease, text: String) -> Result<usize, Failure> {
    if text.is_empty() {
        return Ok(0);
    }
    let engine = Arc::clone(lease.engine());
    aside(move || engine.tokenize(&text, false, false).len()).await
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Why an answer ended, as clients know it: the end of the context is a limit as any other.
fn reason_of(outcome: &Outcome) -> DoneReason {
    match (outcome.finish, &outcome.stop) {
        (Finish::StopString, Some(stop)) => DoneReason::StopString(stop.clone()),
        (Finish::Length | Finish::ContextFull, _) => DoneReason::Length,
        _ => DoneReason::Stop,
    }
}

/// From so many bytes of an answer on a parser, which reads it all again for each piece, takes long enough to
/// be in the way.
const SLOW_BYTES: usize = 2048;

/// Adds what came meanwhile to a text: a parser that is slower than the model reads more at once, and never
/// falls behind. Returns the first event that is no text.
fn gather(
    events: &mut mpsc::UnboundedReceiver<Event>,
    text: &mut String,
    tokens: &mut Vec<TokenInfo>,
) -> Option<Event> {
    while let Ok(event) = events.try_recv() {
        let Event::Text { text: more, tokens: others } = event else { return Some(event) };
        text.push_str(&more);
        tokens.extend(others);
    }
    None
}

/// Turns the text of an engine into pieces.
struct Reader {
    parser: Option<Box<dyn AnswerParser>>,
    /// Bytes of the answer so far.
    read_bytes: usize,
    /// Log-probabilities of tokens whose text the parser still holds back.
    pending: Vec<TokenLogprob>,
    /// All reasoning so far.
    thinking: String,
    first_token: Option<Duration>,
}

impl Reader {
    /// Whether the next piece takes its parser long.
    fn is_slow(&self) -> bool {
        self.parser.is_some() && self.read_bytes > SLOW_BYTES
    }

    /// The same as [`Self::push`]; what takes long is done where nobody waits for it.
    async fn push_aside(
        mut self,
        received: Instant,
        text: String,
        tokens: Vec<TokenInfo>,
    ) -> Result<(Self, Vec<Piece>), Failure> {
        if !self.is_slow() {
            let pieces = self.push(received, &text, tokens);
            return Ok((self, pieces));
        }
        let read = tokio::task::spawn_blocking(move || {
            let pieces = self.push(received, &text, tokens);
            (self, pieces)
        });
        read.await.map_err(|_| Failure::internal("the answer could not be read"))
    }

    fn push(&mut self, received: Instant, text: &str, tokens: Vec<TokenInfo>) -> Vec<Piece> {
        self.first_token.get_or_insert_with(|| received.elapsed());
        self.read_bytes += text.len();
        self.pending.extend(tokens.into_iter().filter_map(logprob_of));
        let parts = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => vec![ChatDelta::Content(text.to_owned())],
        };
        self.pieces(parts)
    }

    fn finish(&mut self, complete: bool) -> Vec<Piece> {
        let parts = self.parser.as_mut().map(|parser| parser.finish(complete)).unwrap_or_default();
        let mut pieces = self.pieces(parts);
        if !self.pending.is_empty() {
            let logprobs = std::mem::take(&mut self.pending);
            pieces.push(Piece::Content { text: String::new(), logprobs });
        }
        pieces
    }

    fn pieces(&mut self, parts: Vec<ChatDelta>) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                ChatDelta::Reasoning(text) if !text.is_empty() => {
                    self.thinking.push_str(&text);
                    pieces.push(Piece::Thinking { text, logprobs: std::mem::take(&mut self.pending) });
                }
                ChatDelta::Content(text) if !text.is_empty() => {
                    pieces.push(Piece::Content { text, logprobs: std::mem::take(&mut self.pending) });
                }
                ChatDelta::Reasoning(_) | ChatDelta::Content(_) => {}
                ChatDelta::ToolCall { index, id, name, arguments_json } => {
                    let arguments =
                        serde_json::from_str(&arguments_json).unwrap_or(Value::String(arguments_json));
                    pieces.push(Piece::ToolCall(ToolCall { index: count(index), id, name, arguments }));
                }
            }
        }
        pieces
    }
}

/// Tokens without a probability were not asked for theirs.
fn logprob_of(token: TokenInfo) -> Option<TokenLogprob> {
    Some(TokenLogprob {
        token: String::from_utf8_lossy(&token.bytes).into_owned(),
        bytes: token.bytes,
        logprob: token.logprob?,
        top: token.top.into_iter().map(|(_, bytes, logprob)| (bytes, logprob)).collect(),
    })
}

/// The stop strings of the request or the model file, and those of the template.
fn stops(options: &Options, mut template: Vec<String>) -> Vec<String> {
    let asked = options.stop.iter().flatten().filter(|stop| !stop.is_empty()).cloned();
    template.extend(asked);
    template
}

/// Ollama's defaults where nobody says anything.
fn sampler(options: &Options) -> SamplerOptions {
    let int = |value: Option<i64>, default: i32| {
        value.map_or(default, |value| {
            i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
        })
    };
    SamplerOptions {
        temperature: options.temperature.unwrap_or(0.8),
        top_k: int(options.top_k, 40),
        top_p: options.top_p.unwrap_or(0.9),
        min_p: options.min_p.unwrap_or(0.0),
        typical_p: options.typical_p.unwrap_or(1.0),
        repeat_last: int(options.repeat_last_n, 64),
        repeat_penalty: options.repeat_penalty.unwrap_or(1.0),
        presence_penalty: options.presence_penalty.unwrap_or(0.0),
        frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
        // Any number is a seed; −1 draws one.
        seed: options.seed.filter(|seed| *seed != -1).map_or_else(random_seed, folded),
    }
}

/// The standard library's source of random keys serves as one of seeds.
#[expect(clippy::cast_possible_truncation, reason = "half of the bits are enough")]
fn random_seed() -> u32 {
    (RandomState::new().build_hasher().finish() as u32).min(u32::MAX - 1)
}

/// 32 bits of a seed that all of its bits have a part in. llama.cpp draws a seed of its own where all 32 are
/// set.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "all bits were folded into the low ones"
)]
fn folded(seed: i64) -> u32 {
    let bits = seed as u64;
    ((bits ^ (bits >> 32)) as u32).min(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn every_seed_repeats_and_small_ones_are_as_they_were() {
        assert_eq!((folded(0), folded(42), folded(0xffff_fffe)), (0, 42, 0xffff_fffe));
        for seed in [0xffff_ffff, -1, -2, i64::MIN, i64::MAX, 0x1_0000_0000] {
            assert_ne!(folded(seed), u32::MAX, "{seed}");
        }
        assert_ne!(folded(1), folded(0x7_0000_0001), "high bits count");
    }
}
