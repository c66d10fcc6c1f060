//! Feeds arbitrary bytes to the reader of routing traces, and replays what it accepts.
#![no_main]

use hypura_core::trace::TraceReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reader) = TraceReader::new(bytes) else { return };
    let header = reader.header().clone();
    let Ok(trace) = reader.into_trace() else { return };
    for token in &trace.tokens {
        for layer in &token.layers {
            assert!(layer.layer < header.layers);
            assert!(layer.experts.iter().all(|expert| *expert < header.experts));
        }
    }
});
