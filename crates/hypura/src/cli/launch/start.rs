//! The agent's own program, in place of this one: its exit code, its terminal and its signals are its own.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::setup::Setup;

/// Becomes the agent.
///
/// # Errors
/// When the system cannot start it.
pub(super) fn replace_this_process(
    program: &Path,
    setup: &Setup,
    arguments: &[String],
) -> anyhow::Result<ExitCode> {
    let own = if arguments.is_empty() { &setup.without_arguments } else { arguments };
    if let Some(hint) = &setup.hint {
        eprintln!("{hint}");
    }
    let variables = setup.variables.iter().map(|(name, value)| (*name, value));
    let error = Command::new(program).args(&setup.arguments).args(own).envs(variables).exec();
    Err(anyhow::Error::new(error).context(format!("cannot start {}", program.display())))
}
