//! The chat templates of a model: llama.cpp's own Jinja engine, through the shim of the sys crate.

use super::placeholders::{WithPlaceholders, types_only};
use super::prompt::{ChatParserState, ChatPrompt, Thinking};
use super::raw::{Applied, RENDERING, RawTemplates};
use super::schema::check_grammar;
use super::shim;
use super::tagged::Tagged;
use super::translatable::{may_translate, may_translate_format};
use super::{ChatError, ChatRequest, ToolChoice};
use crate::deep_stack::on_deep_stack;
use crate::error::LoadError;
use crate::grammar::{Grammar, GrammarKind, GrammarTrigger};
use crate::model::Model;
use crate::schema::shows_placeholders;
use crate::sys;
use crate::vocab::Vocab;
use std::sync::{Arc, PoisonError};

/// The chat templates of a model.
pub struct ChatTemplates {
    raw: RawTemplates,
    model: Model,
}

/// What a template can express.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatCaps {
    /// It describes tools to the model.
    pub tools: bool,
    /// It renders tool calls of earlier turns.
    pub tool_calls: bool,
    /// It renders several calls in one turn.
    pub parallel_tool_calls: bool,
    /// The model may reason before it answers.
    pub thinking: bool,
    /// It has a place for a system message.
    pub system_role: bool,
    /// It reads `reasoning_effort`.
    pub reasoning_effort: bool,
    /// The model file (or the caller) brought a template; otherwise ChatML is assumed.
    pub explicit: bool,
}

impl ChatTemplates {
    /// Reads the model's template, or `template` (Jinja source) instead.
    ///
    /// # Errors
    /// [`LoadError::Template`] with the reason.
    pub fn new(model: &Model, template: Option<&str>) -> Result<Self, LoadError> {
        // SAFETY: the model is alive.
        let raw = unsafe { RawTemplates::parse(model.raw(), template) }?;
        Ok(Self { raw, model: model.clone() })
    }

    /// Reads the model's own template. Where the file has none, or one that does not parse, `ChatML` is
    /// taken; the text says so, and why.
    ///
    /// # Errors
    /// [`LoadError::Template`]: not even that can be used.
    pub fn of_model(model: &Model) -> Result<(Self, Option<String>), LoadError> {
        const ASSUMED: &str = "ChatML is assumed, which the model may not know; a Modelfile with TEMPLATE gives \
                               it the right one";
        match Self::new(model, None) {
            Ok(templates) => {
                let explicit = templates.caps().explicit;
                let note = (!explicit).then(|| format!("the file has no chat template: {ASSUMED}"));
                Ok((templates, note))
            }
            Err(LoadError::Template(reason)) => {
                let note = format!("the chat template of the file does not parse ({reason}): {ASSUMED}");
                Self::new(model, Some("chatml")).map(|templates| (templates, Some(note)))
            }
            Err(error) => Err(error),
        }
    }

    /// Renders messages (a JSON array in OpenAI's shape), ready for the answer.
    ///
    /// # Errors
    /// [`LoadError::Template`] when the template refuses the messages.
    pub fn render(&self, messages_json: &str) -> Result<ChatPrompt, LoadError> {
        self.apply(&ChatRequest::new(messages_json)).map_err(|error| LoadError::Template(error.to_string()))
    }

    /// The Jinja source in use.
    #[must_use]
    pub fn source(&self) -> String {
        shim::text_of(16 << 10, |buffer, length, needed| {
            // SAFETY: the templates are alive, a null variant is the default, the buffer comes with its
            // length.
            unsafe {
                sys::chat_shim_templates_source(self.raw.as_ptr(), std::ptr::null(), buffer, length, needed)
            }
        })
        .unwrap_or_default()
    }

