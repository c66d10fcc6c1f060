//! Writes a synthetic model: `cargo run -p hypura-core --release --example synth -- SHAPE QUANT OUT [SHARDS
//! [LAYERS [UNIQUE]]]`.
//!
//! The plain form of `hypura synth`: one thread, no progress, no shared extents.

use std::error::Error;
use std::fs::File;
use std::io::Write;

use hypura_core::synth::{SynthOptions, SynthPlan};

const CHUNK_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [shape, quant, out, more @ ..] = arguments.as_slice() else {
        return Err("usage: synth SHAPE QUANT OUT.gguf [SHARDS [LAYERS [UNIQUE_BYTES]]]".into());
    };
    let mut options = SynthOptions::new(shape.parse()?, quant.parse()?);
    if let Some(shards) = more.first() {
        options.shards = shards.parse()?;
    }
    options.layers = more.get(1).map(|layers| layers.parse()).transpose()?;
    options.unique_bytes = more.get(2).map(|bytes| bytes.parse()).transpose()?;
    let plan = SynthPlan::new(&options)?;
    let stem = out.strip_suffix(".gguf").unwrap_or(out);
    let mut buffer = vec![0; CHUNK_BYTES];
    for (index, shard) in plan.shards().iter().enumerate() {
        let path = plan.file_name(stem, index);
        let mut file = File::create(&path)?;
        let mut offset = 0;
        while offset < shard.file_bytes {
            let bytes = (shard.file_bytes - offset).min(CHUNK_BYTES as u64);
            let chunk = &mut buffer[..bytes as usize];
            plan.fill_file(index, offset, chunk);
            file.write_all(chunk)?;
            offset += bytes;
        }
        println!("{path}: {} bytes, {} tensors", shard.file_bytes, shard.tensors.len());
    }
    println!("{} parameters", plan.parameters());
    Ok(())
}
