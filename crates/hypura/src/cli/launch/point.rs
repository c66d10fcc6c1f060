//! What each agent needs to work with a model.

use super::agent::Agent;
use super::places::Places;
use super::setup::Setup;
use super::target::Target;
use super::{configured, variables};

/// Points an agent at a model.
pub(super) fn point(agent: Agent, target: &Target, places: &Places) -> Setup {
    match agent {
        Agent::Claude => variables::claude(target, places),
        Agent::Codex => variables::codex(target, places),
        Agent::Opencode => variables::opencode(target, places),
        Agent::Aider => variables::aider(target, places),
        Agent::Copilot => variables::copilot(target),
        Agent::Goose => variables::goose(target),
        Agent::Qwen => variables::qwen(target),
        Agent::Cline => configured::cline(target, places),
        Agent::Continue => configured::continue_dev(target, places),
        Agent::Zed => configured::zed(target, places),
        Agent::Vscode => configured::vscode(target, places),
        Agent::Pi => configured::pi(target, places),
        Agent::Droid => configured::droid(target, places),
    }
}
