//! What a projector file takes, and whether it can be trusted to llama.cpp, before anything of it is loaded.

use hypura_core::gguf::{self, GgmlType, GgufSet, TensorInfo};
use hypura_core::plan::MediaNeeds;
use hypura_ggml::media::{self, ProjectorUse};
use hypura_storage::OpenError;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::sound::MOST_SECONDS;
use super::{Modalities, picture};

/// Numbers that no projector has more of; llama.cpp takes memory for each layer before it looks for its
/// tensors.
const MOST: &[(&str, u64)] = &[
    ("block_count", 1024),
    ("embedding_length", 1 << 17),
    ("feed_forward_length", 1 << 20),
    ("attention.head_count", 1 << 12),
    ("image_size", 1 << 14),
    ("patch_size", 1 << 12),
    ("num_mel_bins", 1 << 12),
    ("projector.stack_factor", 1 << 10),
    ("projector.window_size", 1 << 12),
    ("projector.downsample_rate", 1 << 12),
];

/// Those of them that llama.cpp divides by.
const NEVER_ZERO: &[&str] =
    &["patch_size", "projector.stack_factor", "projector.window_size", "projector.downsample_rate"];

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
    /// Bytes of everything: weights, compute buffers for the largest picture and the longest piece of a
    /// sound, their rows, and what both are on their way there.
    pub bytes: u64,
    /// What it can be shown.
    pub modalities: Modalities,
    /// Seconds of the longest sound that it takes.
    pub most_sound_seconds: u32,
    /// Rows of the largest picture, as far as llama.cpp tells.
    pub most_rows: u32,
    /// Whether the rows of a picture must be in one graph.
    pub non_causal: bool,
}

impl PlannedProjector {
    /// What a plan has to know of it.
    #[must_use]
    pub const fn needs(&self) -> MediaNeeds {
        // The rows of a picture that see each other have to go through in one graph.
        MediaNeeds { bytes: self.bytes, graph_tokens: if self.non_causal { self.most_rows } else { 0 } }
    }

    /// Reads the header and checks it, as far as that can be done without llama.cpp.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub fn check(path: &Path) -> Result<(), ProjectorError> {
        let header = read(path)?;
        check(&header).map_err(|reason| ProjectorError::Unusable { path: path.to_owned(), reason })
    }

    /// Reads the header, checks it, and has llama.cpp build its graph without memory. `sequences` may have a
    /// picture at the same time.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub fn of(path: &Path, sequences: u32) -> Result<Self, ProjectorError> {
        let unusable = |reason: String| ProjectorError::Unusable { path: path.to_owned(), reason };
        let header = read(path)?;
        check(&header).map_err(unusable)?;
        let found = media::measure(path).map_err(|error| unusable(error.to_string()))?;
        let modalities = Modalities { pictures: found.vision, sounds: found.audio };
        if !modalities.any() {
            return Err(unusable("this projector takes neither images nor audio".to_owned()));
        }
        let pieces = if found.audio_any_length { MOST_SECONDS } else { media::PIECE_SECONDS };
        Ok(Self {
            path: path.to_owned(),
            bytes: bytes(&found, weights(&header), sequences),
            modalities,
            most_sound_seconds: if modalities.sounds { pieces } else { 0 },
            most_rows: found.most_rows,
            non_causal: found.non_causal,
        })
    }
}

/// Bytes of weights of what sees and of what hears.
#[derive(Clone, Copy, Default)]
struct Weights {
    vision: u64,
    audio: u64,
}

fn weights(header: &GgufSet) -> Weights {
    let mut all = Weights::default();
    for tensor in &header.tensors {
        let hears = tensor.name.starts_with("a.") || tensor.name.starts_with("mm.a.");
        *(if hears { &mut all.audio } else { &mut all.vision }) += tensor.bytes;
    }
    all
}

/// Bytes of a number.
const F32: u64 = 4;

/// The most samples a second that an encoder of llama.cpp asks for.
const MOST_RATE: u64 = 24_000;

