//! Who quantises.

use std::path::Path;

/// Who quantises: the store itself knows nothing of tensors.
pub trait Quantizer {
    /// Whether it knows this quantisation.
    fn knows(&self, kind: &str) -> bool;
    /// Writes the model of `input` to `output` in the quantisation `kind`; `watch` is told how much of how
    /// much is done.
    ///
    /// # Errors
    /// Why not, in words for people.
    fn quantize(
        &self,
        input: &Path,
        output: &Path,
        kind: &str,
        watch: &mut dyn FnMut(u64, u64),
    ) -> Result<(), String>;
}
