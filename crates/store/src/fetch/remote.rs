//! From a name to the files that it stands for elsewhere.

use super::ask::complete;
use super::model::{Identity, RemoteModel};
use super::registry::Asked;
use super::{FetchError, Network, RemoteName, hugging_face, plain, registry};
use crate::web::{Client, Timeouts};

/// Asks other machines what they have.
#[derive(Clone, Debug)]
pub struct Remote {
    pub(crate) network: Network,
    pub(crate) client: Client,
}

impl Remote {
    /// With these endpoints and tokens, and the proxies of the environment.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self::with_timeouts(network, &Timeouts::default())
    }

    pub(crate) fn with_timeouts(network: Network, timeouts: &Timeouts) -> Self {
        Self { network, client: Client::new(timeouts) }
    }

    /// What a name stands for. `insecure`: registries may be asked without TLS.
    ///
    /// # Errors
    /// What is wrong with the name or the server.
    pub fn find(&self, name: &RemoteName, insecure: bool) -> Result<RemoteModel, FetchError> {
        if self.network.offline {
            return Err(FetchError::Offline(name.local_name()));
        }
        match name {
            RemoteName::HuggingFace { repo, revision, choice } => {
                hugging_face::model(&self.client, &self.network, repo, revision, choice.as_deref())
            }
            RemoteName::Registry { name, plain_http } => {
                registry::model(&self.client, &Asked { name, plain_http: *plain_http, insecure })
            }
            RemoteName::Url(url) => plain::model(&self.client, url),
        }
    }

    /// Asks for the lengths and tags of files that no list told.
    ///
    /// # Errors
    /// What the server says.
    pub fn complete(&self, model: &mut RemoteModel) -> Result<(), FetchError> {
        let access = std::sync::Arc::clone(&model.access);
        for file in &mut model.files {
            let unknown = file.identity == Identity::Tag(String::new());
            if file.bytes == 0 || unknown {
                complete(&self.client, &access, file)?;
            }
        }
        Ok(())
    }
}