    /// What the template can express.
    #[must_use]
    pub fn caps(&self) -> ChatCaps {
        let text = shim::text_of(1 << 10, |buffer, length, needed| {
            // SAFETY: the templates are alive, the buffer comes with its length.
            unsafe { sys::chat_shim_templates_get_caps(self.raw.as_ptr(), buffer, length, needed) }
        });
        let caps: serde_json::Value =
            text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let has = |name: &str| caps[name].as_bool().unwrap_or(false);
        let _one_at_a_time = RENDERING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the templates are alive; both functions catch exceptions and then answer false.
        let (thinking, explicit) = unsafe {
            (
                sys::chat_shim_templates_support_enable_thinking(self.raw.as_ptr()),
                sys::chat_shim_templates_was_explicit(self.raw.as_ptr()),
            )
        };
        ChatCaps {
            tools: has("supports_tools"),
            tool_calls: has("supports_tool_calls"),
            parallel_tool_calls: has("supports_parallel_tool_calls"),
            thinking,
            system_role: has("supports_system_role"),
            reasoning_effort: has("supports_reasoning_effort"),
            explicit,
        }
    }

    /// Renders a conversation, and prepares the grammar and the parser for its answer.
    ///
    /// # Errors
    /// [`ChatError`] with a reason for the client.
    pub fn apply(&self, request: &ChatRequest) -> Result<ChatPrompt, ChatError> {
        let (messages, continued) = split_continuation(request)?;
        check_tools(request)?;
        if let Some(grammar) = &request.grammar {
            check_grammar(grammar)?;
        }
        let mut prompt = match WithPlaceholders::of(request, &self.model.vocab())? {
            None => self.prompt(request, &messages)?,
            Some(replaced) => self.prompt_with_schemas(request, replaced, &messages)?,
        };
        if let Some(message) = continued {
            message.append_to(&mut prompt);
        }
        Ok(prompt)
    }

    /// A prompt whose grammar is llama.cpp's where values of schemas stand, and llguidance's within them.
    fn prompt_with_schemas(
        &self,
        request: &ChatRequest,
        replaced: WithPlaceholders,
        messages: &str,
    ) -> Result<ChatPrompt, ChatError> {
        let mut prompt = match self.prompt(&replaced.request, messages) {
            Ok(prompt) if replaced.are_in(prompt.grammar.as_ref()) => prompt,
            // Arguments are not one JSON value in this template, or nothing has a grammar.
            Ok(prompt)
                if prompt.grammar.is_some() && request.json_schema.is_none() && may_translate(request) =>
            {
                return self.prompt_with_tags(request, messages);
            }
            _ => return self.prompt_of_llama(request, messages),
        };
        if let Some(grammar) = &mut prompt.grammar {
            grammar.schemas = replaced.schemas;
        }
        if request.tools_json.is_none() && !shows_placeholders(&prompt.text) {
            return Ok(prompt);
        }
        // The model reads the schemas themselves.
        let shown = may_translate(request).then(|| self.prompt(request, messages));
        match shown {
            Some(Ok(shown)) => {
                (prompt.text, prompt.parts, prompt.parser) = (shown.text, shown.parts, shown.parser)
            }
            _ => {
                let shown = self.prompt(&without_grammar(request), messages)?;
                (prompt.text, prompt.parts) = (shown.text, shown.parts);
            }
        }
        Ok(prompt)
    }

    /// A prompt for a template that writes a tag for each argument, if this one does.
    fn prompt_with_tags(&self, request: &ChatRequest, messages: &str) -> Result<ChatPrompt, ChatError> {
        let tagged = Tagged::of(request, &self.model.vocab())?;
        let of_llama = self.prompt_of_llama(request, messages)?;
        match self.prompt(&tagged.request, messages).map(|prompt| prompt.grammar) {
            Ok(Some(mut grammar)) if tagged.is_in(&grammar) => {
                tagged.check_strict()?;
                tagged.fill_in(&mut grammar);
                Ok(ChatPrompt { grammar: Some(grammar), ..of_llama })
            }
            _ => Ok(of_llama),
        }
    }

    /// A prompt whose grammar is llama.cpp's alone. What it cannot translate of tools is not enforced.
    fn prompt_of_llama(&self, request: &ChatRequest, messages: &str) -> Result<ChatPrompt, ChatError> {
        if !may_translate_format(request) {
            return Err(ChatError::Schema("it is too large for a template without JSON".to_owned()));
        }
        let tools = request.tools_json.as_deref();
        if may_translate(request) {
            match self.prompt(request, messages) {
                Err(_) if tools.is_some() => {}
                prompt => return prompt,
            }
        }
        let shown = self.prompt(&without_grammar(request), messages)?;
        let loose = ChatRequest { tools_json: tools.and_then(types_only), ..request.clone() };
        let ChatPrompt { text, parts, .. } = shown;
        Ok(ChatPrompt { text, parts, ..self.prompt(&loose, messages)? })
    }

