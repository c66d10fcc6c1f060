//! The compiler that belongs to a model.

use std::sync::Arc;

use super::compiler::SchemaCompiler;
use super::error::SchemaError;
use crate::vocab::Vocab;

impl Vocab {
    /// Whether a JSON schema can be enforced with this vocabulary, so that a bad one is refused before
    /// anything is queued. What was checked is kept compiled.
    ///
    /// # Errors
    /// [`SchemaError`]: what of it cannot be enforced, and where.
    pub fn check_schema(&self, schema: &str) -> Result<(), SchemaError> {
        let compiler = self.schema_compiler().map_err(SchemaError::at_root)?;
        compiler.matcher(schema).map(drop)
    }

    /// What compiles schemas for this vocabulary.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn schema_compiler(&self) -> Result<Arc<SchemaCompiler>, String> {
        let made = self.model().attached(|| SchemaCompiler::new(self).map(Arc::new));
        made.map_or_else(|| Err("internal error".to_owned()), |made| (*made).clone())
    }
}
