//! Embeddings by every pooling, with any number of sequences and any length of a graph.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::serve::PATIENCE;
use common::{TinyModel, demo_path, settings, tiny, tokens};
use hypura_core::gguf::{GgmlType, HeaderBuilder, Metadata, Value, read_header};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::Token;
use hypura_engine::load::{LoadSettings, load, prepare};
use hypura_engine::serve::{Runner, RunnerSettings};
use hypura_engine::source::ModelSource;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::channel;

/// llama.cpp's numbers of poolings: none, mean, first, last, rank.
const POOLINGS: [Option<u32>; 6] = [None, Some(0), Some(1), Some(2), Some(3), Some(4)];

fn runner(path: &Path, settings: LoadSettings) -> Runner {
    let loaded = load(prepare(ModelSource::open(path).unwrap(), settings).unwrap(), &mut |_, _| {}).unwrap();
    Runner::start(loaded, RunnerSettings::default()).unwrap()
}

fn embed(runner: &Runner, inputs: &[Vec<Token>]) -> Vec<Vec<f32>> {
    let (sender, receiver) = channel();
    let sink = Box::new(move |vectors| sender.send(vectors).unwrap());
    let _handle = runner.embed(inputs.to_vec(), sink).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap().unwrap()
}

/// The same model with other metadata.
fn with_metadata(
    model: &TinyModel,
    edit: impl FnOnce(&mut Metadata),
) -> (tempfile::TempDir, std::path::PathBuf) {
    let bytes = fs::read(&model.path).unwrap();
    let mut header = read_header(bytes.as_slice(), bytes.len() as u64).unwrap();
    edit(&mut header.metadata);
    let mut builder = HeaderBuilder::new();
    *builder.metadata_mut() = header.metadata;
    for info in &header.tensors {
        builder.tensor(&info.name, &info.shape, info.ty);
    }
    let mut file = Vec::new();
    let layout = builder.write_header(&mut file).unwrap();
    for (old, new) in header.tensors.iter().zip(&layout.tensors) {
        file.resize(usize::try_from(new.offset).unwrap(), 0);
        let from = usize::try_from(old.offset).unwrap();
        file.extend_from_slice(&bytes[from..from + usize::try_from(old.bytes).unwrap()]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("embed.gguf");
    fs::write(&path, file).unwrap();
    (folder, path)
}

/// One text alone, several of different lengths, one longer than a graph of 24 tokens.
fn texts(vocab: usize) -> Vec<Vec<Token>> {
    [5, 1, 11, 7, 40, 3, 2, 9, 6, 4].iter().map(|count| tokens(*count, vocab)).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Embeds with every number of sequences in all combinations that a server may ask for; each must give what
/// one sequence gives.
fn same_for_all_sequences(path: &Path, ubatches: &[u32], inputs: &[Vec<Token>], what: &str) {
    let base = settings(Residency::Resident).with_context(128);
    for ubatch in ubatches {
        let alone = runner(path, base.clone().with_ubatch(*ubatch));
        let wanted = embed(&alone, inputs);
        assert_eq!(wanted.len(), inputs.len());
        for (sequences, idle_sequences) in (1..=8).flat_map(|sequences| [(sequences, 0), (sequences, 7)]) {
            let settings = base.clone().with_ubatch(*ubatch);
            let settings = settings.with_sequences(sequences).with_idle_sequences(idle_sequences);
            let vectors = embed(&runner(path, settings), inputs);
            for (at, (vector, wanted)) in vectors.iter().zip(&wanted).enumerate() {
                let away = distance(vector, wanted);
                assert!(away < 1e-3, "{what}, {sequences}+{idle_sequences} of {ubatch}, text {at}: {away}");
            }
        }
    }
}

#[test]
fn embeddings_of_any_pooling_with_1_to_8_sequences() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q8_0, 1);
    for pooling in POOLINGS {
        let (_folder, path) = with_metadata(&model, |metadata| {
            if let Some(kind) = pooling {
                metadata.insert("qwen3moe.pooling_type", Value::U32(kind));
            }
        });
        same_for_all_sequences(&path, &[24, 128], &texts(200), &format!("pooling {pooling:?}"));
    }
}

const EMBEDDING: u64 = 32;
const LAYERS: u64 = 2;
const CONTEXT: u64 = 100;

/// A tiny encoder that has no memory, with the demo's vocabulary and random weights. Its context divides by
/// few numbers.
fn bert(folder: &Path, pooling: Option<u32>) -> std::path::PathBuf {
    let demo = ModelSource::open(&demo_path()).unwrap();
    let mut header = HeaderBuilder::new();
    header.set("general.architecture", "bert");
    for (key, value) in demo.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml")) {
        header.set(key, value.clone());
    }
    header.set("tokenizer.ggml.token_type_count", 1_u32);
    for (key, value) in [
        ("context_length", CONTEXT),
        ("embedding_length", EMBEDDING),
        ("block_count", LAYERS),
        ("feed_forward_length", 2 * EMBEDDING),
        ("attention.head_count", 2),
    ] {
        header.set(format!("bert.{key}"), u32::try_from(value).unwrap());
    }
    header.set("bert.attention.layer_norm_epsilon", 1e-5_f32);
    header.set("bert.attention.causal", false);
    if let Some(kind) = pooling {
        header.set("bert.pooling_type", kind);
    }
    let mut tensor = |name: &str, shape: &[u64]| {
        header.tensor(name, shape, GgmlType::F32);
    };
    tensor("token_embd.weight", &[EMBEDDING, demo.shape.vocab]);
    tensor("position_embd.weight", &[EMBEDDING, CONTEXT]);
    tensor("token_embd_norm.weight", &[EMBEDDING]);
    tensor("token_embd_norm.bias", &[EMBEDDING]);
    for layer in 0..LAYERS {
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            tensor(&format!("blk.{layer}.{name}.weight"), &[EMBEDDING, EMBEDDING]);
        }
        tensor(&format!("blk.{layer}.ffn_up.weight"), &[EMBEDDING, 2 * EMBEDDING]);
        tensor(&format!("blk.{layer}.ffn_down.weight"), &[2 * EMBEDDING, EMBEDDING]);
        for name in ["attn_output_norm", "layer_output_norm"] {
            tensor(&format!("blk.{layer}.{name}.weight"), &[EMBEDDING]);
            tensor(&format!("blk.{layer}.{name}.bias"), &[EMBEDDING]);
        }
    }
    let path = folder.join("bert.gguf");
    let mut file = Vec::new();
    let layout = header.write_header(&mut file).unwrap();
    let mut seed = 1_u32;
    for info in &layout.tensors {
        file.resize(usize::try_from(info.offset).unwrap(), 0);
        for _ in 0..info.bytes / 4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (seed >> 8) as f32 / 16_777_216.0 - 0.5;
            let value = if info.name.ends_with("norm.weight") { 1.0 } else { random };
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    }
    file.resize(usize::try_from(layout.file_bytes).unwrap(), 0);
    fs::write(&path, file).unwrap();
    path
}

#[test]
fn embeddings_of_an_encoder_with_1_to_8_sequences() {
    let folder = tempfile::tempdir().unwrap();
    for pooling in POOLINGS {
        let path = bert(folder.path(), pooling);
        same_for_all_sequences(&path, &[24], &texts(300), &format!("encoder, pooling {pooling:?}"));
    }
}
