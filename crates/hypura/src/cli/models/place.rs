//! Who answers for the models: a running server, or the store itself.

use crate::client::{Client, Listener};
use hypura_store::Store;

/// Who answers for the models.
pub(super) enum Place {
    Server(Client),
    Store(Store),
}

impl Place {
    pub fn find() -> Self {
        Client::find().map_or_else(|| Self::Store(Store::of_environment()), Self::Server)
    }
}

/// The running server, or what to do about its absence.
pub(in crate::cli) fn server() -> anyhow::Result<Client> {
    let client = Client::of_environment();
    let address = client.address();
    match client.probe() {
        Listener::Hypura(_) => Ok(client),
        Listener::Nobody => anyhow::bail!("no server runs at {address}: start one with `hypura serve`"),
        Listener::Other => anyhow::bail!(
            "what listens at {address} is not Hypura (Ollama?): name Hypura's address in HYPURA_HOST, or stop the other one"
        ),
    }
}
