//! GGUF files with some of their tensors replaced: forms of models that `synth` does not make.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use super::TinyModel;
use hypura_core::gguf::{GgmlType, HeaderBuilder, TensorInfo, read_header};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A tensor to be written.
pub struct NewTensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub ty: GgmlType,
    pub data: Vec<u8>,
}

/// Writes the model again; `edit` says what is written in the place of each tensor.
pub fn rewritten(path: &Path, mut edit: impl FnMut(&TensorInfo, &[u8]) -> Vec<NewTensor>) -> TinyModel {
    let bytes = fs::read(path).unwrap();
    let header = read_header(bytes.as_slice(), bytes.len() as u64).unwrap();
    let mut builder = HeaderBuilder::new();
    *builder.metadata_mut() = header.metadata;
    let mut tensors = Vec::new();
    for info in &header.tensors {
        let at = usize::try_from(info.offset).unwrap();
        tensors.extend(edit(info, &bytes[at..at + usize::try_from(info.bytes).unwrap()]));
    }
    for tensor in &tensors {
        builder.tensor(&tensor.name, &tensor.shape, tensor.ty);
    }
    let mut file = Vec::new();
    let layout = builder.write_header(&mut file).unwrap();
    for (index, tensor) in tensors.iter().enumerate() {
        file.extend_from_slice(&tensor.data);
        file.resize(file.len() + usize::try_from(layout.padding_after(index)).unwrap(), 0);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rewritten.gguf");
    fs::write(&path, file).unwrap();
    TinyModel { _folder: folder, path }
}

fn same(info: &TensorInfo, data: &[u8]) -> NewTensor {
    NewTensor { name: info.name.clone(), shape: info.shape.clone(), ty: info.ty, data: data.to_vec() }
}

/// What a fused tensor is made of, as far as it came.
#[derive(Default)]
struct Halves {
    gate: Option<Vec<u8>>,
    up: Option<Vec<u8>>,
}

/// Gate and up of routed experts in one tensor, gate first in each expert.
pub fn with_fused_gate_up(path: &Path) -> TinyModel {
    let mut halves: HashMap<String, Halves> = HashMap::new();
    rewritten(path, |info, data| {
        let Some((layer, part)) = info.name.rsplit_once(".ffn_") else { return vec![same(info, data)] };
        let entry = halves.entry(layer.to_owned()).or_default();
        match part {
            "gate_exps.weight" => entry.gate = Some(data.to_vec()),
            "up_exps.weight" => entry.up = Some(data.to_vec()),
            _ => return vec![same(info, data)],
        }
        let Halves { gate: Some(gate), up: Some(up) } = entry else { return Vec::new() };
        let slice = gate.len() / usize::try_from(info.shape[2]).unwrap();
        let pairs = gate.chunks(slice).zip(up.chunks(slice));
        vec![NewTensor {
            name: format!("{layer}.ffn_gate_up_exps.weight"),
            shape: vec![info.shape[0], 2 * info.shape[1], info.shape[2]],
            ty: info.ty,
            data: pairs.flat_map(|(gate, up)| [gate, up]).flatten().copied().collect(),
        }]
    })
}

/// A scale for each routed expert, as some quantisations need, other ones for each expert.
pub fn with_expert_scales(path: &Path) -> TinyModel {
    rewritten(path, |info, data| {
        let mut tensors = vec![same(info, data)];
        if let Some(stem) = info.name.strip_suffix("_exps.weight") {
            let scale = |expert: u64| (0.75 + 0.5 * (expert % 5) as f32 / 4.0).to_le_bytes();
            tensors.push(NewTensor {
                name: format!("{stem}_exps.scale"),
                shape: vec![info.shape[2]],
                ty: GgmlType::F32,
                data: (0..info.shape[2]).flat_map(scale).collect(),
            });
        }
        tensors
    })
}

/// The table of embeddings for each layer in another type, with numbers that are small in every type: no
/// byte has the bits that would make an exponent large.
pub fn with_table_in(path: &Path, ty: GgmlType) -> TinyModel {
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3F
    };
    rewritten(path, |info, data| {
        if info.name != "per_layer_token_embd.weight" {
            return vec![same(info, data)];
        }
        let bytes = ty.row_bytes(info.shape[0]).unwrap() * info.shape[1];
        let data = (0..bytes).map(|_| random()).collect();
        vec![NewTensor { name: info.name.clone(), shape: info.shape.clone(), ty, data }]
    })
}
