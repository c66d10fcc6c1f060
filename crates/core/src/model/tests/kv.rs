//! The KV cache's size, against sizes worked out by hand from llama.cpp's rules.

use super::architectures::deepseek2;
use super::*;

fn with_attention(mut builder: HeaderBuilder) -> HeaderBuilder {
    for layer in 0..LAYERS {
        attention(&mut builder, layer, 512);
    }
    builder
}

#[test]
fn grouped_heads() {
    let shape = shape(&with_attention(model("llama", 512)));
    // 2 KV heads of 512 / 8 = 64 elements.
    let per_token = u64::from(LAYERS) * 2 * (2 * 64) * 2;
    assert_eq!(shape.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap(), per_token);
    assert_eq!(shape.kv_bytes(&KvRequest::single(4096)).unwrap(), 4096 * per_token);
    let many = KvRequest { sequences: 3, ..KvRequest::single(1024) };
    assert_eq!(shape.kv_bytes(&many).unwrap(), 3 * 1024 * per_token);
    let unified = KvRequest { unified: true, ..many };
    assert_eq!(shape.kv_bytes(&unified).unwrap(), 1024 * per_token);
    let quantised = KvRequest { keys: GgmlType::Q8_0, values: GgmlType::Q4_0, ..KvRequest::single(1024) };
    assert_eq!(shape.kv_bytes(&quantised).unwrap(), 1024 * u64::from(LAYERS) * (136 + 72));
}

#[test]
fn heads_and_lengths_by_layer_and_key() {
    let mut builder = with_attention(model("llama", 512));
    set(&mut builder, "llama", "attention.head_count_kv", vec![2_u32, 0, 4, 8]);
    set(&mut builder, "llama", "attention.key_length", 128_u32);
    let shape = shape(&builder);
    let rows = 2 * (2 + 4 + 8) * (128 + 64);
    assert_eq!(shape.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap(), rows);
    assert_eq!(shape.layer_shapes[3].kv_heads, 8);
}

#[test]
fn latent_attention_caches_one_key_and_no_values() {
    let shape = shape(&deepseek2());
    // Three layers: that of multi-token prediction has no cache of its own here.
    assert_eq!(shape.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap(), 3 * 576 * 2);
}

#[test]
fn windows_bound_the_cache_of_their_layers() {
    let mut builder = with_attention(model("gpt-oss", 512));
    set(&mut builder, "gpt-oss", "attention.sliding_window", 128_u32);
    let oss = shape(&builder);
    let windows: Vec<_> = oss.layer_shapes.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [Some(128), None, Some(128), None]);
    let row = 2 * (2 * 64) * 2;
    // 128 + 512 cells, rounded up to 768.
    assert_eq!(oss.kv_bytes(&KvRequest::single(8192)).unwrap(), 2 * row * (8192 + 768));
    assert_eq!(oss.kv_bytes(&KvRequest::single(256)).unwrap(), 4 * row * 256);
    assert_eq!(oss.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap(), 2 * row);

    // The key wins over what is known of the architecture: as a period, and as flags.
    set(&mut builder, "gpt-oss", "attention.sliding_window_pattern", 4_u32);
    let windows =
        |shape: ModelShape| shape.layer_shapes.iter().map(|l| l.window.is_some()).collect::<Vec<_>>();
    assert_eq!(windows(shape(&builder)), [true, true, true, false]);
    set(&mut builder, "gpt-oss", "attention.sliding_window_pattern", vec![false, true, false]);
    assert_eq!(windows(shape(&builder)), [false, true, false, false]);
    set(&mut builder, "gpt-oss", "attention.sliding_window", 0_u32);
    assert_eq!(windows(shape(&builder)), [false; 4]);

    // Unknown architectures are planned without windows.
    let mut builder = with_attention(model("newcomer", 512));
    set(&mut builder, "newcomer", "attention.sliding_window", 128_u32);
    assert_eq!(windows(shape(&builder)), [false; 4]);
}

#[test]
fn recurrent_layers_keep_a_state_of_fixed_size() {
    let mut builder = model("qwen3next", 512);
    for (key, value) in [("conv_kernel", 4_u32), ("inner_size", 256), ("state_size", 32), ("group_count", 4)]
    {
        set(&mut builder, "qwen3next", &format!("ssm.{key}"), value);
    }
    for layer in 0..LAYERS {
        if layer == 3 {
            attention(&mut builder, layer, 512);
        } else {
            builder.tensor(format!("blk.{layer}.attn_qkv.weight"), &[512, 512], GgmlType::Q8_0);
            builder.tensor(format!("blk.{layer}.ssm_conv1d.weight"), &[4, 512], GgmlType::F32);
        }
    }
    let shape = shape(&builder);
    let state = (3 * (256 + 2 * 4 * 32) + 32 * 256) * 4;
    let row = 2 * (2 * 64) * 2;
    let request = KvRequest { sequences: 2, ..KvRequest::single(1024) };
    assert_eq!(shape.kv_bytes(&request).unwrap(), 2 * (3 * state + 1024 * row));
}

#[test]
fn what_cannot_be_cached_is_said() {
    let mut builder = with_attention(model("llama", 512));
    set(&mut builder, "llama", "attention.head_count_kv", 1_u32);
    set(&mut builder, "llama", "attention.key_length", 80_u32);
    let shape = shape(&builder);
    let request = KvRequest { keys: GgmlType::Q8_0, ..KvRequest::single(1024) };
    let error = shape.kv_bytes(&request).unwrap_err();
    assert!(matches!(error, ModelError::KvRow { elements: 80, block: 32, .. }), "{error}");
    let error = shape.kv_bytes(&KvRequest::single(u64::MAX)).unwrap_err();
    assert!(matches!(error, ModelError::KvTooLarge), "{error}");
}
