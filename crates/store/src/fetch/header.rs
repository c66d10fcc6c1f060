//! The headers of a model that is not on this machine.

use std::io::{self, Read};

use hypura_core::gguf::{self, GgmlType, GgufSet};
use hypura_core::model::ModelShape;

use super::error::FetchError;
use super::model::RemoteModel;
use super::name::RemoteName;
use super::network::Network;
use super::remote::Remote;
use super::urls::shard_urls;
use crate::web::{Access, Client, RangeReader, SHORT_HEADER, USUAL_HEADER};

/// A model elsewhere, as far as its header tells.
#[derive(Debug)]
pub struct RemoteHeader {
    /// Size of the first file.
    pub first_file_bytes: u64,
    /// Files.
    pub shards: usize,
    /// What the model is made of.
    pub shape: ModelShape,
    gguf: GgufSet,
    /// The header of the first file, as it stands there.
    pub(super) first_bytes: Vec<u8>,
}

impl RemoteHeader {
    /// The same model with its weights in another type ([`GgufSet::in_type`]); `None` where that makes no
    /// model.
    #[must_use]
    pub fn in_type(&self, ty: GgmlType) -> Option<ModelShape> {
        ModelShape::from_gguf(&self.gguf.clone().in_type(ty)?).ok()
    }
}

/// Reads the header of the model that `name` says, if that is a URL or begins with `hf:`.
///
/// # Errors
/// What is wrong with the name, the server, or the file.
pub fn remote_header(name: &str) -> Option<Result<RemoteHeader, FetchError>> {
    RemoteName::is_explicit(name).then(|| of_name(name))
}

fn of_name(name: &str) -> Result<RemoteHeader, FetchError> {
    let remote = Remote::new(Network::of_environment());
    match RemoteName::parse(name) {
        Ok(RemoteName::Url(url)) => of_urls(&remote.client, &Access::default(), &url, shard_urls(&url)),
        // It is a file, whatever it is called.
        Ok(RemoteName::Registry { .. }) | Err(FetchError::NotAName(_)) => {
            of_urls(&remote.client, &Access::default(), name, shard_urls(name))
        }
        Ok(found) => remote.header(&remote.find(&found, false)?),
        Err(error) => Err(error),
    }
}

impl Remote {
    /// Reads the headers of a model.
    ///
    /// # Errors
    /// What is wrong with the server or the files.
    pub fn header(&self, model: &RemoteModel) -> Result<RemoteHeader, FetchError> {
        let urls = model.weights().map(|file| file.url.clone());
        of_urls(&self.client, &model.access, &model.name, Box::new(urls))
    }
}

/// Keeps what is read.
struct Seen<R> {
    reader: R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Seen<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(out)?;
        self.bytes.extend_from_slice(out.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn of_urls(
    client: &Client,
    access: &Access,
    name: &str,
    urls: Box<dyn Iterator<Item = String> + '_>,
) -> Result<RemoteHeader, FetchError> {
    let (mut headers, mut sizes, mut first_bytes) = (Vec::new(), Vec::new(), Vec::new());
    // One by one: the first shard that is not there ends it, however many the name claims.
    for url in urls {
        // The vocabulary is in the first shard; the others only list their tensors.
        let expected = if headers.is_empty() { USUAL_HEADER } else { SHORT_HEADER };
        let mut reader = RangeReader::open(client, access, &url, expected)?;
        let bytes = reader.total_bytes();
        let mut seen = Seen { reader: &mut reader, bytes: Vec::new() };
        let header =
            gguf::read_header(&mut seen, bytes).map_err(|source| FetchError::header(&url, source))?;
        if headers.is_empty() {
            first_bytes = seen.bytes;
        }
        let file = url.split('?').next().unwrap_or(&url);
        // Blobs of registries are called by their digests.
        if !file.contains("/blobs/") {
            gguf::check_name(file, &header).map_err(|source| FetchError::header(&url, source))?;
        }
        headers.push(header);
        sizes.push(bytes);
    }
    let first_file_bytes = sizes.first().copied().unwrap_or(0);
    let shards = headers.len();
    let set = gguf::merge(headers, sizes).map_err(|source| FetchError::header(name, source))?;
    let shape =
        ModelShape::from_gguf(&set).map_err(|source| FetchError::Shape { url: name.to_owned(), source })?;
    Ok(RemoteHeader { first_file_bytes, shards, shape, gguf: set, first_bytes })
}
