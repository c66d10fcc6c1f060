//! Synthetic projectors: files of some hundred kilobytes that llama.cpp's `mtmd` loads, one of each kind that a model may
//! treat in its own way.
//!
//! Keys and names are those of `clip-impl.h`, shapes those that the graphs in `tools/mtmd/models` want. Weights are random:
//! different pictures give different rows, and no row means anything.

use std::fmt;

use super::tensors::Init;
use super::{Shape, SynthError, rng};
use crate::gguf::{GgmlType, HeaderBuilder};

/// How a projector makes rows, and how its model reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProjectorKind {
    /// LLaVA's: one size of pictures, rows read one after another.
    Mlp,
    /// Qwen2-VL's: any size of pictures, rows at places in time, height and width (M-RoPE).
    Qwen2Vl,
    /// Gemma 3's: one size of pictures, whose rows see each other.
    Gemma3,
}

/// Numbers of the picture encoder.
const EMBEDDING: u64 = 32;
const FFN: u64 = 64;
const HEADS: u32 = 2;
const LAYERS: u32 = 2;
const PATCH: u64 = 14;
/// Patches on each side of a picture of the fixed size.
const SIDE: u64 = 8;
/// Patches on each side that become one row, where some do.
const MERGE: u64 = 2;
/// Rows of the largest picture of Qwen2-VL's kind.
const MOST_ROWS: u64 = 64;

struct Tensors(Vec<(String, Vec<u64>, Init)>);

impl Tensors {
    fn matrix(&mut self, name: impl Into<String>, shape: &[u64]) {
        let inputs = shape.split_last().map_or(1, |(_, inner)| inner.iter().product::<u64>()).max(1);
        self.0.push((name.into(), shape.to_vec(), Init::Weight { std: 1.0 / (inputs as f32).sqrt() }));
    }

    fn around(&mut self, name: impl Into<String>, len: u64, mean: f32) {
        self.0.push((name.into(), vec![len], Init::Around { mean, spread: 0.1 }));
    }

    fn linear(&mut self, name: &str, inputs: u64, outputs: u64) {
        self.matrix(format!("{name}.weight"), &[inputs, outputs]);
        self.around(format!("{name}.bias"), outputs, 0.0);
    }

    fn layers(&mut self) {
        for layer in 0..LAYERS {
            let name = |part: &str| format!("v.blk.{layer}.{part}");
            for norm in ["ln1", "ln2"] {
                self.around(name(&format!("{norm}.weight")), EMBEDDING, 1.0);
                self.around(name(&format!("{norm}.bias")), EMBEDDING, 0.0);
            }
            for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
                self.linear(&name(part), EMBEDDING, EMBEDDING);
            }
            self.linear(&name("ffn_up"), EMBEDDING, FFN);
            self.linear(&name("ffn_down"), FFN, EMBEDDING);
        }
    }
}

