//! llama.cpp's chat templates as the shim has them: what is called, and what comes back.

use super::fault::place_of_fault;
use super::prompt::RawParser;
use super::shim::{Text, last_error};
use super::{ChatError, ChatRequest, ToolChoice};
use crate::error::LoadError;
use crate::sys;
use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};

/// Rendering asks the C library for the local date, which is not thread-safe everywhere: one at a time.
pub(super) static RENDERING: Mutex<()> = Mutex::new(());

/// Templates that are parsed.
pub(super) struct RawTemplates(*mut sys::chat_shim_templates);
// SAFETY: applying a template does not change it; the shim's error text is thread-local.
unsafe impl Send for RawTemplates {}
// SAFETY: as above, and rendering takes the lock above.
unsafe impl Sync for RawTemplates {}

impl RawTemplates {
    /// Parses `template` (Jinja source), or the model's own. The model must be a live one, or null where
    /// there is a template; it is not kept.
    ///
    /// # Errors
    /// [`LoadError::Template`] with the reason.
    ///
    /// # Safety
    /// `model` is null or a live model.
    pub unsafe fn parse(model: *const sys::llama_model, template: Option<&str>) -> Result<Self, LoadError> {
        super::quiet::quiet();
        let source =
            Text::new(template).ok_or_else(|| LoadError::Template("it contains a NUL byte".to_owned()))?;
        if model.is_null() && template.is_none_or(str::is_empty) {
            return Err(LoadError::Template("there is no template".to_owned()));
        }
        // SAFETY: the model is alive or null, and null only where there is a source; the source is
        // NUL-terminated or null.
        let raw = unsafe { sys::chat_shim_templates_init(model, source.as_ptr()) };
        if !raw.is_null() {
            return Ok(Self(raw));
        }
        let reason = last_error();
        // SAFETY: the model is alive wherever it is not null.
        let source = template.map(str::to_owned).or_else(|| unsafe { source_of(model) });
        let at_fault =
            source.filter(|_| reason == "std::exception").map(|source| place_of_fault(&source, parses));
        Err(LoadError::Template(at_fault.unwrap_or(reason)))
    }

    pub fn as_ptr(&self) -> *const sys::chat_shim_templates {
        self.0
    }

    /// llama.cpp's grammar for a call that must come lets any amount of text come first, and small models
    /// then never call. The lazy one begins at the call.
    pub fn call_for(&self, request: &ChatRequest, messages: &str) -> Result<Applied, String> {
        if request.tool_choice == ToolChoice::Required && request.json_schema.is_none() {
            let auto = self.call(request, ToolChoice::Auto, messages)?;
            if auto.result.0.grammar_lazy {
                return Ok(auto);
            }
        }
        self.call(request, request.tool_choice, messages)
    }

