//! `hypura launch AGENT`: a coding agent or an editor that works with a model of the running server.
//!
//! - `args`: its flags
//! - `agent`: which there are, and what their programs are called
//! - `target`: the server and the model that an agent is pointed at
//! - `context`: how much context the plan of that model allows
//! - `choose`: the model, asked of the person at the terminal
//! - `setup`: what an agent needs: variables, arguments, files
//! - `point`, `variables`, `configured`: each agent's: those that take variables and arguments, those that
//!   read files
//! - `places`: where their files are
//! - `json`: changes to JSON with comments that leave everything else as it is
//! - `files`: files changed with a backup, and given back
//! - `show`: a setup as text
//! - `start`: the agent's own program
//!
//! An agent whose program takes all it needs as variables and arguments leaves no trace. What is written is
//! recorded before it is written, so that `--restore` gives back the very bytes, also after a crash.

mod agent;
mod args;
mod choose;
mod configured;
mod context;
mod files;
mod json;
mod places;
mod point;
mod setup;
mod show;
mod start;
mod target;
mod variables;

pub use args::{Args, execute};