    fn prompt(&self, request: &ChatRequest, messages: &str) -> Result<ChatPrompt, ChatError> {
        // The thread with the deep stack calls llama.cpp.
        let applied =
            on_deep_stack(|| self.raw.call_for(request, messages)).map_err(ChatError::of_template)?;
        applied.into_prompt(request, &self.model.vocab())
    }
}

impl Applied {
    fn into_prompt(self, request: &ChatRequest, vocab: &Vocab) -> Result<ChatPrompt, ChatError> {
        let result = self.result.0;
        let parts: Vec<(String, bool)> = self
            .json(result.prompt_parts_off)?
            .iter()
            .filter_map(|part| Some((part["text"].as_str()?.to_owned(), part["is_input"].as_bool()?)))
            .collect();
        // Not the flat text of the shim: a NUL character in a message would end it early.
        let text: String = parts.iter().map(|(text, _)| text.as_str()).collect();
        let preserved_tokens = self.strings(result.preserved_tokens_off)?;
        let thinking = Thinking {
            start: self.text(result.thinking_start_tag_off)?,
            ends: self.strings(result.thinking_end_tags_off)?,
        };
        let generation_prompt = self.text(result.generation_prompt_off)?;
        let gbnf = self.text(result.grammar_off)?;
        let grammar = if gbnf.is_empty() {
            None
        } else {
            check_grammar(&gbnf)?;
            let triggers = self.json(result.grammar_triggers_off)?;
            let forced = result.grammar_lazy && request.tool_choice == ToolChoice::Required;
            let kind = if request.grammar.is_some() {
                GrammarKind::User
            } else if request.json_schema.is_some() {
                GrammarKind::OutputFormat
            } else {
                GrammarKind::ToolCalls
            };
            let grammar = Grammar {
                schemas: Vec::new(),
                gbnf: with_calls_as_asked(&gbnf, forced, request.parallel_tool_calls),
                kind,
                lazy: result.grammar_lazy && !forced,
                forced,
                triggers: triggers
                    .iter()
                    .filter_map(|value| trigger(value, &preserved_tokens, vocab))
                    .collect(),
                generation_prompt: generation_prompt.clone(),
                thinking_start: thinking.start.clone(),
                thinking_ends: thinking.ends.clone(),
            };
            Some(grammar)
        };
        let tags = std::iter::once(&thinking.start)
            .chain(&thinking.ends)
            .chain(&preserved_tokens)
            .filter(|tag| !tag.is_empty())
            .cloned()
            .collect();
        Ok(ChatPrompt {
            text,
            parts,
            stops: self.strings(result.additional_stops_off)?,
            grammar,
            preserved_tokens,
            supports_thinking: result.supports_thinking,
            parser: ChatParserState {
                raw: self.parser.map(Arc::new),
                format: result.format,
                generation_prompt,
                tags: Arc::new(tags),
                thinking: Arc::new(thinking),
                continued: false,
            },
        })
    }
}

/// # Errors
/// [`ChatError::Input`] where the tools of a request are no JSON, or more than a template should see.
pub(super) fn check_tools(request: &ChatRequest) -> Result<(), ChatError> {
    let Some(tools) = &request.tools_json else { return Ok(()) };
    if tools.len() > MOST_TOOL_BYTES {
        let bytes = tools.len();
        return Err(ChatError::Input(format!("tools of {bytes} bytes, more than {MOST_TOOL_BYTES}")));
    }
    shim::checked_json(tools, false).map_err(|error| ChatError::Input(format!("tools: {error}")))?;
    Ok(())
}

/// Most bytes of a request's tools: more than any context holds of them. A template takes some 200 bytes of
/// memory for each, and a model's process has few to spare.
const MOST_TOOL_BYTES: usize = 1 << 20;