fn bytes(found: &ProjectorUse, weights: Weights, sequences: u32) -> u64 {
    let sequences = u64::from(sequences.max(1));
    // Measured for a picture and a piece of sound of the size that mtmd reserves memory for; larger ones need
    // in proportion.
    let vision = grown(found.vision_bytes, weights.vision, found.probe_pixels, found.most_pixels);
    let audio = grown(found.audio_bytes, weights.audio, found.probe_steps, found.most_steps);
    // mtmd's own copy, and one for each sequence that is in the middle of a picture or a sound.
    let rows =
        u64::from(found.most_rows.max(found.sound_rows)).saturating_mul(found.width).saturating_mul(F32);
    let mut all = vision
        .saturating_add(audio)
        .saturating_add(found.other_bytes)
        .saturating_add(rows.saturating_mul(sequences + 1));
    if found.vision {
        all = all.saturating_add(picture::WORK_BYTES);
    }
    if found.audio {
        // A sound on its way: its samples twice, and three times what they become. That stays with a request
        // until it is encoded.
        let samples = MOST_RATE * F32 * u64::from(MOST_SECONDS);
        let spectrum = found.sound_numbers.saturating_mul(F32 * u64::from(MOST_SECONDS));
        all = all.saturating_add(2 * samples).saturating_add(spectrum.saturating_mul(3 + sequences));
    }
    all
}

/// Weights and compute buffers, measured for `probe`, when `most` has to pass through them.
fn grown(measured: u64, weights: u64, probe: u64, most: u64) -> u64 {
    let compute = measured.saturating_sub(weights.min(measured));
    let compute = if most > probe && probe > 0 {
        (compute as f64 * (most as f64 / probe as f64)) as u64
    } else {
        compute
    };
    if measured == 0 { 0 } else { measured.max(weights.saturating_add(compute)) }
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
        for (name, most) in MOST {
            let key = format!("clip.{part}.{name}");
            let value = metadata.u64(&key).map_err(|error| error.to_string())?;
            let cannot_be = |value: &u64| value > most || (*value == 0 && NEVER_ZERO.contains(name));
            if let Some(value) = value.filter(cannot_be) {
                return Err(format!("{key} is {value}, which cannot be"));
            }
        }
    }
    let names: HashSet<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    for encoder in [Encoder { part: "vision", prefix: "v" }, Encoder { part: "audio", prefix: "a" }] {
        encoder.check(header, &names)?;
    }
    Ok(())
}

/// What sees, or what hears.
struct Encoder {
    /// As in keys: `clip.audio.block_count`.
    part: &'static str,
    /// As in names of tensors: `a.blk.0.attn_q.weight`.
    prefix: &'static str,
}

impl Encoder {
    fn check(&self, header: &GgufSet, names: &HashSet<&str>) -> Result<(), String> {
        let Self { part, prefix } = self;
        let layers: HashSet<&str> = names.iter().filter_map(|name| layer_of(name, prefix)).collect();
        let text = |key: &str| header.metadata.str(key).ok().flatten();
        let has = header.metadata.bool(&format!("clip.has_{part}_encoder")).ok().flatten().unwrap_or(false);
        let projector_type =
            text("clip.projector_type").or_else(|| text(&format!("clip.{part}.projector_type")));
        let needed = if has { needed(prefix, projector_type.unwrap_or_default()) } else { &[] };
        if !needed.is_empty() {
            if layers.is_empty() {
                return Err(format!("its {part} encoder has no layers"));
            }
            // The layers of these are all alike.
            let of = |rest: &str| {
                names.iter().filter(|name| layer_of(name, prefix).is_some() && name.ends_with(rest)).count()
            };
            let parts: HashSet<&str> = names.iter().filter_map(|name| part_of(name, prefix)).collect();
            if let Some(part) = parts.iter().find(|part| of(&format!(".{part}")) < layers.len()) {
                return Err(format!("not all of its layers have {part}"));
            }
        }
        for tensor in needed {
            if !tensor.split('|').any(|name| names.contains(name)) {
                return Err(format!("it lacks {tensor}"));
            }
        }
        if *prefix == "a" && has {
            check_ears(header, projector_type.unwrap_or_default())?;
        }
        for layer in layers {
            let has = |tensor: &str| names.contains(format!("{prefix}.blk.{layer}.{tensor}.weight").as_str());
            let separate = ["attn_q", "attn_k", "attn_v"].map(has);
            let complete = separate == [true; 3] || has("attn_qkv");
            if !complete && (separate.contains(&true) || has("attn_out")) {
                return Err(format!("layer {layer} lacks a part of its attention"));
            }
            if has("ffn_up") != has("ffn_down") {
                return Err(format!("layer {layer} lacks a part of its feed-forward network"));
            }
        }
        Ok(())
    }
}

