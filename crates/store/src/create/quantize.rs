//! Weights in another type: quantised into a file of our own store, which becomes a blob like any other.

use std::fs;
use std::path::PathBuf;

use super::parts::{Parts, Weights, facts_of};
use super::progress::{Progress, Watch};
use super::quantizer::Quantizer;
use crate::StoreError;
use crate::files::{make_private_folder, unique};
use crate::layout::Layout;

/// Types that lose nothing when they are quantised once.
const FULL: [&str; 3] = ["F16", "BF16", "F32"];

/// A file that goes when nobody needs it any more: what became a blob of it stays.
pub(super) struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Whatever remains is removed as abandoned one day.
        let _ = fs::remove_file(&self.0);
    }
}

impl Parts {
    /// Replaces the weights by those of another type.
    pub(super) fn quantize(
        &mut self,
        layout: &Layout,
        kind: &str,
        quantizer: &dyn Quantizer,
        watch: Watch<'_>,
    ) -> Result<Temporary, StoreError> {
        let bad = |why: &str| StoreError::BadRequest(why.to_owned());
        let from = self.facts.quantization.to_uppercase();
        if !FULL.contains(&from.as_str()) {
            return Err(bad("quantization is only supported for F16 and F32 models"));
        }
        let input = {
            let mut models = self.weights.iter().filter(|weights| weights.kind == "model");
            match (models.next(), models.next()) {
                (Some(weights), None) => weights.path.clone(),
                _ => {
                    return Err(bad(
                        "quantizing a model in shards is not supported: merge them first (llama-gguf-split)",
                    ));
                }
            }
        };
        let folder = layout.root().join("incoming");
        make_private_folder(&folder).map_err(StoreError::io("make the folder", &folder))?;
        let output = Temporary(folder.join(format!("{}.gguf", unique())));
        let total = fs::metadata(&input).map_err(StoreError::io("read", &input))?.len();
        let kind = kind.to_uppercase();
        let status = format!("quantizing {from} model to {kind}");
        watch(Progress::status(&status));
        let mut told = |done: u64, all: u64| {
            let completed = (u128::from(total) * u128::from(done) / u128::from(all.max(1))) as u64;
            let (total, completed) = (Some(total), Some(completed));
            watch(Progress { status: status.clone(), digest: None, total, completed });
        };
        quantizer.quantize(&input, &output.0, &kind, &mut told).map_err(StoreError::BadRequest)?;
        let facts = facts_of(std::slice::from_ref(&output.0), false)?;
        self.facts = facts.ok_or_else(|| bad("the quantized file holds no model"))?;
        self.parent = None;
        let weights = Weights { kind: "model", path: output.0.clone(), digest: None, name: None };
        self.weights.retain(|weights| weights.kind != "model");
        self.weights.insert(0, weights);
        Ok(output)
    }
}
