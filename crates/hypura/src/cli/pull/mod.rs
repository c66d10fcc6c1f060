//! `hypura pull`: a model arrives, after the plan was shown.
//!
//! - `command`: its flags, and what follows upon what
//! - `offer`: what can be had, and whether it should be
//! - `forecast`: what it will do on this machine, and what its other quantisations would
//! - `screen`: that for people
//! - `fetch`: the download, by the server that runs or here, with a progress bar
//! - `missing`: `hypura run` of a model that is not here

mod command;
mod fetch;
mod forecast;
mod missing;
mod offer;
mod screen;

pub use command::{Args, execute};
pub(super) use missing::{Missing, pull_if_missing};
