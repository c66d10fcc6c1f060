//! The pure part of Hypura: file formats, models, plans and policies.
//!
//! Nothing here does I/O, starts a thread, reads a clock or knows ggml; bytes come and go through `Read`,
//! `Write` and `Seek` that the caller passes in. So all of it runs under Miri, fuzzers and property tests, in
//! seconds.
#![forbid(unsafe_code)]

pub mod audit;
pub mod cache;
pub mod gguf;
pub mod model;
pub mod plan;
pub mod prefetch;
pub mod profile;
pub mod random;
pub mod roofline;
pub mod sim;
pub mod speculate;
pub mod synth;
pub mod threads;
pub mod trace;
