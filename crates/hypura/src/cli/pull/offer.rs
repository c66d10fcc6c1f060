//! What can be had, what it would mean, and whether it should be.

use hypura_store::fetch::{RemoteModel, RemoteName};
use hypura_store::{Room, Store};
use std::io::{self, Write as _};

use super::forecast::Forecast;
use super::screen;
use crate::cli::flags::ModelFlags;

/// What can be had, and what it would mean.
pub(super) struct Offer {
    pub model: RemoteModel,
    pub room: Room,
    /// `Err` says why it cannot be foretold.
    pub forecast: Result<Forecast, anyhow::Error>,
}

impl Offer {
    pub fn find(
        store: &Store,
        name: &RemoteName,
        flags: &ModelFlags,
        insecure: bool,
    ) -> anyhow::Result<Self> {
        let remote = store.pulls().remote();
        let mut model = remote.find(name, insecure)?;
        remote.complete(&mut model)?;
        let room = store.pulls().room_for(&model)?;
        let forecast = Forecast::make(&remote, &model, flags);
        Ok(Self { model, room, forecast })
    }

    /// On stderr: what follows on stdout may be an answer.
    pub fn show(&self) {
        let _ = write!(io::stderr(), "{}", screen::render(self));
    }

    /// Refuses what has no room or cannot run.
    pub fn check(&self) -> anyhow::Result<()> {
        self.room.check()?;
        if let Err(error) = &self.forecast {
            anyhow::bail!("{error:#}: --force pulls it all the same");
        }
        Ok(())
    }
}
