//! Facts of model files, remembered by path, size and time of change: in memory, and in one small file, so
//! that a list of a hundred models opens none of them.
//!
//! The file is a convenience: when it cannot be read or written, headers are read again.

use hypura_core::gguf::{self, GgufError, GgufSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use super::digest::Hasher;
use super::facts::Facts;

/// Raised when [`Facts`] or what they are made of change.
const FORMAT: u32 = 1;
/// More remembered models than this are not kept.
const MOST_ENTRIES: usize = 2000;
/// Headers are long runs of small items; a large buffer keeps the number of reads low.
const HEADER_BUFFER: usize = 1 << 20;

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The system refuses, or the file ends too early.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its header is not one.
    #[error("it is no whole GGUF: {0}")]
    Gguf(#[from] GgufError),
    /// A folder or a pipe; with its name.
    #[error("{0} is no file")]
    NoFile(String),
}

/// Size and time of change of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    changed_ns: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    stamps: Vec<Stamp>,
    #[serde(serialize_with = "plain", deserialize_with = "shared")]
    facts: Arc<Facts>,
}

fn plain<S: Serializer>(facts: &Arc<Facts>, to: S) -> Result<S::Ok, S::Error> {
    Facts::serialize(facts, to)
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Facts>, D::Error> {
    Facts::deserialize(from).map(Arc::new)
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    format: u32,
    models: HashMap<PathBuf, Remembered>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    changed: bool,
}

/// What is known of model files.
pub(super) struct FactCache {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

impl FactCache {
    /// Remembers in `file`, if there is one, what earlier runs found out.
    pub fn new(file: Option<PathBuf>) -> Self {
        let kept = file.as_deref().and_then(read_kept).unwrap_or_default();
        Self { file, state: Mutex::new(State { kept, changed: false }) }
    }

    /// The facts of a model, given all its files in order.
    pub fn facts(&self, files: &[PathBuf]) -> Result<Arc<Facts>, HeaderError> {
        let stamps = files.iter().map(|file| stamp(file)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = files.first() else { return Err(HeaderError::NoFile("nothing".to_owned())) };
        if let Some(known) = self.state().kept.models.get(first).filter(|known| known.stamps == stamps) {
            return Ok(Arc::clone(&known.facts));
        }
        // Without the lock: a slow disk must not stop those who ask for what is known.
        let (gguf, digest) = read_headers(files)?;
        let facts = Arc::new(Facts::of(&gguf, digest));
        let mut state = self.state();
        state.kept.models.insert(first.clone(), Remembered { stamps, facts: Arc::clone(&facts) });
        state.changed = true;
        Ok(facts)
    }

    /// Writes down what is new. Failure is no one's concern: the next run reads headers again.
    pub fn keep(&self) {
        let Some(file) = &self.file else { return };
        let text = {
            let mut state = self.state();
            if !state.changed {
                return;
            }
            state.changed = false;
            state.kept.format = FORMAT;
            if state.kept.models.len() > MOST_ENTRIES {
                state.kept.models.retain(|path, _| path.is_file());
            }
            serde_json::to_vec(&state.kept)
        };
        if let Ok(text) = text {
            let _ = super::files::write_atomically(file, &text);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves a map of facts, each of which is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_kept(file: &Path) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (kept.format == FORMAT).then_some(kept)
}

fn stamp(file: &Path) -> Result<Stamp, HeaderError> {
    let about = fs::metadata(file)?;
    if !about.is_file() {
        // A named pipe would be waited for, for ever.
        return Err(HeaderError::NoFile(super::files::shown_name(file)));
    }
    let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(Stamp { bytes: about.len(), changed_ns: changed.map_or(0, |since| since.as_nanos() as u64) })
}

/// Reads all headers of a model: what they say, and a digest over them and the sizes of the files.
pub(super) fn read_headers(files: &[PathBuf]) -> Result<(GgufSet, String), HeaderError> {
    let mut hasher = Hasher::default();
    let (mut headers, mut sizes) = (Vec::new(), Vec::new());
    for path in files {
        let Stamp { bytes, .. } = stamp(path)?;
        let header = gguf::read_header(BufReader::with_capacity(HEADER_BUFFER, File::open(path)?), bytes)?;
        let end = header.tensors.iter().map(|t| t.offset.saturating_add(t.bytes)).max().unwrap_or(0);
        if end > bytes {
            let cut = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ends before its tensors do (half downloaded?)",
            );
            return Err(cut.into());
        }
        let mut raw = Vec::new();
        File::open(path)?.take(header.data_start).read_to_end(&mut raw)?;
        hasher.update(&raw);
        hasher.update(&bytes.to_le_bytes());
        headers.push(header);
        sizes.push(bytes);
    }
    Ok((gguf::merge(headers, sizes)?, hasher.finish().hex().to_owned()))
}
