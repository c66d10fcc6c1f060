//! Reading the weights that stay in memory.

use hypura_core::gguf::TensorInfo;
use hypura_core::model::{ModelShape, ModelTensor, TensorRole};
use hypura_core::plan::Plan;
use hypura_ggml::{DeviceTensor, PendingTensor, TensorMemory};
use hypura_storage::{Arena, HugePages, Reader, ScopedRead, SourceFile, read_scoped};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::LoadError;
use crate::source::ModelSource;

/// Looks whether llama.cpp asked for every weight that the plan keeps in memory. One that it did not would be
/// computed with whatever is in its memory.
///
/// # Errors
/// [`LoadError::UnreadWeight`] with the first of them.
pub(super) fn ensure_all_asked(
    shape: &ModelShape,
    plan: &Plan,
    tensors: &[PendingTensor<'_>],
) -> Result<(), LoadError> {
    let asked: HashSet<&str> = tensors.iter().map(|tensor| tensor.name).collect();
    match first_unread(shape, plan, &asked) {
        None => Ok(()),
        Some(name) => Err(LoadError::UnreadWeight(name.to_owned())),
    }
}

/// What belongs to no layer and is used wherever a file has it.
const ALWAYS_USED: &[&str] =
    &["token_embd.weight", "per_layer_token_embd.weight", "output_norm.weight", "output.weight"];

fn first_unread<'a>(shape: &'a ModelShape, plan: &Plan, asked: &HashSet<&str>) -> Option<&'a str> {
    let stays = |index: usize, tensor: &ModelTensor| {
        let is_streamed_expert = plan.experts.is_some() && matches!(tensor.role, TensorRole::RoutedExpert(_));
        !is_streamed_expert && !plan.streams_weight(index)
    };
    // Of what belongs to no layer, and of layers of multi-token prediction, llama.cpp leaves out what it does
    // not use.
    let is_used = |tensor: &ModelTensor| match tensor.layer {
        Some(layer) => layer < shape.layers && tensor.info.name.starts_with("blk."),
        None => ALWAYS_USED.contains(&tensor.info.name.as_str()),
    };
    let tensors = shape.tensors.iter().enumerate();
    let mut unread = tensors
        .filter(|(index, tensor)| is_used(tensor) && stays(*index, tensor))
        .map(|(_, tensor)| tensor.info.name.as_str())
        .filter(|name| !asked.contains(name));
    unread.next()
}

