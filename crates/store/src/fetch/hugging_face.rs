//! Repositories of Hugging Face: their files, by the API that its own tools use.

use serde::Deserialize;
use std::sync::Arc;

use super::choice::{choose, variants};
use super::listed::ListedFile;
use super::model::{FileKind, Home, HubPlace, Identity, RemoteFile, RemoteModel};
use super::name::is_plain;
use super::{FetchError, Network};
use crate::Digest;
use crate::web::{Access, Client, Request};

/// What the API says of a repository.
#[derive(Deserialize)]
struct RepositoryInfo {
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    #[serde(default)]
    size: Option<u64>,
}

/// The model of a repository that `choice` means.
pub(super) fn model(
    client: &Client,
    network: &Network,
    repo: &str,
    revision: &str,
    choice: Option<&str>,
) -> Result<RemoteModel, FetchError> {
    if network.offline || network.hub_offline {
        return Err(FetchError::Offline(repo.to_owned()));
    }
    let access = Arc::new(Access::with_token(network.hub_token.clone()));
    let (commit, files) = list(client, network, &access, repo, revision)?;
    let chosen = choose(&files, repo, choice)?;
    let file = |listed: &ListedFile, kind| {
        let url = format!("{}/{repo}/resolve/{commit}/{}", network.hub, listed.path);
        let identity =
            listed.identity.clone().map_or_else(|| Identity::Tag(String::new()), Identity::Content);
        RemoteFile { name: listed.path.clone(), bytes: listed.bytes.unwrap_or(0), kind, url, identity }
    };
    let weights = chosen.weights.iter().map(|listed| file(listed, FileKind::Weights));
    let projector = chosen.projector.map(|listed| file(listed, FileKind::Projector));
    let known = |file: &ListedFile| Some((file.path.clone(), file.identity.clone()?));
    Ok(RemoteModel {
        name: format!("hf.co/{repo}:{}", chosen.tag),
        files: weights.chain(projector).collect(),
        variants: variants(&files),
        home: Home::HuggingFace(HubPlace {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            known: files.iter().filter(|file| file.path.ends_with(".gguf")).filter_map(known).collect(),
            commit,
        }),
        access,
    })
}

/// The commit of a revision, and its files.
fn list(
    client: &Client,
    network: &Network,
    access: &Access,
    repo: &str,
    revision: &str,
) -> Result<(String, Vec<ListedFile>), FetchError> {
    let at = if revision == "main" { String::new() } else { format!("/revision/{revision}") };
    let url = format!("{}/api/models/{repo}{at}?blobs=true", network.hub);
    let text = client.text(&Request::new(&url), access)?;
    let info: RepositoryInfo = serde_json::from_str(&text)
        .map_err(|source| FetchError::FileList { repo: repo.to_owned(), source })?;
    // Commits become folders, paths too.
    let commit = info.sha.filter(|sha| is_plain(sha)).unwrap_or_else(|| revision.to_owned());
    let files = info.siblings.into_iter().filter(|file| file.rfilename.split('/').all(is_path_part));
    Ok((commit, files.map(Sibling::listed).collect()))
}

fn is_path_part(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', '?', '#', '%'])
}

impl Sibling {
    fn listed(self) -> ListedFile {
        let identity = self
            .lfs
            .as_ref()
            .and_then(|lfs| Digest::from_hex(lfs.sha256.strip_prefix("sha256:").unwrap_or(&lfs.sha256)));
        let bytes = self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size);
        ListedFile { path: self.rfilename, bytes, identity }
    }
}