/// What would end the program while a sound is encoded.
fn check_ears(header: &GgufSet, projector_type: &str) -> Result<(), String> {
    /// Columns of the spectrum of half a minute, and places after the second convolution.
    const COLUMNS: u64 = 3000;
    const PLACES: u64 = COLUMNS / 2;
    let plain = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];
    let convolution = |name: &str| name.starts_with("a.conv1d.") && name.ends_with(".weight");
    let bad = |tensor: &&TensorInfo| convolution(&tensor.name) && !plain.contains(&tensor.ty);
    if let Some(tensor) = header.tensors.iter().find(bad) {
        return Err(format!("{} is quantised, which a convolution cannot be", tensor.name));
    }
    let number = |key: &str| header.metadata.u64(key).ok().flatten();
    // ggml does not look whether a convolution of one dimension gets as many channels as it has weights for.
    let shape = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name).map(|one| &one.shape);
    if let (Some(first), Some(second)) = (shape("a.conv1d.1.weight"), shape("a.conv1d.2.weight")) {
        let channels = |shape: &[u64], at: usize| shape.get(at).copied().unwrap_or(1);
        let fits = Some(channels(first, 1)) == number("clip.audio.num_mel_bins")
            && channels(second, 1) == channels(first, 2);
        if !fits {
            return Err("its convolutions do not fit what they are given".to_owned());
        }
    }
    let stacked = number("clip.audio.projector.stack_factor").unwrap_or(1);
    let pooled = if projector_type == "voxtral" { 2 } else { 1 };
    if !matches!(projector_type, "ultravox" | "voxtral" | "meralion") || stacked <= 1 {
        return Ok(());
    }
    // llama.cpp counts the rows in two ways (`clip_n_output_tokens`, and `build_stack` with ggml's GGML_PAD,
    // which is meant for powers of two) and ends the program where they differ.
    let embedding = number("clip.audio.embedding_length").unwrap_or(0);
    let expected = COLUMNS.div_ceil(stacked) / 2 / pooled;
    let (length, stride) = (PLACES / pooled * embedding, embedding * stacked);
    let padded = length.wrapping_add(stride).wrapping_sub(1) & !stride.wrapping_sub(1);
    if stride == 0 || padded / stride != expected {
        return Err(format!("its stack factor of {stacked} does not fit its other numbers"));
    }
    Ok(())
}

/// What the graphs of common projectors read although llama.cpp's loader takes its absence. Of two with `|`
/// one will do.
fn needed(prefix: &str, projector_type: &str) -> &'static [&'static str] {
    match (prefix, projector_type) {
        // The encoder of Whisper. Its convolutions, and what follows it, are looked for by the loader.
        (
            "a",
            "ultravox" | "voxtral" | "qwen2a" | "qwen2.5o" | "glma" | "meralion" | "musicflamingo"
            | "music_flamingo",
        ) => &["a.position_embd.weight", "a.conv1d.1.weight", "a.conv1d.2.weight"],
        ("v", projector_type) => needed_to_see(projector_type),
        _ => &[],
    }
}

fn needed_to_see(projector_type: &str) -> &'static [&'static str] {
    match projector_type {
        "mlp" => &["v.patch_embd.weight", "v.position_embd.weight", "mm.0.weight", "mm.2.weight|mm.3.weight"],
        "gemma3" | "idefics3" | "internvl" | "llama4" | "lfm2" => {
            &["v.patch_embd.weight", "v.position_embd.weight"]
        }
        "qwen2vl_merger" | "qwen2.5vl_merger" | "qwen2.5o" => {
            &["v.patch_embd.weight", "v.patch_embd.weight.1"]
        }
        "qwen3vl_merger" => &["v.patch_embd.weight", "v.patch_embd.weight.1", "v.position_embd.weight"],
        "pixtral" => &["v.patch_embd.weight"],
        _ => &[],
    }
}

/// What follows the number in `v.blk.7.attn_q.weight`.
fn part_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix(".blk.")?.split_once('.').map(|(_, part)| part)
}

