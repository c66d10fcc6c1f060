//! Keys of one architecture: `{architecture}.…`.

use crate::gguf::{Metadata, Value};

/// Metadata whose keys begin with the name of an architecture.
pub(super) struct Keys<'a> {
    prefix: &'static str,
    metadata: &'a mut Metadata,
}

impl<'a> Keys<'a> {
    pub fn new(prefix: &'static str, metadata: &'a mut Metadata) -> Self {
        Self { prefix, metadata }
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.insert(format!("{}.{key}", self.prefix), value);
    }
}
