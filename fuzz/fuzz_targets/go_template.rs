//! Feeds arbitrary text to the reader of Go templates, which requests for `/api/create` bring: what it
//! accepts becomes a Jinja template of a size that has to do with the text's.
#![no_main]

use hypura_store::GoTemplate;
use libfuzzer_sys::fuzz_target;

/// What every template begins with, and what each piece of one becomes at most.
const FIXED_BYTES: usize = 16 << 10;
const GROWTH: usize = 200;

fuzz_target!(|text: &str| {
    if let Ok(template) = GoTemplate::parse(text) {
        assert!(template.jinja.len() <= FIXED_BYTES + GROWTH * text.len(), "{} bytes", template.jinja.len());
    }
});
