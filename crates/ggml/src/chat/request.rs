//! What a front end asks of a chat template.

/// Whether the model may, must or must not call tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// At least one call.
    Required,
    /// No calls; the tools are still shown to the template.
    None,
}

/// A conversation and what the answer should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRequest {
    /// A JSON array of messages in OpenAI's shape (`role`, `content`, `tool_calls`, `reasoning_content`, …).
    pub messages_json: String,
    /// A JSON array of tools in OpenAI's shape.
    pub tools_json: Option<String>,
    /// Whether tools may be called.
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// The answer (after any reasoning) must fit this JSON schema.
    pub json_schema: Option<String>,
    /// The answer must fit this GBNF grammar; excludes tools.
    pub grammar: Option<String>,
    /// For templates that can switch reasoning: on or off; `None`: on.
    pub enable_thinking: Option<bool>,
    /// For templates that know levels of reasoning (`low`, `medium`, `high`, …).
    pub reasoning_effort: Option<String>,
    /// Ends the prompt with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// When the last message is the assistant's: go on in it instead of answering it.
    pub continue_final_message: bool,
}

impl Default for ChatRequest {
    fn default() -> Self {
        Self {
            messages_json: "[]".to_owned(),
            tools_json: None,
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            json_schema: None,
            grammar: None,
            enable_thinking: None,
            reasoning_effort: None,
            add_generation_prompt: true,
            continue_final_message: false,
        }
    }
}

impl ChatRequest {
    /// A plain conversation.
    #[must_use]
    pub fn new(messages_json: impl Into<String>) -> Self {
        Self { messages_json: messages_json.into(), ..Self::default() }
    }
}
