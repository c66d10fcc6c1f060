//! Synthetic projectors: files of some hundred kilobytes that llama.cpp's `mtmd` loads, one of each kind that
//! a model may treat in its own way.
//!
//! Keys and names are those of `clip-impl.h`, shapes those that the graphs in `tools/mtmd/models` want.
//! Weights are random: different pictures and sounds give different rows, and no row means anything.

use std::fmt;

use super::list::Init;
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
    /// Ultravox's: sounds alone, through Whisper's encoder; 25 rows for half a minute.
    Ultravox,
    /// Qwen2.5-Omni's: pictures as Qwen2-VL, and sounds through Whisper's encoder; 750 rows for half a
    /// minute.
    Omni,
}

/// Numbers of the encoders.
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
/// Bands of the spectrum of a sound.
const BANDS: u64 = 40;
/// Places in half a minute of sound, as Whisper has it.
const PLACES: u64 = 1500;
/// Places that become one row of Ultravox; one that llama.cpp rounds to the same number of rows wherever it
/// counts them.
const STACKED: u64 = 60;

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

    fn layers(&mut self, prefix: &str) {
        for layer in 0..LAYERS {
            let name = |part: &str| format!("{prefix}.blk.{layer}.{part}");
            for norm in ["ln1", "ln2"] {
                self.around(name(&format!("{norm}.weight")), EMBEDDING, 1.0);
                self.around(name(&format!("{norm}.bias")), EMBEDDING, 0.0);
            }
            for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
                self.linear(&name(part), EMBEDDING, EMBEDDING);
                if prefix == "a" && part == "attn_k" {
                    // Whisper has none there.
                    self.0.pop();
                }
            }
            self.linear(&name("ffn_up"), EMBEDDING, FFN);
            self.linear(&name("ffn_down"), FFN, EMBEDDING);
        }
    }

    /// Whisper's encoder.
    fn ears(&mut self) {
        for (number, inputs) in [(1, BANDS), (2, EMBEDDING)] {
            self.matrix(format!("a.conv1d.{number}.weight"), &[3, inputs, EMBEDDING]);
            self.0.push((
                format!("a.conv1d.{number}.bias"),
                vec![1, EMBEDDING],
                Init::Around { mean: 0.0, spread: 0.1 },
            ));
        }
        self.matrix("a.position_embd.weight", &[EMBEDDING, PLACES]);
        self.layers("a");
        self.around("a.post_ln.weight", EMBEDDING, 1.0);
        self.around("a.post_ln.bias", EMBEDDING, 0.0);
    }
}