/// The number in `v.blk.7.attn_q.weight`.
fn layer_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?.strip_prefix(".blk.")?;
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
            assert_eq!(
                planned.modalities,
                Modalities { pictures: kind.sees(), sounds: kind.hears() },
                "{kind}"
            );
            let seen = if kind.sees() { picture::WORK_BYTES } else { 0 };
            // A sound of the longest kind, twice, and what becomes of it.
            let heard = if kind.hears() { 2 * 600 * 16_000 * 4 + 3 * 600 * 100 * 40 * 4 } else { 0 };
            assert!(planned.bytes > file.len() as u64 + seen + heard, "{kind}: {planned:?}");
            assert!(planned.bytes < seen + 2 * heard + (200 << 20), "{kind}: {planned:?}");
            assert!(!kind.sees() || planned.most_rows >= 16, "{kind}: {planned:?}");
            assert_eq!(planned.most_sound_seconds, if kind.hears() { MOST_SECONDS } else { 0 });
        }
        let found = ProjectorUse {
            vision_bytes: 150,
            probe_pixels: 10,
            most_pixels: 40,
            width: 2,
            most_rows: 3,
            vision: true,
            ..ProjectorUse::default()
        };
        let weights = Weights { vision: 100, audio: 60 };
        let all = bytes(&found, weights, 2);
        assert_eq!(all, 100 + 50 * 4 + 3 * 2 * 4 * 3 + picture::WORK_BYTES);
        let both = ProjectorUse {
            audio_bytes: 70,
            other_bytes: 5,
            probe_steps: 100,
            most_steps: 300,
            sound_numbers: 8,
            sound_rows: 7,
            audio: true,
            ..found
        };
        let heard = 70 - 10 + 10 * 3 + 5 + 2 * 600 * 24_000 * 4 + 8 * 600 * 4 * (3 + 2);
        assert_eq!(bytes(&both, weights, 2), all + heard + (7 - 3) * 2 * 4 * 3);
    }

    #[test]
    fn ears_that_llama_cpp_would_not_survive_are_found_before() {
        let good = ProjectorKind::Ultravox.file(256, 1).unwrap();
        let replaced = |good: &[u8], from: &str, to: &str| {
            let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut bad = good.to_vec();
            bad[at..at + to.len()].copy_from_slice(to.as_bytes());
            bad
        };
        for tensor in ["a.position_embd.weight", "a.conv1d.1.weight", "a.conv1d.2.weight"] {
            let bad = replaced(&good, tensor, &tensor.replace("weight", "waight"));
            assert!(planned(&bad).unwrap_err().to_string().contains(tensor));
        }
        for (from, to, why) in [
            ("a.blk.1.attn_v.weight", "a.blk.1.attn_x.weight", "attn_"),
            ("a.blk.0.ffn_up.weight", "a.blk.0.ffn_ux.weight", "ffn_u"),
            ("a.blk.1.attn_q.bias", "a.blk.1.attn_x.bias", ".bias"),
            ("mm.a.mlp.2.weight", "mm.a.mlp.3.weight", "cannot be used"),
            ("mm.a.norm_pre.weight", "mm.a.norm_pro.weight", "cannot be used"),
            ("clip.has_audio_encoder", "clip.has_audio_encodar", "cannot be used"),
            ("clip.projector_type", "clip.projector_tipe", "cannot be used"),
            ("clip.audio.block_count", "clip.audio.black_count", "cannot be used"),
        ] {
            let error = planned(&replaced(&good, from, to)).unwrap_err().to_string();
            assert!(error.contains(why), "{from}: {error}");
        }
        let number = |key: &str, value: u32| {
            let at = good.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
            let at = at + key.len() + 4;
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            planned(&bad).unwrap_err().to_string()
        };
        // Divided by; counted in two ways that differ; more bands than a convolution takes; more layers than
        // there are.
        assert!(number("clip.audio.projector.stack_factor", 0).contains("cannot be"));
        assert!(number("clip.audio.projector.stack_factor", 8).contains("does not fit"));
        assert!(number("clip.audio.num_mel_bins", 80).contains("convolutions"));
        assert!(number("clip.audio.num_mel_bins", u32::MAX).contains("cannot be"));
        assert!(number("clip.audio.block_count", 3).contains("cannot be used"));
        assert!(planned(&good[..good.len() / 2]).is_err());
        // Both encoders of one file are looked at.
        let both = ProjectorKind::Omni.file(256, 1).unwrap();
        for tensor in ["a.position_embd.weight", "v.patch_embd.weight"] {
            let bad = replaced(&both, tensor, &tensor.replace("weight", "waight"));
            assert!(planned(&bad).unwrap_err().to_string().contains(tensor));
        }
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
