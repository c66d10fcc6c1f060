//! Whose protocol this is.

/// The version of Ollama whose protocol this is; digits and dots, because clients calculate with it.
pub const OLLAMA_VERSION: &str = "0.33.0";
