//! What a template does, tried without a model: for templates that strangers bring, in a process that may end
//! over it.

use super::raw::RawTemplates;
use super::templates::{check_tools, split_continuation, without_grammar};
use super::translatable::may_translate;
use super::{ChatError, ChatRequest};
use crate::deep_stack::on_deep_stack;

/// Renders a conversation with a template (Jinja source), and gives the bytes of its text. `bos` and `eos`
/// are the texts of the model's tokens, which the template may ask for.
///
/// # Errors
/// [`ChatError`]: the template cannot be read, or refuses the conversation.
pub fn try_template(
    template: &str,
    (bos, eos): (&str, &str),
    request: &ChatRequest,
) -> Result<usize, ChatError> {
    check_tools(request)?;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let source = format!(
        "{{%- set bos_token = {} -%}}{{%- set eos_token = {} -%}}{template}",
        quoted(bos),
        quoted(eos)
    );
    // SAFETY: there is no model.
    let raw = unsafe { RawTemplates::parse(std::ptr::null(), Some(&source)) };
    let raw = raw.map_err(|error| ChatError::Template(error.to_string()))?;
    let (messages, _) = split_continuation(request)?;
    let apply = |request: &ChatRequest| {
        let applied = on_deep_stack(|| raw.call_for(request, &messages));
        applied.map_err(ChatError::of_template)?.text_bytes()
    };
    // Tools and schemas that have no grammar are for the model's own process to judge.
    let whole = if may_translate(request) { apply(request).ok() } else { None };
    whole.map_or_else(|| apply(&without_grammar(request)), Ok)
}