impl ProjectorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Mlp, Self::Qwen2Vl, Self::Gemma3];

    /// The kind that suits a model.
    #[must_use]
    pub const fn of(shape: Shape) -> Self {
        match shape {
            Shape::TinyQwen2Vl => Self::Qwen2Vl,
            Shape::TinyGemma3 => Self::Gemma3,
            _ => Self::Mlp,
        }
    }

    /// The name by which it is chosen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Qwen2Vl => "qwen2vl",
            Self::Gemma3 => "gemma3",
        }
    }

    /// llama.cpp's name of it.
    const fn projector_type(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Qwen2Vl => "qwen2vl_merger",
            Self::Gemma3 => "gemma3",
        }
    }

    /// A projector for models whose rows of embeddings have `width` numbers: a whole file.
    ///
    /// # Errors
    /// [`SynthError`] when such a file cannot be.
    pub fn file(self, width: u64, seed: u64) -> Result<Vec<u8>, SynthError> {
        let mut header = HeaderBuilder::new();
        self.describe(&mut header, width);
        let tensors = self.tensors(width);
        for (name, shape, _) in &tensors {
            header.tensor(name.as_str(), shape, GgmlType::F32);
        }
        let mut file = Vec::new();
        let layout = header.write_header(&mut file)?;
        for (at, (name, shape, init)) in tensors.iter().enumerate() {
            let (key, count) = (rng::key(seed, name), shape.iter().product::<u64>());
            let (mean, spread) = match init {
                Init::Weight { std } => (0.0, std * 3.0_f32.sqrt()),
                Init::Around { mean, spread } => (*mean, *spread),
                Init::Router { .. } | Init::Fixed(_) => (0.0, 0.0),
            };
            for index in 0..count {
                let number = mean + (rng::unit(rng::at(key, index)) * 2.0 - 1.0) * spread;
                file.extend(number.to_le_bytes());
            }
            let padding = usize::try_from(layout.padding_after(at)).unwrap_or(0);
            file.resize(file.len() + padding, 0);
        }
        Ok(file)
    }

    /// A projector for a model of this shape, of the kind that suits it.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn file_for(shape: Shape, seed: u64) -> Result<Vec<u8>, SynthError> {
        Self::of(shape).file(shape.dims().embedding, seed)
    }

    fn describe(self, header: &mut HeaderBuilder, width: u64) {
        header
            .set("general.architecture", "clip")
            .set("general.type", "mmproj")
            .set("general.name", format!("{} projector (synthetic)", self.name()))
            .set("general.file_type", 0_u32)
            .set("clip.has_vision_encoder", true)
            .set("clip.projector_type", self.projector_type())
            .set("clip.use_gelu", true)
            .set("clip.vision.image_size", (SIDE * PATCH) as u32)
            .set("clip.vision.patch_size", PATCH as u32)
            .set("clip.vision.embedding_length", EMBEDDING as u32)
            .set("clip.vision.feed_forward_length", FFN as u32)
            .set("clip.vision.projection_dim", width as u32)
            .set("clip.vision.block_count", LAYERS)
            .set("clip.vision.attention.head_count", HEADS)
            .set("clip.vision.attention.layer_norm_epsilon", 1e-6_f32)
            .set("clip.vision.image_mean", vec![0.5_f32; 3])
            .set("clip.vision.image_std", vec![0.5_f32; 3]);
        match self {
            Self::Mlp => {}
            Self::Qwen2Vl => {
                let side = PATCH * MERGE;
                header.set("clip.vision.image_min_pixels", (side * side * 4) as u32);
                header.set("clip.vision.image_max_pixels", (side * side * MOST_ROWS) as u32);
            }
            Self::Gemma3 => {
                header.set("clip.vision.projector.scale_factor", MERGE as u32);
            }
        }
    }

    fn tensors(self, width: u64) -> Vec<(String, Vec<u64>, Init)> {
        let mut all = Tensors(Vec::new());
        let patch = [PATCH, PATCH, 3, EMBEDDING];
        all.matrix("v.patch_embd.weight", &patch);
        if self == Self::Qwen2Vl {
            all.matrix("v.patch_embd.weight.1", &patch);
        } else {
            all.matrix("v.position_embd.weight", &[EMBEDDING, SIDE * SIDE]);
        }
        all.layers();
        all.around("v.post_ln.weight", EMBEDDING, 1.0);
        all.around("v.post_ln.bias", EMBEDDING, 0.0);
        match self {
            Self::Mlp => {
                all.linear("mm.0", EMBEDDING, width);
                all.linear("mm.2", width, width);
            }
            Self::Qwen2Vl => {
                let merged = EMBEDDING * MERGE * MERGE;
                all.linear("mm.0", merged, merged);
                all.linear("mm.2", merged, width);
            }
            Self::Gemma3 => {
                // Stored transposed.
                all.matrix("mm.input_projection.weight", &[width, EMBEDDING]);
                all.around("mm.soft_emb_norm.weight", EMBEDDING, 1.0);
            }
        }
        all.0
    }
}

/// A picture file that no other `seed` makes: a BMP of 24 bits, which is a header and the pixels.
#[must_use]
pub fn picture(seed: u8, width: u32, height: u32) -> Vec<u8> {
    const HEADER: u32 = 54;
    let row = (width * 3).next_multiple_of(4);
    let size = HEADER + row * height;
    let mut file = b"BM".to_vec();
    for number in [size, 0, HEADER, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend((HEADER..size).map(|at| (u64::from(at) * 31 % 251) as u8 ^ seed));
    file
}

impl fmt::Display for ProjectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::read_header;

    #[test]
    fn every_kind_is_a_gguf_of_the_size_that_its_header_says() {
        for &kind in ProjectorKind::ALL {
            let file = kind.file(256, 1).unwrap();
            let header = read_header(std::io::Cursor::new(&file), file.len() as u64).unwrap();
            let end = header.tensors.iter().map(|tensor| tensor.offset + tensor.bytes).max();
            assert!(end.is_some_and(|end| file.len() as u64 - end < 32), "{kind}");
            assert_eq!(file, kind.file(256, 1).unwrap());
            assert_ne!(file, kind.file(256, 2).unwrap());
        }
    }
}
