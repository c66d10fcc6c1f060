//! What the header of a model says about it: everything that lists and `show` tell without loading the model.
//!
//! Made once from the headers of all shards and then remembered (`cache`), so nothing here is as large as a
//! vocabulary.

use hypura_core::gguf::{Array, GgufSet, Metadata, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;

/// Arrays longer than this are shown as empty ones, unless everything is asked for.
const LONGEST_SHOWN_ARRAY: usize = 5;

/// What a model can do, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Continues text.
    Completion,
    /// Calls functions.
    Tools,
    /// Fills a gap between two texts.
    Insert,
    /// Sees images.
    Vision,
    /// Makes vectors of text.
    Embedding,
    /// Thinks before it answers.
    Thinking,
    /// Hears sounds.
    Audio,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// 64 hexadecimal digits that change when header or size of a file changes: cheap, and stable.
    pub digest: String,
    /// `general.architecture`
    pub architecture: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// How most weights are encoded: `Q4_K_M`.
    pub quantization: String,
    /// Longest context it was trained for, in tokens.
    pub context_length: Option<u64>,
    /// Length of its hidden vectors.
    pub embedding_length: Option<u64>,
    /// The chat template, in Jinja.
    pub template: Option<String>,
    /// What it can do, as far as header and template tell.
    pub capabilities: Vec<Capability>,
    /// The metadata as `show` gives them: long arrays are empty.
    pub model_info: Map<String, Json>,
    /// Whether it is a projector for images or sounds, which is no model by itself.
    pub is_projector: bool,
}

/// One tensor, as `show` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorRow {
    /// Name.
    pub name: String,
    /// Encoding: `Q4_K`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Elements by dimension, the innermost first.
    pub shape: Vec<u64>,
}

impl Facts {
    /// Gathers them. A key of an unexpected type counts as absent: the model may be odd, the list of models
    /// must not fail.
    pub(super) fn of(gguf: &GgufSet, digest: String) -> Self {
        let metadata = &gguf.metadata;
        let architecture = text(metadata, "general.architecture").unwrap_or("unknown").to_owned();
        let number = |name: &str| metadata.u64(&format!("{architecture}.{name}")).ok().flatten();
        let parameters = count_parameters(gguf);
        let template = text(metadata, "tokenizer.chat_template").map(ToOwned::to_owned);
        Self {
            digest,
            parameters,
            quantization: quantization(gguf),
            context_length: number("context_length"),
            embedding_length: number("embedding_length"),
            capabilities: capabilities(metadata, &architecture, template.as_deref()),
            template,
            model_info: model_info(metadata, parameters, false),
            is_projector: text(metadata, "general.type") == Some("mmproj") || architecture == "clip",
            architecture,
        }
    }

    /// Whether a projector takes pictures.
    #[must_use]
    pub fn takes_images(&self) -> bool {
        let says = |key: &str| self.model_info.get(key).and_then(Json::as_bool);
        self.is_projector && says("clip.has_vision_encoder").unwrap_or(false)
    }

    /// Whether a projector takes sounds in prompts. Some encoders of sounds are for a stream beside the text,
    /// or for the voice that is to be spoken with.
    #[must_use]
    pub fn takes_sounds(&self) -> bool {
        const OTHERS: [&str; 3] = ["voxtral_rt", "qwen3tts_spkenc", "pockettts_spkenc"];
        let text = |key: &str| self.model_info.get(key).and_then(Json::as_str);
        let kind = text("clip.projector_type").or_else(|| text("clip.audio.projector_type"));
        let says = |key: &str| self.model_info.get(key).and_then(Json::as_bool);
        let hears = self.is_projector && says("clip.has_audio_encoder").unwrap_or(false);
        hears && !kind.is_some_and(|kind| OTHERS.contains(&kind))
    }

    /// Its architecture, and `clip` where it has a projector: clients look for that.
    pub(super) fn families(&self, has_projector: bool) -> Vec<String> {
        let clip = has_projector.then(|| "clip".to_owned());
        std::iter::once(self.architecture.clone()).chain(clip).collect()
    }

    /// The number of parameters for people: `8.0B`.
    #[must_use]
    pub fn parameter_size(&self) -> String {
        human_number(self.parameters)
    }
}

/// The metadata as `show` gives them.
pub(super) fn model_info(metadata: &Metadata, parameters: u64, verbose: bool) -> Map<String, Json> {
    let mut info = Map::new();
    for (key, value) in metadata.iter() {
        if key != "general.name" && key != "tokenizer.chat_template" {
            info.insert(key.to_owned(), json(value, verbose));
        }
    }
    // Clients rely on these two.
    info.entry("general.architecture").or_insert_with(|| Json::from("unknown"));
    info.entry("general.parameter_count").or_insert_with(|| Json::from(parameters));
    info
}

