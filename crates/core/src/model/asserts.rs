//! What llama.cpp would assert on, or has no kernel for: named before it is asked.
//!
//! The conditions are those of `llama_model_base::load_hparams` (`llama-model.cpp`), of `llama-vocab.cpp`,
//! and of ggml's operators for the CPU. Best effort: what is not here ends the process that loads the file.

use std::collections::HashSet;

use super::layers::ArchKeys;
use super::{ModelError, ModelTensor, TensorRole, rwkv};
use crate::gguf::{GgmlType, Metadata, Value};

/// Most routed experts (`LLAMA_MAX_EXPERTS`).
const MAX_EXPERTS: u64 = 1024;
/// Most heads, and most elements of one: far beyond any model, and what products of them fit into 32 bits.
const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_ELEMENTS: u64 = 1 << 16;
/// Most elements of a hidden state or a feed-forward network's inner one.
const MAX_WIDTH: u64 = 1 << 24;

/// Most bytes of one token. The longest of real vocabularies have a few hundred; llama.cpp repeats the whole
/// text for each byte of it that it does not know.
const MAX_TOKEN_BYTES: usize = 4096;
/// Most that names a quantisation: llama.cpp's enumeration, and the bit that says that it was guessed.
const MAX_FILE_TYPE: u32 = 2047;

/// Numbers and words of the metadata.
pub(super) fn check_keys(keys: &ArchKeys<'_>, layers: u32, is_dense: bool) -> Result<(), ModelError> {
    check_experts(keys, layers, is_dense)?;
    check_sizes(keys, layers)?;
    check_latent(keys)?;
    for name in
        ["attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.group_norm_epsilon"]
    {
        let key = keys.key(name);
        if let Some(value) = keys.metadata.f32(&key)?
            && !(value.is_finite() && value >= 0.0)
        {
            return Err(unusable(key, value, "no norm can be computed with it"));
        }
    }
    if let Ok(Some(value)) = keys.metadata.u32("general.file_type")
        && value > MAX_FILE_TYPE
    {
        return Err(unusable("general.file_type".to_owned(), value, "no quantisation has that number"));
    }
    check_word(keys, "rope.scaling.type", &["none", "linear", "yarn", "longrope"])?;
    check_word(keys, "classifier.activation", &["gelu", "silu", "tanh"])
}

fn unusable(key: String, value: impl ToString, why: &'static str) -> ModelError {
    ModelError::Unusable { key, value: value.to_string(), why }
}

fn check_word(keys: &ArchKeys<'_>, name: &str, known: &[&str]) -> Result<(), ModelError> {
    let key = keys.key(name);
    match keys.metadata.str(&key)? {
        Some(word) if !known.contains(&word) => Err(unusable(key, word, "llama.cpp does not know that")),
        _ => Ok(()),
    }
}

fn check_experts(keys: &ArchKeys<'_>, layers: u32, is_dense: bool) -> Result<(), ModelError> {
    // These take one expert for none.
    if keys.arch.starts_with("hunyuan") {
        return Ok(());
    }
    let get = |name: &str| Ok::<u64, ModelError>(keys.u64(name)?.unwrap_or(0));
    let (experts, groups) = (get("expert_count")?, get("expert_group_count")?);
    let used = keys.per_layer("expert_used_count", layers)?.unwrap_or_default();
    let used = used.into_iter().max().unwrap_or(0);
    let refuse = |name: &str, value: u64, why| Err(unusable(keys.key(name), value, why));
    if experts > MAX_EXPERTS {
        return refuse("expert_count", experts, "llama.cpp takes at most 1024");
    }
    if used > experts && experts > 0 {
        return refuse("expert_used_count", used, "there are fewer experts than that");
    }
    if experts > 0 && used == 0 {
        return refuse("expert_used_count", used, "the model has experts and uses none");
    }
    if used > 0 && (experts == 0 && is_dense || keys.u64("expert_count")? == Some(0)) {
        return refuse("expert_used_count", used, "the model has no experts");
    }
    if groups > 0 && groups >= experts {
        return refuse("expert_group_count", groups, "there are too few experts for so many groups");
    }
    if groups > 1 {
        let used = get("expert_group_used_count")?;
        if !experts.is_multiple_of(groups) {
            return refuse("expert_group_count", groups, "the experts do not divide into so many groups");
        }
        if used == 0 || used >= groups {
            return refuse("expert_group_used_count", used, "some groups must be used, and not all");
        }
    }
    Ok(())
}

