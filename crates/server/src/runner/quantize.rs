//! Quantising in a process of its own: llama.cpp reads the whole file for it, and asserts on some.

use std::path::Path;

use super::errand::{Errand, Lost};
use super::limits::Limits;
use super::message::{FromRunner, ToRunner};

/// Writes the model of `input` to `output` in the quantisation `kind`; `watch` is told how much of how much
/// is done.
///
/// # Errors
/// Why not, in words for people: what llama.cpp says, or how it ended its process.
pub fn quantize(
    input: &Path,
    output: &Path,
    kind: &str,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<(), String> {
    let order = ToRunner::Quantize { input: input.into(), output: output.into(), kind: kind.to_owned() };
    let started = Errand::start("quantize", &order);
    let mut errand = started.map_err(|error| format!("cannot start a process to quantize in: {error}"))?;
    let limit = Limits::default().load;
    loop {
        match errand.hear(limit) {
            Ok(FromRunner::Quantizing { done, all }) => watch(done, all),
            Ok(FromRunner::Quantized(quantized)) => return quantized,
            Ok(_) => return Err("its process gave an answer of the wrong kind".to_owned()),
            Err(Lost::Late(limit)) => {
                return Err(format!("quantizing made no progress for {} s", limit.as_secs()));
            }
            Err(Lost::Ended(how)) => return Err(format!("it cannot be quantized: {how}")),
        }
    }
}