/// The tensors as `show` lists them.
pub(super) fn tensor_rows(gguf: &GgufSet) -> Vec<TensorRow> {
    let row = |tensor: &hypura_core::gguf::TensorInfo| TensorRow {
        name: tensor.name.clone(),
        kind: tensor.ty.name().to_uppercase(),
        shape: tensor.shape.clone(),
    };
    gguf.tensors.iter().map(row).collect()
}

/// As Ollama writes numbers of parameters.
#[must_use]
pub fn human_number(number: u64) -> String {
    let scaled = |unit: u64, digits: usize, letter: char| {
        if number.is_multiple_of(unit) {
            format!("{}{letter}", number / unit)
        } else {
            format!("{:.digits$}{letter}", number as f64 / unit as f64)
        }
    };
    match number {
        1_000_000_000.. => scaled(1_000_000_000, 1, 'B'),
        1_000_000.. => scaled(1_000_000, 2, 'M'),
        1_000.. => format!("{:.0}K", number as f64 / 1e3),
        _ => number.to_string(),
    }
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.str(key).ok().flatten()
}

fn count_parameters(gguf: &GgufSet) -> u64 {
    let elements = |shape: &[u64]| shape.iter().fold(1_u64, |product, &n| product.saturating_mul(n));
    gguf.tensors.iter().fold(0_u64, |sum, tensor| sum.saturating_add(elements(&tensor.shape)))
}

/// What the file says of itself (`general.file_type`, `enum llama_ftype`), or else the encoding of most
/// bytes.
fn quantization(gguf: &GgufSet) -> String {
    let said = gguf.metadata.u64("general.file_type").ok().flatten().and_then(file_type_name);
    if let Some(name) = said {
        return name.to_owned();
    }
    let mut bytes: HashMap<&str, u64> = HashMap::new();
    for tensor in &gguf.tensors {
        let sum = bytes.entry(tensor.ty.name()).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    // The name decides between equals, so that the answer is always the same.
    let most = bytes.into_iter().max_by_key(|&(name, bytes)| (bytes, name));
    most.map_or_else(|| "unknown".to_owned(), |(name, _)| name.to_uppercase())
}

/// `enum llama_ftype` of llama.h.
fn file_type_name(id: u64) -> Option<&'static str> {
    Some(match id {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        _ => return None,
    })
}

/// The rules of Ollama over the Jinja text, but fill-in-the-middle by the tokens of the vocabulary.
fn capabilities(metadata: &Metadata, architecture: &str, template: Option<&str>) -> Vec<Capability> {
    let pooling = metadata.u64(&format!("{architecture}.pooling_type")).ok().flatten();
    // 0 is "none". Encoders have no other use than vectors.
    let embeds = pooling.is_some_and(|kind| kind > 0) || architecture.contains("bert");
    let mut all = vec![if embeds { Capability::Embedding } else { Capability::Completion }];
    if !embeds && can_fill_in(metadata) {
        all.push(Capability::Insert);
    }
    all.extend(template_capabilities(template.unwrap_or_default(), architecture));
    all.sort_unstable();
    all
}

/// What a chat template in Jinja adds to a model of this architecture.
pub(super) fn template_capabilities(template: &str, architecture: &str) -> Vec<Capability> {
    let tools = template.contains("tools") || template.contains("tool_call");
    let tags = template.contains("<think>") && template.contains("</think>");
    let splits = template.contains("split('</think>')") || template.contains("split(\"</think>\")");
    // Its template has channels instead of tags. Without a template it would get ChatML, which has neither.
    let channels = architecture == "gpt-oss" && !template.is_empty();
    let thinks = tags || splits || template.contains("enable_thinking") || channels;
    [(tools, Capability::Tools), (thinks, Capability::Thinking)]
        .into_iter()
        .filter_map(|(has, capability)| has.then_some(capability))
        .collect()
}

/// Prefix, suffix and middle: by the keys, or by the texts that llama.cpp recognises.
fn can_fill_in(metadata: &Metadata) -> bool {
    let has = |keys: [&str; 2]| {
        keys.iter().any(|key| metadata.get(&format!("tokenizer.ggml.{key}_token_id")).is_some())
    };
    if has(["fim_pre", "prefix"]) && has(["fim_suf", "suffix"]) && has(["fim_mid", "middle"]) {
        return true;
    }
    let families: [[&str; 3]; 5] = [
        ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
        ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
        ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ];
    let Ok(Some(tokens)) = metadata.str_array("tokenizer.ggml.tokens") else { return false };
    let mut found = [[false; 3]; 5];
    // One pass: vocabularies have hundreds of thousands of tokens, most of which begin otherwise.
    for token in tokens.iter().filter(|token| token.starts_with('<') || token.starts_with('▁')) {
        for (family, seen) in families.iter().zip(&mut found) {
            for (text, seen) in family.iter().zip(seen) {
                *seen |= token == text;
            }
        }
    }
    found.iter().any(|family| family.iter().all(|&seen| seen))
}