fn check_sizes(keys: &ArchKeys<'_>, layers: u32) -> Result<(), ModelError> {
    let bounded = |name: &str, most: u64| -> Result<(), ModelError> {
        let all = keys.per_layer(name, layers)?.unwrap_or_default();
        match all.into_iter().find(|value| *value > most) {
            Some(value) => Err(ModelError::OutOfRange { key: keys.key(name), value, least: 0, most }),
            None => Ok(()),
        }
    };
    bounded("embedding_length", MAX_WIDTH)?;
    bounded("feed_forward_length", MAX_WIDTH)?;
    bounded("attention.head_count", MAX_HEADS)?;
    bounded("attention.head_count_kv", MAX_HEADS)?;
    for suffix in ["", "_swa", "_mla"] {
        bounded(&format!("attention.key_length{suffix}"), MAX_HEAD_ELEMENTS)?;
        bounded(&format!("attention.value_length{suffix}"), MAX_HEAD_ELEMENTS)?;
    }
    for suffix in ["", "_swa"] {
        let name = format!("rope.dimension_count{suffix}");
        bounded(&name, MAX_HEAD_ELEMENTS)?;
        let rotated = keys.u64(&name).ok().flatten().unwrap_or(0);
        if !rotated.is_multiple_of(2) {
            return Err(unusable(keys.key(&name), rotated, "dimensions rotate in pairs"));
        }
        let key = keys.u64(&format!("attention.key_length{suffix}")).ok().flatten();
        if key.is_some_and(|key| key > 0 && rotated > key) {
            return Err(unusable(keys.key(&name), rotated, "a head's key has fewer elements"));
        }
    }
    Ok(())
}

/// Multi-head latent attention: a part of each key has no position.
fn check_latent(keys: &ArchKeys<'_>) -> Result<(), ModelError> {
    const NAME: &str = "attention.key_length_mla";
    let Some(key) = keys.u64(NAME)?.filter(|key| *key > 0) else { return Ok(()) };
    match keys.u64("rope.dimension_count").ok().flatten().filter(|rotated| *rotated >= key) {
        Some(_) => Err(unusable(keys.key(NAME), key, "no element of a key is left without a position")),
        None => Ok(()),
    }
}

/// Types of tensors that no kernel reads where they are.
pub(super) fn check_tensors(tensors: &[ModelTensor]) -> Result<(), ModelError> {
    for tensor in tensors {
        let info = &tensor.info;
        let refuse = |why| Err(ModelError::TensorType { name: info.name.clone(), ty: info.ty.name(), why });
        let is_float = info.ty == GgmlType::F32;
        let is_bias = info.name.ends_with(".bias") || matches!(tensor.role, TensorRole::RoutedExpertBias(_));
        if (tensor.role == TensorRole::Norm || is_bias) && !is_float {
            return refuse("and llama.cpp adds and scales in f32 only");
        }
        if info.name.contains("rope_f") && !is_float {
            return refuse("and rotation factors are f32");
        }
        if is_matrix(tensor) && lacks_kernel(info.ty) {
            return refuse("for which llama.cpp has no product");
        }
    }
    Ok(())
}

/// Whether a product reads it, or a row of it.
fn is_matrix(tensor: &ModelTensor) -> bool {
    let of_weights = matches!(
        tensor.role,
        TensorRole::Dense
            | TensorRole::RoutedExpert(_)
            | TensorRole::SharedExpert
            | TensorRole::DenseFfn(_)
            | TensorRole::Embedding
            | TensorRole::Output
    );
    of_weights && tensor.info.name.ends_with(".weight") && tensor.info.shape.len() > 1
}

const fn lacks_kernel(ty: GgmlType) -> bool {
    matches!(
        ty,
        GgmlType::I8
            | GgmlType::I16
            | GgmlType::I32
            | GgmlType::I64
            | GgmlType::F64
            | GgmlType::Q8_1
            | GgmlType::Q8_K
    )
}

/// A vocabulary that llama.cpp can read: there is one, and no two tokens are the same to it.
pub(super) fn check_vocabulary(metadata: &Metadata) -> Result<(), ModelError> {
    const MODEL: &str = "tokenizer.ggml.model";
    if let Some(Value::String(model)) = metadata.get(MODEL)
        && matches!(model.as_str(), "no_vocab" | "none")
    {
        return Err(ModelError::NoVocabulary);
    }
    let Some(tokens) = metadata.str_array("tokenizer.ggml.tokens")? else { return Ok(()) };
    if metadata.get(MODEL) == Some(&Value::String("rwkv".to_owned())) && !rwkv::ends(tokens) {
        return Err(unusable(
            MODEL.to_owned(),
            "rwkv",
            "the vocabulary lacks bytes, and texts would be cut without end",
        ));
    }
    let mut seen = HashSet::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ModelError::LongToken { token: at, bytes: token.len(), most: MAX_TOKEN_BYTES });
        }
        // What was no UTF-8 in the file is not known here any more.
        if token.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        // llama.cpp reads texts up to their first NUL, and gives empty ones a name.
        let text = token.split('\0').next().unwrap_or_default();
        let text =
            if text.is_empty() { format!("[EMPTY_{at}]").into() } else { std::borrow::Cow::from(text) };
        if !seen.insert(text) {
            return Err(ModelError::RepeatedToken { token: token.clone() });
        }
    }
    Ok(())
}
