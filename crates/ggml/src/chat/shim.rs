//! Habits of the C shims: strings in, "size first, then fill" strings out, an error text per thread.

use crate::sys;
use std::ffi::{CStr, CString, c_char};

/// The reason of the last failed shim call on this thread; never empty.
pub(crate) fn last_error() -> String {
    // SAFETY: never null, thread-local, valid until the next shim call on this thread.
    let text = unsafe { CStr::from_ptr(sys::llama_shim_last_error()) }.to_string_lossy();
    let text = text.trim();
    if text.is_empty() { "no reason given".to_owned() } else { shorten(text) }
}

/// Error texts of llama.cpp quote whole inputs; a client needs the beginning only.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 600;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Calls a function that follows the size-then-fill protocol until the text fits.
///
/// # Errors
/// The shim's reason.
pub(crate) fn text_of(
    guess: usize,
    mut call: impl FnMut(*mut c_char, usize, *mut usize) -> i32,
) -> Result<String, String> {
    let mut buffer: Vec<u8> = vec![0; guess.max(256)];
    loop {
        let mut needed = 0;
        let status = call(buffer.as_mut_ptr().cast(), buffer.len(), &raw mut needed);
        if status == sys::LLAMA_SHIM_OK {
            buffer.truncate(needed.saturating_sub(1));
            return Ok(String::from_utf8(buffer)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()));
        }
        if status != sys::LLAMA_SHIM_BUFFER_TOO_SMALL || needed <= buffer.len() {
            return Err(last_error());
        }
        buffer.resize(needed, 0);
    }
}

/// An optional C string that is null when absent.
pub(crate) struct Text(Option<CString>);

impl Text {
    /// None where the text holds a NUL byte.
    pub(crate) fn new(text: Option<&str>) -> Option<Self> {
        text.map(CString::new).transpose().ok().map(Self)
    }

    /// Valid as long as `self`.
    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.0.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
    }
}

/// Whether a JSON document can be handed to C++: valid, at most 128 levels deep (serde_json's own limit), and
/// without NUL characters in its strings, which would cut C strings short.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn checked_json(text: &str, nul_allowed: bool) -> Result<serde_json::Value, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // An escaped NUL is spelled \u0000 in the source text; look closer only then.
    if !nul_allowed && text.contains("\\u0000") && has_nul(&value) {
        return Err("it contains a NUL character".to_owned());
    }
    Ok(value)
}

fn has_nul(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::checked_json;

    #[test]
    fn hostile_json_is_refused_before_it_reaches_cpp() {
        assert!(checked_json("{", false).is_err());
        assert!(checked_json(&"[".repeat(100_000), false).is_err());
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        assert!(checked_json(&deep, false).unwrap_err().contains("recursion limit"));
        assert_eq!(checked_json(r#"{"a":"x\u0000"}"#, false), Err("it contains a NUL character".to_owned()));
        assert!(checked_json(r#"{"a\u0000":1}"#, false).is_err());
        assert!(checked_json(r#"{"a":"x\u0000"}"#, true).is_ok());
        assert!(checked_json(r#"{"a":"\\u0000"}"#, false).is_ok(), "an escaped backslash is no NUL");
    }
}
