//! Feeds arbitrary bytes to the reader of Modelfiles.
#![no_main]

use hypura_store::Modelfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = Modelfile::decode(bytes);
    match Modelfile::parse(&text) {
        Ok(file) => assert!(!file.from.is_empty()),
        Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count().max(1)),
    }
});
