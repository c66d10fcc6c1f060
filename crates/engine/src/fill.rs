//! Reading the weights that stay in memory.

use hypura_core::gguf::TensorInfo;
use hypura_ggml::PendingTensor;
use hypura_storage::{Reader, ScopedRead, read_scoped};
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::LoadError;
use crate::source::ModelSource;

/// Reads what the model wants, in file order. `watch` gets (bytes read, bytes to read) and stops it by answering false.
pub(crate) fn fill(
    source: &ModelSource,
    tensors: &[PendingTensor<'_>],
    reader: &mut dyn Reader,
    total: u64,
    watch: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(), LoadError> {
    let by_name: HashMap<&str, &TensorInfo> =
        source.shape.tensors.iter().map(|tensor| (tensor.info.name.as_str(), &tensor.info)).collect();
    let mut reads = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let info =
            by_name.get(tensor.name).ok_or_else(|| LoadError::MissingTensor(tensor.name.to_owned()))?;
        if info.bytes != tensor.memory.len() as u64 {
            return Err(LoadError::MissingTensor(format!("{} ({} bytes)", tensor.name, tensor.memory.len())));
        }
        let file = Arc::clone(&source.files[info.shard]);
        reads.push(ScopedRead { file, offset: info.offset, dst: tensor.memory });
    }
    // File order: the disk reads forward, and the operating system's read-ahead has no part in it.
    reads.sort_by_key(|read| (read.file.id(), read.offset));
    let (mut done, mut goes_on) = (0, true);
    let mut rest = reads.as_slice();
    while !rest.is_empty() {
        let (part, later) = rest.split_at(first_part(rest));
        read_scoped(reader, part, &mut |bytes| {
            done += bytes;
            goes_on &= watch(done, total);
        })?;
        if !goes_on {
            return Err(LoadError::Stopped);
        }
        rest = later;
    }
    Ok(())
}

/// How many of the reads go out before it is asked again whether the load goes on.
fn first_part(reads: &[ScopedRead<'_>]) -> usize {
    const PART_BYTES: usize = 1 << 30;
    let mut bytes = 0usize;
    let fits = reads.iter().take_while(|read| {
        bytes = bytes.saturating_add(read.dst.len());
        bytes <= PART_BYTES
    });
    fits.count().max(1)
}
