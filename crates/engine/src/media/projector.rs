//! What a projector file takes, and whether it can be trusted to llama.cpp, before anything of it is loaded.

use hypura_core::gguf::{self, GgufSet};
use hypura_ggml::media::{self, ProjectorUse};
use hypura_storage::OpenError;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::picture::WORK_BYTES;

/// Numbers that no projector has more of; llama.cpp takes memory for each layer before it looks for its tensors.
const MOST: &[(&str, u64)] = &[
    ("block_count", 1024),
    ("embedding_length", 1 << 17),
    ("feed_forward_length", 1 << 20),
    ("attention.head_count", 1 << 12),
    ("image_size", 1 << 14),
    ("patch_size", 1 << 12),
];

/// Why a projector cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// The file is not there or may not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Not a GGUF, or a truncated one.
    #[error("{path}: {source}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: gguf::GgufError,
    },
    /// A GGUF, but not a projector that can be used.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A projector that can be loaded, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedProjector {
    /// The file.
    pub path: PathBuf,
    /// Bytes of everything: weights, compute buffers for the largest picture, its rows, and the pictures on their way there.
    pub bytes: u64,
    /// Rows of the largest picture, as far as llama.cpp tells.
    pub most_rows: u32,
    /// Whether the rows of a picture must be in one graph.
    pub non_causal: bool,
}

impl PlannedProjector {
    /// Reads the header, checks it, and has llama.cpp build its graph without memory. `sequences` may have a picture at the same
    /// time.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub fn of(path: &Path, sequences: u32) -> Result<Self, ProjectorError> {
        let unusable = |reason: String| ProjectorError::Unusable { path: path.to_owned(), reason };
        let header = read(path)?;
        check(&header).map_err(unusable)?;
        let found = media::measure(path).map_err(|error| unusable(error.to_string()))?;
        if !found.vision {
            return Err(unusable("this projector takes no images".to_owned()));
        }
        let weights: u64 = header.tensors.iter().map(|tensor| tensor.bytes).sum();
        Ok(Self {
            path: path.to_owned(),
            bytes: bytes(&found, weights, sequences),
            most_rows: found.most_rows,
            non_causal: found.non_causal,
        })
    }
}

fn bytes(found: &ProjectorUse, weights: u64, sequences: u32) -> u64 {
    /// Bytes of a number.
    const F32: u64 = 4;
    // Measured for a picture of the size that mtmd reserves memory for; larger ones need in proportion.
    let compute = found.bytes.saturating_sub(weights.min(found.bytes));
    let compute = match found.most_pixels {
        most if most > found.probe_pixels && found.probe_pixels > 0 => {
            (compute as f64 * (most as f64 / found.probe_pixels as f64)) as u64
        }
        _ => compute,
    };
    // mtmd's own copy, and one for each sequence that is in the middle of a picture.
    let copies = u64::from(sequences.max(1)).saturating_add(1);
    let rows = u64::from(found.most_rows).saturating_mul(found.width).saturating_mul(F32);
    found
        .bytes
        .max(weights.saturating_add(compute))
        .saturating_add(rows.saturating_mul(copies))
        .saturating_add(WORK_BYTES)
}

fn read(path: &Path) -> Result<GgufSet, ProjectorError> {
    let open = |source| OpenError { path: path.to_owned(), source };
    let file = File::open(path).map_err(open)?;
    let length = file.metadata().map_err(open)?.len();
    let broken = |source| ProjectorError::Gguf { path: path.to_owned(), source };
    let header = gguf::read_header(BufReader::new(file), length).map_err(broken)?;
    gguf::merge(vec![header], vec![length]).map_err(broken)
}

/// What llama.cpp does not check, and would end the program for.
fn check(header: &GgufSet) -> Result<(), String> {
    let metadata = &header.metadata;
    if metadata.str("general.architecture").ok().flatten() != Some("clip") {
        return Err("this is no projector".to_owned());
    }
    for part in ["vision", "audio"] {
        for (key, most) in MOST {
            let key = format!("clip.{part}.{key}");
            let value = metadata.u64(&key).map_err(|error| error.to_string())?;
            if let Some(value) = value.filter(|value| value > most) {
                return Err(format!("{key} is {value}, which cannot be"));
            }
        }
    }
    let names: HashSet<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let text = |key| metadata.str(key).ok().flatten();
    let projector_type = text("clip.projector_type").or_else(|| text("clip.vision.projector_type"));
    let needed = needed(projector_type.unwrap_or_default());
    if !needed.is_empty() {
        // The layers of these are all alike.
        let of = |part: &str| names.iter().filter(|name| name.ends_with(part)).count();
        let parts: HashSet<&str> = names.iter().filter_map(|name| part_of(name)).collect();
        let layers: HashSet<&str> = names.iter().filter_map(|name| layer_of(name, "v")).collect();
        if let Some(part) = parts.iter().find(|part| of(&format!(".{part}")) < layers.len()) {
            return Err(format!("not all of its layers have {part}"));
        }
    }
    for tensor in needed {
        if !tensor.split('|').any(|name| names.contains(name)) {
            return Err(format!("it lacks {tensor}"));
        }
    }
    for part in ["v", "a"] {
        let layers: HashSet<&str> = names.iter().filter_map(|name| layer_of(name, part)).collect();
        for layer in layers {
            let has = |tensor: &str| names.contains(format!("{part}.blk.{layer}.{tensor}.weight").as_str());
            let separate = ["attn_q", "attn_k", "attn_v"].map(has);
            let complete = separate == [true; 3] || has("attn_qkv");
            if !complete && (separate.contains(&true) || has("attn_out")) {
                return Err(format!("layer {layer} lacks a part of its attention"));
            }
            if has("ffn_up") != has("ffn_down") {
                return Err(format!("layer {layer} lacks a part of its feed-forward network"));
            }
        }
    }
    Ok(())
}

