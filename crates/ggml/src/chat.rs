//! Chat templates: llama.cpp's own Jinja engine, through the shim of the sys crate.

use crate::error::LoadError;
use crate::model::Model;
use crate::sys;
use std::ffi::{CStr, CString, c_char};

/// The chat templates of a model.
pub struct ChatTemplates {
    raw: *mut sys::chat_shim_templates,
    _model: Model,
}
// SAFETY: applying a template does not change it; the shim's error text is thread-local.
unsafe impl Send for ChatTemplates {}

/// A conversation turned into a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The text to tokenize, with control tokens spelled out.
    pub text: String,
    /// The same text in parts: what the template wrote (`false`) and what came from messages (`true`, to be tokenized
    /// without reading control tokens).
    pub parts: Vec<(String, bool)>,
    /// Strings that end the answer, beside the model's own end tokens.
    pub stops: Vec<String>,
}

impl ChatTemplates {
    /// Reads the model's template, or `template` (Jinja source) instead.
    ///
    /// # Errors
    /// [`LoadError::Template`] with the reason.
    pub fn new(model: &Model, template: Option<&str>) -> Result<Self, LoadError> {
        let template = template
            .map(CString::new)
            .transpose()
            .map_err(|_| LoadError::Template("it contains a NUL byte".to_owned()))?;
        let source = template.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the model is alive and kept alive; the source is NUL-terminated or null.
        let raw = unsafe { sys::chat_shim_templates_init(model.raw(), source) };
        if raw.is_null() {
            return Err(LoadError::Template(last_error()));
        }
        Ok(Self { raw, _model: model.clone() })
    }

    /// Renders messages (a JSON array in OpenAI's shape), ready for the answer.
    ///
    /// # Errors
    /// [`LoadError::Template`] when the template refuses the messages.
    pub fn render(&self, messages_json: &str) -> Result<ChatPrompt, LoadError> {
        let messages = CString::new(messages_json)
            .map_err(|_| LoadError::Template("a message contains a NUL byte".to_owned()))?;
        let params = sys::chat_shim_apply_params {
            messages_json: messages.as_ptr(),
            tools_json: std::ptr::null(),
            grammar: std::ptr::null(),
            json_schema: std::ptr::null(),
            template_kwargs_json: std::ptr::null(),
            tool_choice: sys::CHAT_SHIM_TOOL_CHOICE_AUTO.cast_signed(),
            reasoning_format: sys::CHAT_SHIM_REASONING_NONE.cast_signed(),
            add_generation_prompt: true,
            enable_thinking: true,
            parallel_tool_calls: false,
            use_jinja: true,
            add_bos: false,
            add_eos: false,
            force_pure_content: false,
        };
        // SAFETY: the result struct is plain data filled by the shim.
        let mut result: sys::chat_shim_apply_result = unsafe { std::mem::zeroed() };
        let mut buffer: Vec<u8> = vec![0; messages_json.len() * 2 + 4096];
        loop {
            let mut needed = 0;
            // SAFETY: every pointer is valid for the call and the buffer is passed with its length.
            let status = unsafe {
                sys::chat_shim_templates_apply(
                    self.raw,
                    &raw const params,
                    &raw mut result,
                    buffer.as_mut_ptr().cast::<c_char>(),
                    buffer.len(),
                    &raw mut needed,
                )
            };
            if status == sys::LLAMA_SHIM_OK {
                break;
            }
            if status != sys::LLAMA_SHIM_BUFFER_TOO_SMALL || needed <= buffer.len() {
                return Err(LoadError::Template(last_error()));
            }
            buffer.resize(needed, 0);
        }
        // SAFETY: on success the caller owns the parser (or null, which is fine to free).
        unsafe { sys::chat_shim_parser_free(result.parser) };
        prompt_of(&buffer, &result)
    }
}

impl Drop for ChatTemplates {
    fn drop(&mut self) {
        // SAFETY: made by chat_shim_templates_init, freed once.
        unsafe { sys::chat_shim_templates_free(self.raw) };
    }
}

fn prompt_of(buffer: &[u8], result: &sys::chat_shim_apply_result) -> Result<ChatPrompt, LoadError> {
    let text = |offset: usize| {
        buffer
            .get(offset..)
            .and_then(|rest| CStr::from_bytes_until_nul(rest).ok())
            .map(|text| text.to_string_lossy().into_owned())
            .ok_or_else(|| LoadError::Template("the rendered prompt is cut off".to_owned()))
    };
    let json = |offset: usize| -> Result<serde_json::Value, LoadError> {
        serde_json::from_str(&text(offset)?).map_err(|error| LoadError::Template(error.to_string()))
    };
    let parts = json(result.prompt_parts_off)?
        .as_array()
        .map(|parts| {
            parts
                .iter()
                .filter_map(|part| Some((part["text"].as_str()?.to_owned(), part["is_input"].as_bool()?)))
                .collect()
        })
        .unwrap_or_default();
    let stops = json(result.additional_stops_off)?
        .as_array()
        .map(|stops| stops.iter().filter_map(|stop| Some(stop.as_str()?.to_owned())).collect())
        .unwrap_or_default();
    Ok(ChatPrompt { text: text(result.prompt_off)?, parts, stops })
}

fn last_error() -> String {
    // SAFETY: never null, thread-local, valid until the next shim call on this thread.
    let text = unsafe { CStr::from_ptr(sys::llama_shim_last_error()) }.to_string_lossy().into_owned();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}
