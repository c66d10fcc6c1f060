//! Where the prompt comes from: the argument, standard input, or a person at a terminal.

use anyhow::{Context as _, bail};
use hypura_engine::error::GenerateError;
use std::io::{self, IsTerminal as _, Read};

/// No context is as long as this; a pipe that never ends must not fill the memory.
const LONGEST_INPUT: u64 = 64 << 20;

/// What there is to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// This text.
    Text(String),
    /// Whatever is typed.
    Terminal,
}

/// Finds the prompt. Reads standard input to its end when there is no argument and no person to talk to.
///
/// # Errors
/// When it cannot be read, is no text, or is empty.
pub(super) fn input(argument: Option<&str>) -> anyhow::Result<Input> {
    let text = match argument {
        Some(text) => text.to_owned(),
        None if io::stdin().is_terminal() && io::stdout().is_terminal() => return Ok(Input::Terminal),
        None => read(io::stdin().lock())?,
    };
    if text.trim().is_empty() {
        return Err(GenerateError::EmptyPrompt.into());
    }
    Ok(Input::Text(text))
}

fn read(from: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(LONGEST_INPUT + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the prompt from standard input")?;
    if bytes.len() as u64 > LONGEST_INPUT {
        bail!("the prompt on standard input is longer than {} MiB: shorten it", LONGEST_INPUT >> 20);
    }
    let mut text = String::from_utf8(bytes)
        .context("the prompt on standard input is not UTF-8 text: convert it, for instance with iconv")?;
    // The line end that `echo` adds is not meant.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_dropped_and_nothing_else() {
        assert_eq!(read(&b" a\n\n"[..]).unwrap(), " a\n");
        assert_eq!(read(&b"a"[..]).unwrap(), "a");
    }

    #[test]
    fn what_is_no_text_or_never_ends_is_refused() {
        assert!(read(&b"\xff\xfe"[..]).unwrap_err().to_string().contains("UTF-8"));
        assert!(read(io::repeat(b'a')).unwrap_err().to_string().contains("64 MiB"));
    }

    #[test]
    fn an_empty_prompt_is_an_error() {
        for text in ["", " \n\t"] {
            assert!(input(Some(text)).unwrap_err().to_string().contains("empty"));
        }
        assert_eq!(input(Some("hi")).unwrap(), Input::Text("hi".to_owned()));
    }
}
