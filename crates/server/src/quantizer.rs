//! llama.cpp's quantiser, as the store wants it: in a process of its own, because the file may be anybody's.

use std::path::Path;
use std::thread;

use hypura_engine::{is_quantization, quantize};
use hypura_store::Quantizer;

use crate::runner;

/// Quantises with all processors, in a process of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessQuantizer;

impl Quantizer for ProcessQuantizer {
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
        runner::quantize(input, output, kind, watch)
    }
}

/// Quantises with all processors, in this process.
///
/// # Errors
/// Why not, in words for people.
pub fn quantize_here(
    input: &Path,
    output: &Path,
    kind: &str,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<(), String> {
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    quantize(input, output, kind, threads, watch).map_err(|error| error.to_string())
}