fn json(value: &Value, verbose: bool) -> Json {
    match value {
        Value::U8(v) => Json::from(*v),
        Value::I8(v) => Json::from(*v),
        Value::U16(v) => Json::from(*v),
        Value::I16(v) => Json::from(*v),
        Value::U32(v) => Json::from(*v),
        Value::I32(v) => Json::from(*v),
        Value::U64(v) => Json::from(*v),
        Value::I64(v) => Json::from(*v),
        Value::F32(v) => float(*v),
        Value::F64(v) => Json::from(*v),
        Value::Bool(v) => Json::from(*v),
        Value::String(v) => Json::from(v.as_str()),
        Value::Array(array) if !verbose && array.len() > LONGEST_SHOWN_ARRAY => Json::Array(Vec::new()),
        Value::Array(array) => json_array(array),
    }
}

/// A 32-bit number as the shortest text that means it: 0.1, not 0.10000000149011612.
fn float(value: f32) -> Json {
    value.to_string().parse::<f64>().map_or(Json::Null, Json::from)
}

fn json_array(array: &Array) -> Json {
    match array {
        Array::U8(items) => Json::from(items.as_slice()),
        Array::I8(items) => Json::from(items.as_slice()),
        Array::U16(items) => Json::from(items.as_slice()),
        Array::I16(items) => Json::from(items.as_slice()),
        Array::U32(items) => Json::from(items.as_slice()),
        Array::I32(items) => Json::from(items.as_slice()),
        Array::U64(items) => Json::from(items.as_slice()),
        Array::I64(items) => Json::from(items.as_slice()),
        Array::F32(items) => items.iter().map(|item| float(*item)).collect(),
        Array::F64(items) => Json::from(items.as_slice()),
        Array::Bool(items) => Json::from(items.as_slice()),
        Array::String(items) => Json::from(items.as_slice()),
        Array::Nested(items) => items.iter().map(json_array).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ollama_does() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_500, "2K"),
            (22_700_000, "22.70M"),
            (137_000_000, "137M"),
            (8_030_261_248, "8.0B"),
            (8_000_000_000, "8B"),
            (1_026_000_000_000, "1026B"),
        ] {
            assert_eq!(human_number(number), text);
        }
    }

    fn with_tokens(tokens: &[&str]) -> Metadata {
        let mut metadata = Metadata::new();
        let tokens: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
        metadata
    }

    #[test]
    fn a_gap_can_be_filled_only_with_all_three_tokens() {
        let all = with_tokens(&["a", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]);
        assert!(can_fill_in(&all));
        assert!(!can_fill_in(&with_tokens(&["<|fim_prefix|>", "<fim_middle>", "<|fim_suffix|>"])));
        assert!(!can_fill_in(&Metadata::new()));
        let mut keys = Metadata::new();
        for key in ["fim_pre", "suffix", "fim_mid"] {
            keys.insert(format!("tokenizer.ggml.{key}_token_id"), Value::U32(1));
        }
        assert!(can_fill_in(&keys));
    }

    #[test]
    fn templates_and_keys_tell_capabilities() {
        use Capability::{Completion, Embedding, Thinking, Tools};
        let none = Metadata::new();
        assert_eq!(capabilities(&none, "llama", None), [Completion]);
        assert_eq!(capabilities(&none, "llama", Some("{% if tools %}")), [Completion, Tools]);
        let thinks = "{{ c.split('</think>')[0] }}";
        assert_eq!(capabilities(&none, "qwen3", Some(thinks)), [Completion, Thinking]);
        assert_eq!(capabilities(&none, "qwen3", Some("<think></think>")), [Completion, Thinking]);
        assert_eq!(capabilities(&none, "gpt-oss", Some("x")), [Completion, Thinking]);
        assert_eq!(capabilities(&none, "gpt-oss", None), [Completion]);
        // Go, which nothing here reads.
        assert_eq!(capabilities(&none, "llama", Some("{{ .Tools }}{{ .Thinking }}")), [Completion]);
        assert_eq!(capabilities(&none, "nomic-bert", None), [Embedding]);
        let mut pooled = Metadata::new();
        pooled.insert("qwen3.pooling_type", Value::U32(3));
        assert_eq!(capabilities(&pooled, "qwen3", None), [Embedding]);
        assert_eq!(capabilities(&pooled, "llama", None), [Completion]);
    }

    #[test]
    fn long_arrays_are_shown_only_when_asked_for() {
        let mut metadata = with_tokens(&["a", "b", "c", "d", "e", "f"]);
        metadata.insert("general.name", "secret");
        metadata.insert("tokenizer.chat_template", "x");
        metadata.insert("x.scale", 0.1_f32);
        metadata.insert("x.few", Value::Array(Array::U32(vec![1, 2])));
        let info = model_info(&metadata, 7, false);
        assert_eq!(
            Json::Object(info),
            serde_json::json!({
                "tokenizer.ggml.tokens": [], "x.scale": 0.1, "x.few": [1, 2],
                "general.architecture": "unknown", "general.parameter_count": 7,
            })
        );
        assert_eq!(model_info(&metadata, 7, true)["tokenizer.ggml.tokens"].as_array().unwrap().len(), 6);
    }
}
