//! Models with recurrent state: what is remembered of them in memory and on disk, and what that may take.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::serve::{ask, greedy, runner_with, settled};
use common::{demo_path, settings, tokens};
use hypura_core::gguf::{GgmlType, HeaderBuilder};
use hypura_core::plan::Choice;
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::serve::{RunnerSettings, SequenceOptions};
use hypura_engine::source::ModelSource;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const EMBEDDING: u64 = 32;
const INNER: u64 = 64;
const STATE: u64 = 16;
const RANK: u64 = 4;
const KERNEL: u64 = 4;
const LAYERS: u64 = 2;

/// A tiny Mamba with the demo's vocabulary and random weights.
fn mamba(folder: &Path) -> PathBuf {
    let demo = ModelSource::open(&demo_path()).unwrap();
    let mut header = HeaderBuilder::new();
    header.set("general.architecture", "mamba");
    for (key, value) in demo.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml")) {
        header.set(key, value.clone());
    }
    for (key, value) in [
        ("context_length", 1024),
        ("embedding_length", EMBEDDING),
        ("block_count", LAYERS),
        ("feed_forward_length", 0),
        ("attention.head_count", 0),
        ("ssm.conv_kernel", KERNEL),
        ("ssm.inner_size", INNER),
        ("ssm.state_size", STATE),
        ("ssm.time_step_rank", RANK),
    ] {
        header.set(format!("mamba.{key}"), u32::try_from(value).unwrap());
    }
    header.set("mamba.attention.layer_norm_rms_epsilon", 1e-5_f32);
    let mut tensor = |name: &str, shape: &[u64]| {
        header.tensor(name, shape, GgmlType::F32);
    };
    tensor("token_embd.weight", &[EMBEDDING, demo.shape.vocab]);
    tensor("output_norm.weight", &[EMBEDDING]);
    for layer in 0..LAYERS {
        let shapes: [(&str, &[u64]); 10] = [
            ("attn_norm.weight", &[EMBEDDING]),
            ("ssm_in.weight", &[EMBEDDING, 2 * INNER]),
            ("ssm_conv1d.weight", &[KERNEL, INNER]),
            ("ssm_conv1d.bias", &[INNER]),
            ("ssm_x.weight", &[INNER, RANK + 2 * STATE]),
            ("ssm_dt.weight", &[RANK, INNER]),
            ("ssm_dt.bias", &[INNER]),
            ("ssm_a", &[STATE, INNER]),
            ("ssm_d", &[INNER]),
            ("ssm_out.weight", &[INNER, EMBEDDING]),
        ];
        shapes.iter().for_each(|(name, shape)| tensor(&format!("blk.{layer}.{name}"), shape));
    }
    let path = folder.join("mamba.gguf");
    let mut file = Vec::new();
    let layout = header.write_header(&mut file).unwrap();
    let mut seed = 1_u32;
    for info in &layout.tensors {
        file.resize(usize::try_from(info.offset).unwrap(), 0);
        for _ in 0..info.bytes / 4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (seed >> 8) as f32 / 16_777_216.0 - 0.5;
            let value = match info.name.as_str() {
                name if name.ends_with("norm.weight") => 1.0,
                name if name.ends_with("ssm_a") => -1.0 - random,
                _ => random,
            };
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    }
    file.resize(usize::try_from(layout.file_bytes).unwrap(), 0);
    fs::write(&path, file).unwrap();
    path
}

#[test]
fn recurrent_state_goes_to_disk_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let model = mamba(folder.path());
    let start = |kv_cache_dir: Option<PathBuf>| {
        let settings = LoadSettings { context: 512, ..settings(Choice::Resident) };
        runner_with(&model, settings, 1, RunnerSettings { kv_cache_dir, ..RunnerSettings::default() })
    };
    let kept = folder.path().join("kept");
    let options = SequenceOptions { ignore_end: true, max_tokens: Some(16), ..greedy() };
    let first = start(Some(kept.clone()));
    let prompt = tokens(100, 400);
    let (_, finished) = ask(&first, prompt.clone(), options.clone());
    first.stop(true);
    let mut second = prompt;
    // The last token was never computed.
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(4, 300));
    let again = start(Some(kept));
    let (_, back) = ask(&again, second.clone(), options.clone());
    assert!(back.reused_tokens >= 115, "{}", back.reused_tokens);
    let (_, afresh) = ask(&start(None), second, options);
    assert_eq!(afresh.reused_tokens, 0);
    assert_eq!(back.tokens, afresh.tokens, "the state means the same");
}

#[test]
fn recurrent_state_of_remembered_conversations_takes_a_small_part_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let model = mamba(folder.path());
    let plan = |idle_sequences| {
        let settings = LoadSettings { idle_sequences, ..settings(Choice::Resident) };
        prepare(ModelSource::open(&model).unwrap(), settings).unwrap()
    };
    let (bare, wished) = (plan(0), plan(200));
    let more = wished.plan.total_bytes() - bare.plan.total_bytes();
    assert!(wished.settings.idle_sequences < 200, "{}", wished.settings.idle_sequences);
    assert!(more <= bare.source.file_bytes() / 50, "{more} of {}", bare.source.file_bytes());
    let runner = runner_with(
        &model,
        LoadSettings { context: 256, ..settings(Choice::Resident) },
        1,
        RunnerSettings::default(),
    );
    let (_, finished) = ask(&runner, tokens(40, 300), greedy());
    let mut second = tokens(40, 300);
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(3, 200));
    let (_, again) = ask(&runner, second.clone(), greedy());
    assert!(again.reused_tokens + 4 >= second.len(), "{} of {}", again.reused_tokens, second.len());
    // A part of a state is of no use.
    let (_, other) = ask(&runner, tokens(30, 300), greedy());
    assert_eq!(other.reused_tokens, 0);
    assert_eq!(settled(&runner).held.pins, 0);
}
