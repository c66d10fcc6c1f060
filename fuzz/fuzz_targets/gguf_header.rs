//! Feeds arbitrary bytes to the GGUF reader and to what is built on it. Its twin that every test run includes
//! is `crates/core/tests/gguf_mutations.rs`.
//!
//! `cargo +nightly fuzz run gguf_header -- -rss_limit_mb=512`: the limit makes a length that is trusted too
//! early a find.
#![no_main]

use hypura_core::gguf::{merge, read_header};
use hypura_core::model::{ExpertKey, KvRequest, ModelShape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file_bytes = bytes.len() as u64;
    let Ok(header) = read_header(bytes, file_bytes) else { return };
    for tensor in &header.tensors {
        assert!(tensor.offset >= header.data_start && tensor.offset + tensor.bytes <= file_bytes);
    }
    let Ok(set) = merge(vec![header], vec![file_bytes]) else { return };
    let Ok(model) = ModelShape::from_gguf(&set) else { return };
    assert!(model.active_bytes_per_token() <= model.total_bytes());
    for layer in &model.expert_layers {
        for expert in 0..layer.experts {
            for (_, slice) in model.slices(ExpertKey { layer: layer.layer, expert }) {
                assert!(slice.offset + slice.bytes <= file_bytes);
            }
        }
    }
    let _ = model.kv_bytes(&KvRequest::single(u64::MAX));
});