/// What the graphs of common projectors read although llama.cpp's loader takes its absence. Of two with `|` one will do.
fn needed(projector_type: &str) -> &'static [&'static str] {
    match projector_type {
        "mlp" => &["v.patch_embd.weight", "v.position_embd.weight", "mm.0.weight", "mm.2.weight|mm.3.weight"],
        "gemma3" | "idefics3" | "internvl" | "llama4" | "lfm2" => {
            &["v.patch_embd.weight", "v.position_embd.weight"]
        }
        "qwen2vl_merger" | "qwen2.5vl_merger" => &["v.patch_embd.weight", "v.patch_embd.weight.1"],
        "qwen3vl_merger" => &["v.patch_embd.weight", "v.patch_embd.weight.1", "v.position_embd.weight"],
        "pixtral" => &["v.patch_embd.weight"],
        _ => &[],
    }
}

/// What follows the number in `v.blk.7.attn_q.weight`.
fn part_of(name: &str) -> Option<&str> {
    name.strip_prefix("v.blk.")?.split_once('.').map(|(_, part)| part)
}

/// The number in `v.blk.7.attn_q.weight`.
fn layer_of<'a>(name: &'a str, part: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(part)?.strip_prefix(".blk.")?;
    rest.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_core::synth::ProjectorKind;

    fn planned(bytes: &[u8]) -> Result<PlannedProjector, ProjectorError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        PlannedProjector::of(file.path(), 2)
    }

    #[test]
    fn what_it_takes_is_more_than_its_weights_and_its_working_memory() {
        for kind in ProjectorKind::ALL {
            let file = kind.file(256, 1).unwrap();
            let planned = planned(&file).unwrap();
            assert!(planned.bytes > file.len() as u64 + WORK_BYTES, "{kind}: {planned:?}");
            assert!(planned.bytes < WORK_BYTES + (200 << 20), "{kind}: {planned:?}");
            assert!(planned.most_rows >= 16, "{kind}: {planned:?}");
        }
        let found = ProjectorUse {
            bytes: 150,
            probe_pixels: 10,
            most_pixels: 40,
            width: 2,
            most_rows: 3,
            ..ProjectorUse::default()
        };
        let all = bytes(&found, 100, 2);
        assert_eq!(all, 100 + 50 * 4 + 3 * 2 * 4 * 3 + WORK_BYTES);
    }

    #[test]
    fn damage_that_llama_cpp_would_not_survive_is_found_before() {
        let good = ProjectorKind::Mlp.file(256, 1).unwrap();
        let replaced = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut bad = good.clone();
            bad[at..at + to.len()].copy_from_slice(to.as_bytes());
            planned(&bad).unwrap_err().to_string()
        };
        assert!(replaced("v.blk.1.attn_q.weight", "v.blk.1.attn_x.weight").contains("attn_"));
        assert!(replaced("v.blk.0.ffn_up.weight", "v.blk.0.ffn_ux.weight").contains("ffn_u"));
        assert!(replaced("v.blk.1.attn_q.bias", "v.blk.1.attn_x.bias").contains(".bias"));
        assert!(replaced("clip", "clap").contains("no projector"));
        for tensor in ["mm.0.weight", "mm.2.weight", "v.position_embd.weight", "v.patch_embd.weight"] {
            assert!(replaced(tensor, &tensor.replace("weight", "waight")).contains(tensor));
        }
        assert!(planned(&good[..good.len() - 4096]).is_err(), "cut off");
        assert!(planned(b"not a gguf").is_err());
        let key = b"clip.vision.block_count";
        let at = good.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
        let mut many = good.clone();
        many[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(planned(&many).unwrap_err().to_string().contains("cannot be"));
    }
}
