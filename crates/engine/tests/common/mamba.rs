//! A model with recurrent state, for tests of what is kept of it.

use hypura_core::gguf::{GgmlType, HeaderBuilder, Metadata};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const EMBEDDING: u64 = 32;
const INNER: u64 = 64;
const STATE: u64 = 16;
const RANK: u64 = 4;
const KERNEL: u64 = 4;
const LAYERS: u64 = 2;

/// A tiny Mamba with random weights and the vocabulary of another model, which has so many tokens.
pub fn mamba(folder: &Path, other: &Metadata, vocab: u64) -> PathBuf {
    let mut header = HeaderBuilder::new();
    header.set("general.architecture", "mamba");
    for (key, value) in other.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml")) {
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
    tensor("token_embd.weight", &[EMBEDDING, vocab]);
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
