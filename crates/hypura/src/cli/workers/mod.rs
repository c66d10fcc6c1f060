//! Other machines: offering this one's memory, and using theirs.
//!
//! - `daemon`: `hypura worker`
//! - `session`: the process of one session of it
//! - `open`: taking workers into a process that runs a model
//! - `list`: `hypura workers`

mod daemon;
mod list;
mod open;
mod session;

use hypura_engine::workers;
use hypura_workers::identity::Identity;

pub use daemon::{Args as WorkerArgs, execute as worker};
pub use list::{Args as ListArgs, execute as list};
pub use open::{open, open_in_runner};
pub use session::{Args as SessionArgs, execute as session};

/// Who this program is for other machines.
fn identity() -> Identity {
    Identity::here(env!("CARGO_PKG_VERSION"), &workers::build())
}