impl ProjectorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Mlp, Self::Qwen2Vl, Self::Gemma3, Self::Ultravox, Self::Omni];

    /// The kind that suits a model and takes pictures.
    #[must_use]
    pub const fn of(shape: Shape) -> Self {
        match shape {
            Shape::TinyQwen2Vl => Self::Qwen2Vl,
            Shape::TinyGemma3 => Self::Gemma3,
            _ => Self::Mlp,
        }
    }

    /// The kind that suits a model and takes sounds.
    #[must_use]
    pub const fn hearing(shape: Shape) -> Self {
        match shape {
            Shape::TinyQwen2Vl => Self::Omni,
            _ => Self::Ultravox,
        }
    }

    /// Whether it takes pictures.
    #[must_use]
    pub const fn sees(self) -> bool {
        !matches!(self, Self::Ultravox)
    }

    /// Whether it takes sounds.
    #[must_use]
    pub const fn hears(self) -> bool {
        matches!(self, Self::Ultravox | Self::Omni)
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The name by which it is chosen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Qwen2Vl => "qwen2vl",
            Self::Gemma3 => "gemma3",
            Self::Ultravox => "ultravox",
            Self::Omni => "omni",
        }
    }

    /// llama.cpp's names of it, by the keys that say them.
    const fn projector_types(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Mlp => &[("clip.projector_type", "mlp")],
            Self::Qwen2Vl => &[("clip.projector_type", "qwen2vl_merger")],
            Self::Gemma3 => &[("clip.projector_type", "gemma3")],
            Self::Ultravox => &[("clip.projector_type", "ultravox")],
            Self::Omni => {
                &[("clip.vision.projector_type", "qwen2vl_merger"), ("clip.audio.projector_type", "qwen2a")]
            }
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

    /// A projector of this kind for a model of this shape.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn file_of(self, shape: Shape, seed: u64) -> Result<Vec<u8>, SynthError> {
        self.file(shape.dims().embedding, seed)
    }

    /// A projector for a model of this shape, of the kind that suits it and takes pictures.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn file_for(shape: Shape, seed: u64) -> Result<Vec<u8>, SynthError> {
        Self::of(shape).file_of(shape, seed)
    }

    fn describe(self, header: &mut HeaderBuilder, width: u64) {
        header
            .set("general.architecture", "clip")
            .set("general.type", "mmproj")
            .set("general.name", format!("{} projector (synthetic)", self.name()))
            .set("general.file_type", 0_u32)
            .set("clip.use_gelu", true);
        for (key, projector_type) in self.projector_types() {
            header.set(*key, *projector_type);
        }
        for part in [("vision", self.sees()), ("audio", self.hears())].iter().filter(|part| part.1) {
            let key = |name: &str| format!("clip.{}.{name}", part.0);
            header
                .set(format!("clip.has_{}_encoder", part.0), true)
                .set(key("embedding_length"), EMBEDDING as u32)
                .set(key("feed_forward_length"), FFN as u32)
                .set(key("projection_dim"), width as u32)
                .set(key("block_count"), LAYERS)
                .set(key("attention.head_count"), HEADS)
                .set(key("attention.layer_norm_epsilon"), 1e-6_f32);
        }
        if self.sees() {
            self.describe_pictures(header);
        }
        if self.hears() {
            header.set("clip.audio.num_mel_bins", BANDS as u32);
        }
        if self == Self::Ultravox {
            header.set("clip.audio.projector.stack_factor", STACKED as u32);
        }
    }

    fn describe_pictures(self, header: &mut HeaderBuilder) {
        header
            .set("clip.vision.image_size", (SIDE * PATCH) as u32)
            .set("clip.vision.patch_size", PATCH as u32)
            .set("clip.vision.image_mean", vec![0.5_f32; 3])
            .set("clip.vision.image_std", vec![0.5_f32; 3]);
        match self {
            Self::Mlp | Self::Ultravox => {}
            Self::Qwen2Vl | Self::Omni => {
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
        if self.sees() {
            self.eyes(width, &mut all);
        }
        if self.hears() {
            all.ears();
        }
        match self {
            Self::Ultravox => {
                let stacked = EMBEDDING * STACKED;
                all.around("mm.a.norm_pre.weight", stacked, 1.0);
                // Half of it is a gate.
                all.matrix("mm.a.mlp.1.weight", &[stacked, FFN * 2]);
                all.around("mm.a.norm_mid.weight", FFN, 1.0);
                all.matrix("mm.a.mlp.2.weight", &[FFN, width]);
            }
            Self::Omni => all.linear("mm.a.fc", EMBEDDING, width),
            Self::Mlp | Self::Qwen2Vl | Self::Gemma3 => {}
        }
        all.0
    }

    fn eyes(self, width: u64, all: &mut Tensors) {
        let patch = [PATCH, PATCH, 3, EMBEDDING];
        all.matrix("v.patch_embd.weight", &patch);
        if matches!(self, Self::Qwen2Vl | Self::Omni) {
            all.matrix("v.patch_embd.weight.1", &patch);
        } else {
            all.matrix("v.position_embd.weight", &[EMBEDDING, SIDE * SIDE]);
        }
        all.layers("v");
        all.around("v.post_ln.weight", EMBEDDING, 1.0);
        all.around("v.post_ln.bias", EMBEDDING, 0.0);
        match self {
            Self::Mlp | Self::Ultravox => {
                all.linear("mm.0", EMBEDDING, width);
                all.linear("mm.2", width, width);
            }
            Self::Qwen2Vl | Self::Omni => {
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

/// A sound file that no other `seed` makes: a WAVE of one channel in 16 bits, 16,000 samples a second, some
/// tones.
#[must_use]
pub fn sound(seed: u8, seconds: f32) -> Vec<u8> {
    const RATE: u32 = 16_000;
    let count = (seconds * RATE as f32) as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + count * 2).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    for word in [1_u16, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * 2).to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend((count * 2).to_le_bytes());
    for at in 0..count {
        let time = at as f32 / RATE as f32;
        let tone = |hertz: f32| (time * hertz * std::f32::consts::TAU).sin();
        // Higher as time goes on.
        let sample = tone(200.0 + 37.0 * f32::from(seed) + 90.0 * time) * 0.4
            + tone(1500.0 - 5.0 * f32::from(seed)) * 0.3;
        file.extend(((sample * 32_000.0) as i16).to_le_bytes());
    }
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
