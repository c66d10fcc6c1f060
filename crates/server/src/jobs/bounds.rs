//! How much text a request may have for C++ to read, checked before any of it is.
//!
//! Tokenising takes time with the bytes, and where llama.cpp cuts words by `std::regex` it recurses once for
//! each character of a run of one kind: its stack bounds how long such a run may be.

use serde_json::Value;

use crate::Failure;
use crate::models::backend::ChatInput;

/// Most bytes of all texts of a request: more than any context holds.
pub(super) const MOST_BYTES: usize = 16 << 20;
/// Most messages of a conversation. Templates take a tenth of a millisecond for each, and are rendered again
/// for each beginning that is left out of a prompt that does not fit.
const MOST_MESSAGES: usize = 10_000;
/// Most characters of one kind in a row, within the stack that a runner has for text.
const MOST_RUN: usize = 100_000;

/// What regular expressions of tokenisers tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Number,
    Other,
}

fn kind_of(c: char) -> Kind {
    match c {
        c if c.is_whitespace() => Kind::Space,
        c if c.is_alphabetic() => Kind::Letter,
        c if c.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

/// Whether these texts may be read.
///
/// # Errors
/// 400: they are too long, or one of them has too long a run of one kind of character.
pub(super) fn check<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
    let mut bytes = 0_usize;
    for text in texts {
        bytes = bytes.saturating_add(text.len());
        if bytes > MOST_BYTES {
            let message = format!("the prompt has more than {MOST_BYTES} bytes of text");
            return Err(Failure::bad_request(message));
        }
        if longest_run(text) > MOST_RUN {
            let message = format!(
                "the prompt has more than {MOST_RUN} characters of one kind in a row, without a space or a sign"
            );
            return Err(Failure::bad_request(message));
        }
    }
    Ok(())
}

/// Whether a text may be read.
///
/// # Errors
/// 400: it is too long, or has too long a run of one kind of character.
pub fn check_text(text: &str) -> Result<(), Failure> {
    check([text])
}

/// Whether the texts of a conversation may be read, those of its tools included.
///
/// # Errors
/// As [`check`].
pub(super) fn check_chat(chat: &ChatInput) -> Result<(), Failure> {
    let messages = chat.messages.len();
    if messages > MOST_MESSAGES {
        let message = format!("the conversation has {messages} messages, and may have {MOST_MESSAGES}");
        return Err(Failure::bad_request(message));
    }
    fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => texts.push(text),
            Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
            Value::Object(fields) => fields.values().for_each(|field| collect(field, texts)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut texts = Vec::new();
    chat.messages.iter().chain(&chat.tools).for_each(|value| collect(value, &mut texts));
    check(texts)
}

fn longest_run(text: &str) -> usize {
    // A run has no more characters than the text has bytes.
    if text.len() <= MOST_RUN {
        return 0;
    }
    let (mut longest, mut run, mut kind) = (0, 0, None);
    for next in text.chars().map(kind_of) {
        run = if kind == Some(next) { run + 1 } else { 1 };
        kind = Some(next);
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At about 0.1 ms each a quarter of a million would take longer than the deadline that ends the model.
    #[test]
    fn conversations_of_very_many_messages_are_refused() {
        let of = |count: usize| {
            let messages = vec![serde_json::json!({"role": "user", "content": "x"}); count];
            check_chat(&ChatInput { messages, ..ChatInput::default() })
        };
        assert!(of(MOST_MESSAGES).is_ok());
        assert!(of(MOST_MESSAGES + 1).unwrap_err().message.contains("may have 10000"));
    }

    #[test]
    fn long_runs_and_long_texts_are_refused_before_they_are_read() {
        for c in ['-', 'a', '7', ' ', '☃', '漢'] {
            let run = c.to_string().repeat(MOST_RUN);
            assert!(check([run.as_str()]).is_ok(), "{c}");
            let longer = format!("x, {run}{c}.");
            assert_eq!(check([longer.as_str()]).unwrap_err().status, 400, "{c}");
        }
        let words = "word ".repeat(MOST_BYTES / 5);
        assert!(check([words.as_str()]).is_ok());
        assert_eq!(check([words.as_str(), "and more"]).unwrap_err().status, 400);
    }
}