    fn call(&self, request: &ChatRequest, choice: ToolChoice, messages: &str) -> Result<Applied, String> {
        const NUL: &str = "a NUL byte in the request";
        let messages_c = Text::new(Some(messages)).ok_or(NUL)?;
        let tools = Text::new(request.tools_json.as_deref()).ok_or(NUL)?;
        let grammar = Text::new(request.grammar.as_deref()).ok_or(NUL)?;
        let schema = Text::new(request.json_schema.as_deref()).ok_or(NUL)?;
        let kwargs = request.reasoning_effort.as_ref().map(|effort| {
            // Each value is itself JSON text.
            serde_json::json!({ "reasoning_effort": serde_json::json!(effort).to_string() }).to_string()
        });
        let kwargs = Text::new(kwargs.as_deref()).ok_or(NUL)?;
        let choice = match choice {
            ToolChoice::Auto => sys::CHAT_SHIM_TOOL_CHOICE_AUTO,
            ToolChoice::Required => sys::CHAT_SHIM_TOOL_CHOICE_REQUIRED,
            ToolChoice::None => sys::CHAT_SHIM_TOOL_CHOICE_NONE,
        };
        let params = sys::chat_shim_apply_params {
            messages_json: messages_c.as_ptr(),
            tools_json: tools.as_ptr(),
            grammar: grammar.as_ptr(),
            json_schema: schema.as_ptr(),
            template_kwargs_json: kwargs.as_ptr(),
            tool_choice: choice.cast_signed(),
            reasoning_format: sys::CHAT_SHIM_REASONING_DEEPSEEK.cast_signed(),
            add_generation_prompt: request.add_generation_prompt || request.continue_final_message,
            enable_thinking: request.enable_thinking.unwrap_or(true),
            parallel_tool_calls: request.parallel_tool_calls,
            use_jinja: true,
            add_bos: false,
            add_eos: false,
            force_pure_content: false,
        };
        // SAFETY: the result struct is plain data filled by the shim.
        let mut result: sys::chat_shim_apply_result = unsafe { std::mem::zeroed() };
        let mut buffer: Vec<u8> = vec![0; messages.len() * 3 + (64 << 10)];
        let _one_at_a_time = RENDERING.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut needed = 0;
            // SAFETY: every pointer is valid for the call, the buffer is passed with its length, and the shim
            // catches exceptions.
            let status = unsafe {
                sys::chat_shim_templates_apply(
                    self.0,
                    &raw const params,
                    &raw mut result,
                    buffer.as_mut_ptr().cast::<c_char>(),
                    buffer.len(),
                    &raw mut needed,
                )
            };
            if status == sys::LLAMA_SHIM_OK {
                return Ok(Applied {
                    buffer,
                    parser: RawParser::own(result.parser),
                    result: Offsets(result),
                });
            }
            if status != sys::LLAMA_SHIM_BUFFER_TOO_SMALL || needed <= buffer.len() {
                return Err(last_error());
            }
            buffer.resize(needed, 0);
        }
    }
}

/// The template in a model's file.
///
/// # Safety
/// `model` is null or a live model.
unsafe fn source_of(model: *const sys::llama_model) -> Option<String> {
    if model.is_null() {
        return None;
    }
    // SAFETY: the model is alive; a null name is the default, and its text lives as long as the model.
    let text = unsafe {
        let text = sys::llama_model_chat_template(model, std::ptr::null());
        if text.is_null() { return None } else { CStr::from_ptr(text) }
    };
    Some(text.to_string_lossy().into_owned())
}

/// Whether a template parses.
fn parses(source: &str) -> bool {
    // An empty one would be the model's own.
    let Some(text) = Text::new(Some(source)).filter(|_| !source.is_empty()) else { return source.is_empty() };
    // SAFETY: there is a source, NUL-terminated, so no model is needed.
    let raw = unsafe { sys::chat_shim_templates_init(std::ptr::null(), text.as_ptr()) };
    if raw.is_null() {
        return false;
    }
    drop(RawTemplates(raw));
    true
}

impl Drop for RawTemplates {
    fn drop(&mut self) {
        // SAFETY: made by chat_shim_templates_init, freed once.
        unsafe { sys::chat_shim_templates_free(self.0) };
    }
}

/// The plain numbers of a result; its parser pointer is owned elsewhere.
pub(super) struct Offsets(pub sys::chat_shim_apply_result);
// SAFETY: only offsets and flags are read; the pointer is not followed.
unsafe impl Send for Offsets {}

/// What the shim packed into one buffer.
pub(super) struct Applied {
    buffer: Vec<u8>,
    pub parser: Option<RawParser>,
    pub result: Offsets,
}

impl Applied {
    pub fn text(&self, offset: usize) -> Result<String, ChatError> {
        self.buffer
            .get(offset..)
            .and_then(|rest| CStr::from_bytes_until_nul(rest).ok())
            .map(|text| text.to_string_lossy().into_owned())
            .ok_or_else(|| ChatError::Template("the rendered prompt is cut off".to_owned()))
    }

    pub fn json(&self, offset: usize) -> Result<Vec<serde_json::Value>, ChatError> {
        serde_json::from_str(&self.text(offset)?).map_err(|error| ChatError::Template(error.to_string()))
    }

    pub fn strings(&self, offset: usize) -> Result<Vec<String>, ChatError> {
        let items = self.json(offset)?;
        Ok(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    /// Bytes of the prompt.
    pub fn text_bytes(&self) -> Result<usize, ChatError> {
        let parts = self.json(self.result.0.prompt_parts_off)?;
        Ok(parts.iter().filter_map(|part| part["text"].as_str()).map(str::len).sum())
    }
}