fn trigger(value: &serde_json::Value, preserved: &[String], vocab: &Vocab) -> Option<GrammarTrigger> {
    let text = value["value"].as_str()?.to_owned();
    match value["type"].as_str()? {
        // A word that is one token of its own is awaited as that token.
        "word" => Some(match vocab.tokenize(&text, false, true).as_slice() {
            [token] if preserved.contains(&text) => GrammarTrigger::Token(*token),
            _ => GrammarTrigger::Word(text),
        }),
        "pattern" => Some(GrammarTrigger::Pattern(text)),
        "pattern_full" => Some(GrammarTrigger::PatternFull(text)),
        "token" => Some(GrammarTrigger::Token(i32::try_from(value["token"].as_i64()?).ok()?)),
        _ => None,
    }
}

/// llama.cpp's rule for calls with a tag each takes any number of them, whatever was asked, and spaces
/// without a call: a small model that must call writes nothing else.
fn with_calls_as_asked(gbnf: &str, forced: bool, several: bool) -> String {
    let calls = match (forced, several) {
        (false, true) => return gbnf.to_owned(),
        (false, false) => "(tool-call? space)",
        (true, true) => "(tool-call space)+",
        (true, false) => "(tool-call space)",
    };
    gbnf.replace("(tool-call? space)+", calls)
}

/// The same conversation; nothing of the answer is asked for.
pub(super) fn without_grammar(request: &ChatRequest) -> ChatRequest {
    ChatRequest { tool_choice: ToolChoice::None, json_schema: None, ..request.clone() }
}

/// An assistant message that the answer continues from.
pub(super) struct Continued {
    reasoning: Option<String>,
    content: Option<String>,
}

/// Takes the final assistant message off, where the request wants it continued. The shim does not offer
/// llama.cpp's own continuation, so the same is done here: render what comes before it, then append it behind
/// the generation prompt.
pub(super) fn split_continuation(request: &ChatRequest) -> Result<(String, Option<Continued>), ChatError> {
    let invalid = |error: String| ChatError::Input(format!("messages: {error}"));
    let value = shim::checked_json(&request.messages_json, true).map_err(invalid)?;
    let serde_json::Value::Array(mut messages) = value else {
        return Err(invalid("not a JSON array".to_owned()));
    };
    let last = messages.last();
    if !request.continue_final_message || last.is_none_or(|last| last["role"] != "assistant") {
        return Ok((request.messages_json.clone(), None));
    }
    let last = messages.pop().unwrap_or_default();
    let field = |name: &str| last[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let content = field("content").or_else(|| {
        let parts = last["content"].as_array()?;
        Some(parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n\n"))
    });
    let continued = Continued { reasoning: field("reasoning_content"), content };
    Ok((serde_json::Value::Array(messages).to_string(), Some(continued)))
}

impl Continued {
    fn append_to(self, prompt: &mut ChatPrompt) {
        let state = &mut prompt.parser;
        let thinking = Arc::clone(&state.thinking);
        let mut opening = String::new();
        let harmony = thinking.start == "<|channel|>analysis<|message|>";
        let opened = !thinking.start.is_empty() && state.generation_prompt.contains(&thinking.start);
        let end = thinking.ends.first().map_or("", String::as_str);
        let closed = thinking.ends.iter().any(|end| state.generation_prompt.contains(end.as_str()));
        if let Some(reasoning) = &self.reasoning
            && !thinking.start.is_empty()
            && !closed
        {
            if !opened {
                opening.push_str(&thinking.start);
                opening.push_str(if harmony { "" } else { "\n" });
            }
            opening.push_str(reasoning);
        }
        if self.content.is_some() && !closed && (opened || self.reasoning.is_some()) && !harmony {
            opening.push_str(&format!("\n{end}\n\n"));
        }
        if self.content.is_some() && harmony {
            if self.reasoning.is_some() {
                opening.push_str("<|end|><|start|>assistant");
            }
            opening.push_str("<|channel|>final<|message|>");
        }
        let content = self.content.unwrap_or_default();
        for (text, is_input) in [(opening, false), (content, true)] {
            if text.is_empty() {
                continue;
            }
            prompt.text.push_str(&text);
            state.generation_prompt.push_str(&text);
            prompt.parts.push((text, is_input));
        }
        if let Some(grammar) = &mut prompt.grammar {
            grammar.generation_prompt.clone_from(&state.generation_prompt);
        }
        state.continued = true;
    }
}
