//! Prompts.

use hypura_engine::Token;
use hypura_engine::media::{MediaFile, marker, tagged};
use hypura_store::Capability;
use std::borrow::Cow;
use std::sync::Arc;

use super::fit::{self, Fit};
use super::lookup::{self, Found};
use super::run::{self, Checked, Prepared};
use super::{PieceStream, bounds, go_template};
use crate::Failure;
use crate::job::{Format, GenerateJob, Message};
use crate::models::backend::{ChatInput, Engine, LoadRequest, Prompt};
use crate::request_log::RequestLine;
use crate::state::Server;

/// Starts a prompt's answer. What can be checked without the model is checked before this returns.
///
/// # Errors
/// Bad names, missing capabilities, templates that are none.
pub async fn generate(server: &Arc<Server>, job: GenerateJob) -> Result<PieceStream, Failure> {
    let line = RequestLine::new(&server.counters, &job.base.model, job.base.received);
    run::start(server, line, checked(server, job)).await
}

async fn checked(server: &Arc<Server>, job: GenerateJob) -> Result<Checked, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let form = check(&found, &job)?;
    let fit = Fit::of(&found, &job.base, job.truncate);
    let load_request = fit.first(job.prompt.len());
    let wants_context = job.wants_context && !job.raw;
    let make = Box::new(move |engine: &dyn Engine| {
        form.check_bounds()?;
        let mut prompt = form.prompt(engine)?;
        let fit = if prompt.has_media() { fit.whole() } else { fit };
        let context;
        (prompt.input.tokens, context) = fit::tokens(engine, prompt.input.tokens, fit)?;
        Ok(Prepared { prompt, context, wants_context })
    });
    Ok(Checked { base: job.base, found, load_request, make })
}

/// The text that the model would read. Loads the model.
///
/// # Errors
/// As [`generate`], and what the template says.
pub async fn render_generate(server: &Arc<Server>, job: GenerateJob) -> Result<String, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let form = check(&found, &job)?;
    let load_request = LoadRequest::asked(found.options.context());
    let lease = server.models.acquire(&found.entry, load_request, job.base.keep_alive).await?;
    let rendered = tokio::task::spawn_blocking(move || {
        form.check_bounds()?;
        form.text(lease.engine().as_ref())
    })
    .await;
    rendered.map_err(|_| Failure::internal("the prompt could not be made"))?
}

/// How a prompt becomes what the model reads.
enum Form {
    /// It is that already.
    Text { text: String, media: Vec<MediaFile>, format: Format, context: Vec<Token> },
    /// Two texts with a gap.
    Gap { before: String, after: String, format: Format },
    /// A message in a conversation; with a template that the request brought, whose failures are the
    /// request's.
    Chat { input: ChatInput, context: Vec<Token>, own_template: bool },
}

impl Form {
    /// Whether its texts may be read.
    fn check_bounds(&self) -> Result<(), Failure> {
        match self {
            Self::Text { text, .. } => bounds::check([text.as_str()]),
            Self::Gap { before, after, .. } => bounds::check([before.as_str(), after.as_str()]),
            Self::Chat { input, .. } => bounds::check_chat(input),
        }
    }

    fn prompt(self, engine: &dyn Engine) -> Result<Prompt, Failure> {
        let plain = |tokens: Vec<Token>, format| {
            Ok(Prompt {
                input: tokens.into(),
                stops: Vec::new(),
                grammar: engine.grammar(&format)?,
                parser: None,
            })
        };
        match self {
            Self::Text { text, media, format, .. } if !media.is_empty() => {
                let input = engine.tokenize_with_media(&text, &media)?;
                Ok(Prompt { input, ..plain(Vec::new(), format)? })
            }
            Self::Text { text, format, context, .. } => {
                let begins = context.is_empty();
                plain(joined(context, engine.tokenize(&text, begins, true)), format)
            }
            Self::Gap { before, after, format } => {
                let refused = || Failure::bad_request("the model's vocabulary cannot fill a gap");
                plain(engine.infill(&before, &after).ok_or_else(refused)?, format)
            }
            Self::Chat { input, context, own_template } => {
                let mut prompt = rendered(engine, &input).map_err(|failure| blamed(failure, own_template))?;
                if !context.is_empty() {
                    let begin = engine.tokenize("", true, false);
                    let tokens = &mut prompt.input.tokens;
                    if !begin.is_empty() && tokens.starts_with(&begin) {
                        tokens.drain(..begin.len());
                    }
                    *tokens = joined(context, std::mem::take(tokens));
                }
                Ok(prompt)
            }
        }
    }

