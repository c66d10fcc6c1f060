//! The files of a model: opened once, headers read and checked, nothing else.

use hypura_core::gguf::{self, GgmlType, GgufSet, Metadata, ShardName};
use hypura_core::model::ModelShape;
use hypura_ggml::Pooling;
use hypura_storage::SourceFile;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::LoadError;

/// Headers are long runs of small items; a large buffer keeps the number of reads low.
const HEADER_BUFFER: usize = 1 << 20;

/// A model on disk.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The file, or the first shard.
    pub path: PathBuf,
    /// Every shard in order; one for an unsharded model.
    pub files: Vec<Arc<SourceFile>>,
    /// Metadata of the first shard.
    pub metadata: Metadata,
    /// What the model is made of.
    pub shape: ModelShape,
}

impl ModelSource {
    /// Opens a GGUF and, when it is one of several shards, all of them.
    ///
    /// # Errors
    /// [`LoadError`] naming the file at fault.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let (mut files, mut headers) = (Vec::new(), Vec::new());
        // One by one: the first shard that is not there ends it, however many the name claims.
        for path in shard_paths(path) {
            let file = SourceFile::open(&path)?;
            let plain = File::open(&path)
                .map_err(|source| hypura_storage::OpenError { path: path.clone(), source })?;
            let header = gguf::read_header(BufReader::with_capacity(HEADER_BUFFER, plain), file.len())
                .and_then(|header| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    gguf::check_name(&name, &header).map(|()| header)
                })
                .map_err(|source| LoadError::Gguf { path, source })?;
            files.push(file);
            headers.push(header);
        }
        let first = files.first().map_or_else(|| path.to_path_buf(), |file| file.path().to_path_buf());
        let sizes = files.iter().map(|file| file.len()).collect();
        let set = gguf::merge(headers, sizes).map_err(|source| {
            let at = source.shard().and_then(|shard| usize::try_from(shard - 1).ok());
            let path = at.and_then(|at| files.get(at)).map_or(first.as_path(), |file| file.path());
            LoadError::Gguf { path: path.to_path_buf(), source }
        })?;
        let shape =
            ModelShape::from_gguf(&set).map_err(|source| LoadError::Model { path: first.clone(), source })?;
        Ok(Self { path: first, files, metadata: set.metadata, shape })
    }

    /// The same model with its weights in another type ([`GgufSet::in_type`]); `None` where that makes no
    /// model.
    #[must_use]
    pub fn shape_in_type(&self, ty: GgmlType) -> Option<ModelShape> {
        let tensors = self.shape.tensors.iter().map(|tensor| tensor.info.clone()).collect();
        let shard_bytes = self.files.iter().map(|file| file.len()).collect();
        let set = GgufSet { metadata: self.metadata.clone(), tensors, shard_bytes };
        ModelShape::from_gguf(&set.in_type(ty)?).ok()
    }

    /// Whether it turns texts into vectors and cannot answer.
    #[must_use]
    pub fn is_for_embeddings(&self) -> bool {
        !self.shape.is_causal || self.pooling_type().is_some_and(|kind| kind > 0)
    }

    /// How the embedding of a text is made, in llama.cpp's numbers; `None` where the model says nothing about
    /// that.
    pub(crate) fn pooling_type(&self) -> Option<u32> {
        let key = format!("{}.pooling_type", self.shape.architecture);
        self.metadata.u32(&key).ok().flatten()
    }

    /// The same, or the mean of its tokens.
    pub(crate) fn pooling(&self) -> Pooling {
        match self.pooling_type() {
            Some(2) => Pooling::First,
            Some(3) => Pooling::Last,
            _ => Pooling::Mean,
        }
    }

    /// Whether the files are still those whose headers were read: what was read of them before is of one
    /// version then.
    ///
    /// # Errors
    /// [`LoadError::Read`] naming the one that was changed or replaced.
    pub(crate) fn check_in_place(&self) -> Result<(), LoadError> {
        self.files.iter().try_for_each(|file| file.check_in_place()).map_err(LoadError::Read)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len()).sum()
    }
}

/// All shards of a model, whichever of them was named.
fn shard_paths(path: &Path) -> Box<dyn Iterator<Item = PathBuf> + '_> {
    let shard = path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse);
    match shard {
        Some(shard) => Box::new((0..shard.count).map(move |index| path.with_file_name(shard.sibling(index)))),
        None => Box::new(std::iter::once(path.to_path_buf())),
    }
}
