//! Conversations.

use std::borrow::Cow;
use std::sync::Arc;

use super::fit::{self, Fit};
use super::lookup::{self, Found};
use super::run::{self, Checked, Prepared};
use super::{PieceStream, bounds};
use hypura_store::{Capability, ModelEntry};

use crate::Failure;
use crate::job::{ChatJob, Message};
use crate::models::backend::{ChatInput, Engine, LoadRequest};
use crate::request_log::RequestLine;
use crate::state::Server;

/// Starts a conversation's answer. What can be checked without the model is checked before this returns.
///
/// # Errors
/// Bad names, missing capabilities.
pub async fn chat(server: &Arc<Server>, job: ChatJob) -> Result<PieceStream, Failure> {
    let line = RequestLine::new(&server.counters, &job.base.model, job.base.received);
    run::start(server, line, checked(server, job)).await
}

async fn checked(server: &Arc<Server>, job: ChatJob) -> Result<Checked, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let input = check(&found, &job)?;
    let fit = Fit::of(&found, &job.base, job.truncate);
    let load_request = fit.first(bytes_of(&job));
    let make = Box::new(move |engine: &dyn Engine| {
        bounds::check_chat(&input)?;
        let (prompt, context) = fit::chat(engine, input, fit)?;
        Ok(Prepared { prompt, context, wants_context: false })
    });
    Ok(Checked { base: job.base, found, load_request, make })
}

/// The text that the template makes of a conversation. Loads the model.
///
/// # Errors
/// As [`chat`], and what the template says.
pub async fn render_chat(server: &Arc<Server>, job: ChatJob) -> Result<String, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let input = check(&found, &job)?;
    let load_request = LoadRequest::asked(found.options.context());
    let lease = server.models.acquire(&found.entry, load_request, job.base.keep_alive).await?;
    let rendered = tokio::task::spawn_blocking(move || {
        bounds::check_chat(&input)?;
        lease.engine().render_text(&input)
    })
    .await;
    rendered.map_err(|_| Failure::internal("the prompt could not be made"))?
}

/// Tokens that the prompt of a conversation has for its model, as [`chat`] counts them. Loads the model.
///
/// # Errors
/// As [`chat`], and what the template says.
pub async fn count_chat(server: &Arc<Server>, job: ChatJob) -> Result<usize, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let input = check(&found, &job)?;
    let load_request = LoadRequest::asked(found.options.context());
    let lease = server.models.acquire(&found.entry, load_request, job.base.keep_alive).await?;
    let counted = tokio::task::spawn_blocking(move || {
        bounds::check_chat(&input)?;
        let all: Vec<usize> = (0..input.messages.len()).collect();
        let prompt = lease.engine().renderer(&input)?.render(&all)?;
        Ok(prompt.input.tokens.len())
    });
    counted.await.map_err(|_| Failure::internal("the prompt could not be made"))?
}

/// Bytes of text that the template will have to show, about.
fn bytes_of(job: &ChatJob) -> usize {
    let messages = job.messages.iter().map(|message| message.content.len());
    let tools = job.tools.iter().map(|tool| tool.to_string().len());
    messages.chain(tools).sum()
}

fn check(found: &Found, job: &ChatJob) -> Result<ChatInput, Failure> {
    let entry = &found.entry;
    lookup::require_completion(entry, &job.base.model, "chat")?;
    if !job.tools.is_empty() {
        lookup::require(entry, Capability::Tools, "tools")?;
    }
    lookup::require_modalities(entry, job.messages.iter().flat_map(|message| &message.media))?;
    let think = lookup::thinking(entry, &job.base, job.think.clone())?;
    let messages = with_the_models_own(entry, &job.messages);
    let continues =
        messages.last().is_some_and(|last| last.role == "assistant" && last.tool_calls.is_empty());
    Ok(ChatInput {
        messages: messages.iter().map(Message::to_openai).collect(),
        media: messages.into_iter().map(|message| message.media).collect(),
        tools: job.tools.clone(),
        tool_choice: job.tool_choice,
        parallel_tool_calls: job.parallel_tool_calls,
        format: job.format.clone(),
        think,
        continues,
        template: entry.own_jinja().map(Cow::into_owned),
    })
}

/// The model's system message first unless the request begins with one, then the model's messages, then the
/// request's.
fn with_the_models_own(entry: &ModelEntry, messages: &[Message]) -> Vec<Message> {
    let has_system = messages.first().is_some_and(|message| message.role == "system");
    let system = entry.settings.system.as_deref().filter(|text| !has_system && !text.is_empty());
    let system = system.map(|text| Message::text("system", text));
    system.into_iter().chain(lookup::own_messages(entry)).chain(messages.iter().cloned()).collect()
}
