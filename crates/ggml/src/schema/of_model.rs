//! What constrains the answers of a model: the compiler and the thread of masks that belong to it.

use std::sync::{Arc, OnceLock};

use super::compiler::SchemaCompiler;
use super::error::SchemaError;
use crate::mask_thread::MaskThread;
use crate::vocab::Vocab;

/// Each made at first use.
#[derive(Default)]
struct OfModel {
    compiler: OnceLock<Result<Arc<SchemaCompiler>, String>>,
    masks: OnceLock<Option<Arc<MaskThread>>>,
}

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
        self.of_model().map_or_else(
            || Err("internal error".to_owned()),
            |own| own.compiler.get_or_init(|| SchemaCompiler::new(self).map(Arc::new)).clone(),
        )
    }

    /// What computes masks ahead, where the system has a thread for it.
    pub(crate) fn mask_thread(&self) -> Option<Arc<MaskThread>> {
        self.of_model()?.masks.get_or_init(|| MaskThread::start().map(Arc::new)).clone()
    }

    fn of_model(&self) -> Option<Arc<OfModel>> {
        self.model().attached(OfModel::default)
    }
}
