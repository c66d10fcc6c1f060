//! Commands over models by name: over the server when one of ours runs, so that it is the one truth;
//! otherwise directly on the store.
//!
//! - `list`, `show`: what there is; `partial`: what is not whole yet
//! - `running`: `ps` and `stop`
//! - `edit`: `cp` and `rm`
//! - `create`: new models from Modelfiles
//! - `place`: who answers for the models
//! - `text`: tables, spans, digests

mod create;
mod edit;
mod list;
mod partial;
mod place;
mod running;
mod show;
mod text;

pub(super) use create::Args as CreateArgs;
pub(super) use edit::{CopyArgs, DeleteArgs};
pub(super) use list::Args as ListArgs;
pub(super) use running::{PsArgs, StopArgs};
pub(super) use show::Args as ShowArgs;

pub(super) use create::{create_here as make_model, execute as create};
pub(super) use edit::{copy, delete};
pub(super) use list::execute as list;
pub(super) use place::server as running_server;
pub(super) use running::{ps, stop, tiers};
pub(super) use show::{execute as show, summary};