    fn text(self, engine: &dyn Engine) -> Result<String, Failure> {
        match self {
            Self::Text { text, context, .. } => {
                Ok(engine.detokenize(&context) + &text.replace(marker(), "[img]"))
            }
            Self::Gap { before, after, .. } => {
                let tokens = engine.infill(&before, &after).unwrap_or_default();
                Ok(engine.detokenize(&tokens))
            }
            Self::Chat { input, context, own_template } => {
                let text = engine.render_text(&input).map_err(|failure| blamed(failure, own_template))?;
                Ok(engine.detokenize(&context) + &text)
            }
        }
    }
}

fn rendered(engine: &dyn Engine, input: &ChatInput) -> Result<Prompt, Failure> {
    Ok(engine.renderer(input)?.render(&(0..input.messages.len()).collect::<Vec<_>>())?)
}

/// A template that the request brought fails by the request's fault.
fn blamed(failure: Failure, own_template: bool) -> Failure {
    if own_template && failure.status.is_server_error() {
        return Failure::bad_request(format!("template error: {}", failure.message));
    }
    failure
}

fn joined(mut before: Vec<Token>, after: Vec<Token>) -> Vec<Token> {
    before.extend(after);
    before
}

fn check(found: &Found, job: &GenerateJob) -> Result<Form, Failure> {
    let entry = &found.entry;
    lookup::require_completion(entry, &job.base.model, "generate")?;
    lookup::require_modalities(entry, &job.media)?;
    let think = lookup::thinking(entry, &job.base, job.think.clone())?;
    let context = job.context.clone().unwrap_or_default();
    let format = job.format.clone();
    if !context.is_empty() && !job.media.is_empty() {
        let why = "context and images or audio cannot be given together: use /api/chat, which has messages with images";
        return Err(Failure::bad_request(why));
    }
    if job.raw {
        let (text, media) = tagged(&job.prompt, &job.media);
        return Ok(Form::Text { text, media, format, context: Vec::new() });
    }
    if let Some(after) = job.suffix.as_ref().filter(|suffix| !suffix.is_empty()) {
        lookup::require(entry, Capability::Insert, "insert")?;
        if !job.media.is_empty() {
            return Err(Failure::bad_request("a gap in a text is filled without images and audio"));
        }
        return Ok(Form::Gap { before: job.prompt.clone(), after: after.clone(), format });
    }
    let system = job.system.clone().or_else(|| entry.settings.system.clone()).filter(|text| !text.is_empty());
    let template = job.template.as_deref().filter(|template| !template.is_empty());
    if let Some(template) = template.filter(|template| !go_template::is_jinja(template)) {
        let values = go_template::Values {
            system: system.as_deref().unwrap_or_default(),
            prompt: &job.prompt,
            suffix: job.suffix.as_deref().unwrap_or_default(),
        };
        let text = go_template::render(template, &values)
            .map_err(|error| Failure::bad_request(format!("template error: {error}")))?;
        let (text, media) = tagged(&text, &job.media);
        return Ok(Form::Text { text, media, format, context });
    }
    let own = lookup::own_messages(entry).filter(|_| job.context.is_none());
    let system = system.map(|text| Message::text("system", text));
    let mut user = Message::text("user", job.prompt.clone());
    user.media.clone_from(&job.media);
    user.place_media();
    let messages: Vec<Message> = system.into_iter().chain(own).chain([user]).collect();
    let input = ChatInput {
        messages: messages.iter().map(Message::to_openai).collect(),
        media: messages.into_iter().map(|message| message.media).collect(),
        format,
        think,
        template: template.map(str::to_owned).or_else(|| entry.own_jinja().map(Cow::into_owned)),
        ..ChatInput::default()
    };
    Ok(Form::Chat { input, context, own_template: template.is_some() })
}
