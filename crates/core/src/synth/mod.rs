//! Synthetic models: GGUFs of real shapes with random but well-scaled weights, for tests and benchmarks.
//!
//! A [`SynthPlan`] knows every byte of the files it describes and makes any range of them on demand, so the
//! caller may write with as many threads as it likes; it does no I/O itself. The files load in llama.cpp and
//! decode to finite logits; the text is nonsense.
//!
//! * [`shape`] the models, [`dims`], [`real`] and [`tiny`] what distinguishes them; [`list`], [`tensors`] and
//!   [`metadata`] what their architectures require
//! * [`gemma4`], [`qwen4exp`], [`deepseek41`] those with large tables, [`ngrams`] tables of n-grams
//! * [`quant`] which type each tensor gets, [`blocks`] and [`content`] the bytes
//! * [`vocab`] a tokenizer of the right size
//! * [`projector`] what turns pictures into rows for a tiny model
//! * [`plan`] files, shards, ranges; [`extents`] which ranges repeat
//! * [`rng`], [`half`], [`keys`] small helpers

mod blocks;
mod content;
mod deepseek41;
mod dims;
mod error;
mod extents;
mod gemma4;
mod half;
mod keys;
mod list;
mod metadata;
mod ngrams;
mod plan;
mod projector;
mod quant;
mod qwen4exp;
mod real;
mod rng;
mod shape;
mod tensors;
mod tiny;
mod vocab;

pub use error::SynthError;
pub use extents::{Extent, ExtentSource};
pub use metadata::SYNTHETIC_NAME;
pub use plan::{SynthOptions, SynthPlan, SynthShard};
pub use projector::{ProjectorKind, picture, sound};
pub use quant::{Quant, UnknownQuant};
pub use shape::{Shape, UnknownShape};
