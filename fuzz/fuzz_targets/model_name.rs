//! Feeds arbitrary text to the readers of model names and digests: what they accept becomes names of files.
#![no_main]

use hypura_store::{Digest, ModelName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = ModelName::parse(text) {
        for part in [name.host(), name.namespace(), name.model(), name.tag()] {
            assert!(!part.is_empty() && part != "." && part != "..", "{name:?}");
            assert!(!part.contains(['/', '\\', '\0']), "{name:?}");
        }
        assert_eq!(ModelName::parse(&name.full()).ok(), Some(name));
    }
    let _ = ModelName::parse_request(text);
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.hex().len(), 64);
    }
});
