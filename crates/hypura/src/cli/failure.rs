//! Errors for people: one line on stderr, and the exit code that goes with it.

use clap::error::ErrorKind;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::version;

/// Exit code of runtime errors.
pub(super) const RUNTIME: u8 = 1;
/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Flags that are each right but do not go together; exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Help and version go to stdout as they are; a usage error becomes one line.
pub(super) fn of_clap(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayVersion => {
            let long = std::env::args().any(|arg| arg == "--version");
            let text = if long { version::long() } else { version::short() };
            print_quietly(&text)
        }
        ErrorKind::DisplayHelp => {
            // A closed pipe is no reason to complain about help.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => {
            complain(&usage_line(&error.to_string()));
            ExitCode::from(USAGE)
        }
    }
}

/// Says what went wrong. A closed output pipe is the reader's choice: nothing to say.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    complain(&one_line(error));
    ExitCode::from(if error.is::<UsageError>() { USAGE } else { RUNTIME })
}

/// An error and its causes in one line. Many messages quote their cause already: it is not said twice.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.contains(text.trim()) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

pub(super) fn complain(line: &str) {
    // Nowhere is left to report that stderr is closed.
    let _ = writeln!(io::stderr(), "hypura: {line}");
}

fn print_quietly(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to the output: {error}"));
            ExitCode::from(RUNTIME)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// clap's message without its usage block, in one line.
fn usage_line(text: &str) -> String {
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = parts.join(" ").replace(" tip: ", ", ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line} (see --help)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn a_cause_that_was_quoted_is_not_repeated() {
        let error = anyhow!("disk full").context("cannot write x: disk full");
        assert_eq!(one_line(&error), "cannot write x: disk full");
        let error = anyhow!("disk full").context("cannot write x");
        assert_eq!(one_line(&error), "cannot write x: disk full");
        assert_eq!(one_line(&anyhow!("two\n  lines\n")), "two lines");
    }

    #[test]
    fn a_closed_pipe_is_found_below_other_errors() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&Err::<(), _>(broken).context("printing").unwrap_err()));
        assert!(!is_closed_pipe(&anyhow!("broken pipe")));
    }

    #[test]
    fn usage_errors_lose_the_usage_block() {
        let text = "error: unexpected argument '--x' found\n\n  tip: to pass '--x' as a value, use '-- --x'\n\nUsage: hypura run\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_line(text),
            "unexpected argument '--x' found, to pass '--x' as a value, use '-- --x' (see --help)"
        );
    }
}
