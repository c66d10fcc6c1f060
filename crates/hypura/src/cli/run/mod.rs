//! `hypura run`: answer one prompt, or chat.
//!
//! - `args`: its flags
//! - `prompt`: where the prompt comes from
//! - `media`: images and sounds, by flag or by name in the prompt
//! - `conversation`: what was said so far
//! - `embedder`: models that cannot answer
//! - `border`: what a file may do to a run of it
//! - `local`: a model that is loaded here
//! - `answer`: one generation, shown as it comes
//! - `chat`: the conversation on a terminal
//! - `screen`: how an answer looks
//! - `about`: what a chat shows of a model that is loaded here, and keeps of it
//! - `model_defaults`: defaults of a stored model: system prompt, parameters, messages
//! - `remote`: the same over a running server
//! - `stats`, `stats_file`: what it cost, for programs
//! - `report`: what it cost, for people

mod about;
mod answer;
mod args;
mod audit;
mod border;
mod chat;
mod conversation;
mod embedder;
mod local;
mod media;
mod model_defaults;
mod prompt;
mod remote;
mod report;
mod screen;
mod stats;
mod stats_file;

use hypura_engine::stream::RouteLog;
use std::process::ExitCode;

use super::pull::{Missing, pull_if_missing};

pub use args::Args;

/// Runs it.
///
/// # Errors
/// Whatever stands in the way of an answer.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let mut remote = remote::find(args)?;
    if remote.is_none() {
        match pull_if_missing(&args.model)? {
            Missing::No => {}
            Missing::Pulled => remote = remote::find(args)?,
            Missing::Stopped(code) => return Ok(code),
        }
    }
    match remote {
        Some(remote) => remote::execute(args, remote),
        None => local::execute(args, None),
    }
}

/// Runs it, and logs which experts the tokens used.
///
/// # Errors
/// As [`execute`].
pub(super) fn execute_recorded(args: &Args, log: &RouteLog) -> anyhow::Result<ExitCode> {
    local::execute(args, Some(log.clone()))
}
