//! The headers of the other quantisations of a repository, without their vocabularies.
//!
//! Quantisations of one model have the same vocabulary, and that is nearly all of a header. So of each only
//! what stands before and behind it is fetched. That the same lies between is seen at both ends: the first
//! bytes, which count the tokens, and the last ones, at the place where they must be. Where they differ,
//! nothing is known.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hypura_core::gguf;
use hypura_core::model::ModelShape;

use super::header::RemoteHeader;
use super::model::{Home, RemoteModel, Variant};
use super::remote::Remote;
use crate::web::{RangeReader, SHORT_HEADER};

/// Headers that are read at a time.
const CONNECTIONS: usize = 4;
/// No header is begun later: who waits wants a plan, not all of them.
const LONGEST: Duration = Duration::from_secs(5);
/// Quantisations in more files are not looked at.
const MOST_FILES: usize = 8;
/// The key that a vocabulary begins with.
const FIRST_KEY: &str = "tokenizer.ggml.tokens";
/// Keys that stand behind its long lists; the first of them in a file ends it.
const LAST_KEYS: [&str; 6] = [
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
    "general.quantization_version",
];
/// What is compared at each end, at least.
const SEAM_BYTES: usize = 2 << 10;
/// A first range behind the vocabulary: a chat template and some hundred tensors.
const REST_BYTES: u64 = 128 << 10;

impl Remote {
    /// What the quantisations of a repository are made of, in the order of [`RemoteModel::variants`]; `None`
    /// for the one whose header this is, and for those that cannot be told quickly.
    #[must_use]
    pub fn variant_shapes(&self, model: &RemoteModel, header: &RemoteHeader) -> Vec<Option<ModelShape>> {
        let shapes = Mutex::new(vec![None; model.variants.len()]);
        let (next, began) = (AtomicUsize::new(0), Instant::now());
        let work = || {
            while let Some((index, variant)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                model.variants.get(index).map(|variant| (index, variant))
            } {
                if began.elapsed() > LONGEST {
                    return;
                }
                let shape = self.variant_shape(model, variant, header);
                if let Some(place) = shapes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                    *place = shape;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(model.variants.len()) {
                scope.spawn(work);
            }
        });
        shapes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What cannot be read is not known, like what is not looked at.
    fn variant_shape(
        &self,
        model: &RemoteModel,
        variant: &Variant,
        header: &RemoteHeader,
    ) -> Option<ModelShape> {
        let Home::HuggingFace(place) = &model.home else { return None };
        let is_known = model.weights().map(|file| &file.name).eq(&variant.files);
        if is_known || variant.files.len() > MOST_FILES {
            return None;
        }
        let (mut headers, mut sizes) = (Vec::new(), Vec::new());
        for file in &variant.files {
            let url = format!("{}/{}/resolve/{}/{file}", self.network.hub, place.repo, place.commit);
            let mut front = RangeReader::open(&self.client, &model.access, &url, SHORT_HEADER).ok()?;
            let bytes = front.total_bytes();
            let shared = vocabulary(&header.first_bytes).filter(|_| headers.is_empty());
            let found = match shared {
                None => gguf::read_header(&mut front, bytes),
                Some(shared) => gguf::read_header(self.spliced(model, &url, front, shared)?, bytes),
            };
            headers.push(found.ok()?);
            sizes.push(bytes);
        }
        let set = gguf::merge(headers, sizes).ok()?;
        ModelShape::from_gguf(&set).ok()
    }

    /// A header with the vocabulary of another one; `None` where it has not the same.
    fn spliced<'a>(
        &'a self,
        model: &'a RemoteModel,
        url: &str,
        front: RangeReader<'a>,
        shared: &'a [u8],
    ) -> Option<impl Read + use<'a>> {
        let mut start = Vec::new();
        front.take(SHORT_HEADER).read_to_end(&mut start).ok()?;
        let at = find(&start, &key(FIRST_KEY))?;
        let first = start.get(at..)?;
        let seam_at = (at + shared.len()).checked_sub(SEAM_BYTES)?;
        if first.len() < SEAM_BYTES || !shared.starts_with(first) {
            return None;
        }
        let first_byte = u64::try_from(seam_at).ok()?;
        let mut rest = RangeReader::open_at(&self.client, &model.access, url, first_byte, REST_BYTES).ok()?;
        let mut seam = vec![0; SEAM_BYTES];
        rest.read_exact(&mut seam).ok()?;
        if !shared.ends_with(&seam) {
            return None;
        }
        start.truncate(at);
        Some(io::Cursor::new(start).chain(shared).chain(rest))
    }
}

/// The vocabulary in a header, if it is longer than what is read anyway.
fn vocabulary(header: &[u8]) -> Option<&[u8]> {
    let from = find(header, &key(FIRST_KEY))?;
    let behind = header.get(from..)?;
    let length = LAST_KEYS.iter().filter_map(|name| find(behind, &key(name))).min()?;
    behind.get(..length).filter(|vocabulary| vocabulary.len() as u64 > 2 * SHORT_HEADER)
}

/// A key as GGUF writes it: its length, then its text.
fn key(name: &str) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat()
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
