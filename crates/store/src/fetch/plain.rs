//! GGUF files at URLs.

use std::sync::Arc;

use super::FetchError;
use super::model::{FileKind, Home, Identity, RemoteFile, RemoteModel};
use super::urls::{file_name, name_of, shard_urls};
use crate::web::{Access, Client};

/// The model of the file at a URL: all shards, whichever of them was named. Sizes are not known yet.
pub(super) fn model(client: &Client, url: &str) -> Result<RemoteModel, FetchError> {
    let name = name_of(url).ok_or_else(|| FetchError::NotAName(url.to_owned()))?;
    let access = Arc::new(Access::default());
    let mut files = Vec::new();
    // One by one: the first shard that is not there ends it, however many the name claims.
    for url in shard_urls(url) {
        let mut file = RemoteFile {
            name: file_name(&url).to_owned(),
            bytes: 0,
            kind: FileKind::Weights,
            url,
            identity: Identity::Tag(String::new()),
        };
        super::ask::complete(client, &access, &mut file)?;
        files.push(file);
    }
    Ok(RemoteModel {
        name: name.to_string(),
        files,
        variants: Vec::new(),
        home: Home::Files { name },
        access,
    })
}
