//! llama.cpp's quantiser, as the store wants it.

use std::path::Path;
use std::thread;

use hypura_engine::{is_quantization, quantize};
use hypura_store::Quantizer;

/// Quantises with all processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineQuantizer;

impl Quantizer for EngineQuantizer {
    fn knows(&self, kind: &str) -> bool {
        is_quantization(kind)
    }

    fn quantize(
        &self,
        input: &Path,
        output: &Path,
        kind: &str,
        watch: &mut dyn FnMut(u64, u64),
    ) -> Result<(), String> {
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        quantize(input, output, kind, threads, watch).map_err(|error| error.to_string())
    }
}