/// Reads what the model wants, and `kept` besides, in file order. `watch` gets (bytes read, bytes to read)
/// and stops it by answering false.
pub(super) fn fill(
    source: &ModelSource,
    tensors: &[PendingTensor<'_>],
    kept: Vec<ScopedRead<'_>>,
    reader: &mut dyn Reader,
    total: u64,
    watch: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(), LoadError> {
    let by_name: HashMap<&str, &TensorInfo> =
        source.shape.tensors.iter().map(|tensor| (tensor.info.name.as_str(), &tensor.info)).collect();
    let mut reads = kept;
    let mut uploads = Vec::new();
    for tensor in tensors {
        let info =
            by_name.get(tensor.name).ok_or_else(|| LoadError::MissingTensor(tensor.name.to_owned()))?;
        if info.bytes != tensor.bytes as u64 {
            return Err(LoadError::MissingTensor(format!("{} ({} bytes)", tensor.name, tensor.bytes)));
        }
        let (file, offset) = (Arc::clone(&source.files[info.shard]), info.offset);
        match tensor.memory {
            TensorMemory::Host(dst) => reads.push(ScopedRead { file, offset, dst }),
            TensorMemory::Device(to) => uploads.push(Upload { file, offset, to, bytes: tensor.bytes }),
        }
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
    uploads.sort_by_key(|upload| (upload.file.id(), upload.offset));
    upload_all(&uploads, reader, &mut |bytes| {
        done += bytes;
        watch(done, total)
    })
}

/// A weight that goes to a device.
struct Upload<'a> {
    file: Arc<SourceFile>,
    offset: u64,
    to: DeviceTensor<'a>,
    bytes: usize,
}

/// Brings weights to devices, by way of the host's memory. `watch` gets the bytes that were read, and says
/// whether to go on.
fn upload_all(
    uploads: &[Upload<'_>],
    reader: &mut dyn Reader,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<(), LoadError> {
    /// Most bytes on their way at once.
    const STAGING_BYTES: usize = 64 << 20;
    let Some(largest) = uploads.iter().map(|upload| upload.bytes).max() else { return Ok(()) };
    let staging = Arena::new(largest.clamp(1, STAGING_BYTES), HugePages::Try)?;
    for upload in uploads {
        for from in (0..upload.bytes).step_by(STAGING_BYTES) {
            let length = STAGING_BYTES.min(upload.bytes - from);
            let dst = staging.cells().get(..length).unwrap_or_default();
            let read =
                ScopedRead { file: Arc::clone(&upload.file), offset: upload.offset + from as u64, dst };
            let mut goes_on = true;
            read_scoped(reader, &[read], &mut |bytes| goes_on &= watch(bytes))?;
            if !goes_on {
                return Err(LoadError::Stopped);
            }
            upload.to.write(from, dst);
        }
    }
    Ok(())
}

/// How many of the reads go out before it is asked again whether the load continues.
fn first_part(reads: &[ScopedRead<'_>]) -> usize {
    const PART_BYTES: usize = 1 << 30;
    let mut bytes = 0usize;
    let fits = reads.iter().take_while(|read| {
        bytes = bytes.saturating_add(read.dst.len());
        bytes <= PART_BYTES
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_core::gguf::{merge, read_header};
    use hypura_core::plan::{Constraints, ContextShape, ExpertLayout, Ledger, Residency, fill};
    use hypura_core::synth::{Shape, SynthOptions, SynthPlan};

    fn planned(shape: Shape, residency: Residency, budget_bytes: u64) -> (ModelShape, Plan) {
        let synth = SynthPlan::new(&SynthOptions::new(shape, shape.usual_quant())).unwrap();
        let shard = &synth.shards()[0];
        let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
        let shape = ModelShape::from_gguf(&merge(vec![header], vec![shard.file_bytes]).unwrap()).unwrap();
        let constraints = Constraints::on_host(&shape, ContextShape::default(), budget_bytes, Ledger::new());
        let plan =
            fill(&shape, &ExpertLayout::new(&shape), &Constraints { residency, ..constraints }).unwrap();
        (shape, plan)
    }

    #[test]
    fn a_resident_weight_that_llama_cpp_never_asked_for_is_named() {
        for (shape, residency, budget) in [
            (Shape::TinyMixtral, Residency::Resident, u64::MAX),
            (Shape::TinyMixtral, Residency::Stream, u64::MAX),
            (Shape::TinyLlama, Residency::Stream, 1_100_000),
        ] {
            let (shape, plan) = planned(shape, residency, budget);
            let streamed = |index: usize, tensor: &ModelTensor| {
                plan.streams_weight(index)
                    || plan.experts.is_some() && matches!(tensor.role, TensorRole::RoutedExpert(_))
            };
            let resident =
                shape.tensors.iter().enumerate().filter(|(index, tensor)| !streamed(*index, tensor));
            let names: Vec<&str> = resident.map(|(_, tensor)| tensor.info.name.as_str()).collect();
            let all: HashSet<&str> = names.iter().copied().collect();
            assert_eq!(first_unread(&shape, &plan, &all), None, "what streams is not asked for");
            for name in names {
                let mut but_one = all.clone();
                but_one.remove(name);
                // llama.cpp computes these factors itself where a file has none: not every model asks for
                // them.
                let expected = Some(name).filter(|name| *name != "rope_freqs.weight");
                assert_eq!(first_unread(&shape, &plan, &but_one), expected);
            }
        }
    }
}
