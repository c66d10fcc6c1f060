//! What a server says of a file: its length, and how it is told from others.

use super::FetchError;
use super::model::{Identity, RemoteFile};
use crate::web::{Access, Answer, Client, HttpError, Request, content_range};

/// Asks for the length and the tag of a file: for its first byte, because not every server answers `HEAD`.
pub(super) fn complete(client: &Client, access: &Access, file: &mut RemoteFile) -> Result<(), FetchError> {
    let request = Request { range: Some((0, 0)), ..Request::new(&file.url) };
    let answer = client.send(&request, access)?;
    let number = |name: &str| answer.header(name).and_then(|text| text.parse::<u64>().ok());
    let total = answer.header("content-range").and_then(content_range).map(|(_, _, total)| total);
    let whole = || number("content-length").filter(|_| answer.response.status().as_u16() == 200);
    let bytes = number("x-linked-size").or(total).or_else(whole);
    let unknown =
        || HttpError::Nonsense { url: file.url.clone(), what: "it does not tell its length".to_owned() };
    let bytes = bytes.ok_or_else(unknown)?;
    if let Identity::Tag(_) = file.identity {
        file.identity = identity_of(&answer);
    }
    file.bytes = bytes;
    Ok(())
}

/// What an answer says of the content of its file.
pub(crate) fn identity_of(answer: &Answer) -> Identity {
    let strong = |name| answer.header(name).filter(|tag| !tag.starts_with("W/"));
    let linked = strong("x-linked-etag").map(|tag| tag.trim_matches('"'));
    if let Some(digest) = linked.and_then(crate::Digest::from_hex) {
        return Identity::Content(digest);
    }
    let tag = strong("etag").or_else(|| answer.header("last-modified")).unwrap_or_default();
    Identity::Tag(tag.trim_matches('"').to_owned())
}
