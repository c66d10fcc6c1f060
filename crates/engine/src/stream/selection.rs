//! How a layer chooses experts from its router's scores, as far as it decides who comes first: biases of the scores
//! (gpt-oss) and of the probabilities (DeepSeek).
//!
//! Only for guessing. Groups of experts (DeepSeek-V3's `expert_group_count`) are left out: a guess that the groups forbid is
//! a wrong guess.

use hypura_core::gguf::GgmlType;
use hypura_core::plan::LayerLayout;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::source::ModelSource;

/// `expert_gating_func` of a router whose scores go through a sigmoid each (llama.cpp's number).
const SIGMOID: u32 = 2;

/// What happens to the scores of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selection {
    /// Added to the scores.
    bias: Vec<f32>,
    /// Added to the probabilities.
    correction: Vec<f32>,
    sigmoid: bool,
}

impl Selection {
    /// Reads what the model says about a layer. What cannot be read is left out: guesses are worse then, and nothing else.
    pub fn of(source: &ModelSource, layer: &LayerLayout) -> Self {
        let vector = |name: &str| {
            let name = format!("blk.{}.{name}.bias", layer.layer);
            floats(source, &name, layer.experts as usize).unwrap_or_default()
        };
        let gating = source.metadata.u32(&format!("{}.expert_gating_func", source.shape.architecture));
        Self {
            bias: vector("ffn_gate_inp"),
            correction: vector("exp_probs_b"),
            sigmoid: gating.ok().flatten() == Some(SIGMOID),
        }
    }

    /// Turns rows of scores into what the layer sorts by; softmax and sigmoid alone change no order.
    pub fn apply(&self, scores: &mut [f32]) {
        let experts = self.bias.len().max(self.correction.len());
        if experts == 0 {
            return;
        }
        for row in scores.chunks_exact_mut(experts) {
            row.iter_mut().zip(&self.bias).for_each(|(score, bias)| *score += bias);
            if self.correction.is_empty() {
                continue;
            }
            let highest = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = row.iter().map(|score| (score - highest).exp()).sum();
            for (score, correction) in row.iter_mut().zip(&self.correction) {
                let likely =
                    if self.sigmoid { 1.0 / (1.0 + (-*score).exp()) } else { (*score - highest).exp() / sum };
                *score = likely + correction;
            }
        }
    }
}

/// A vector of the model; `None` when there is none of that name, type and length.
fn floats(source: &ModelSource, name: &str, length: usize) -> Option<Vec<f32>> {
    let found = source.shape.tensors.iter().find(|tensor| tensor.info.name == name)?;
    let mut bytes = vec![0; length * size_of::<f32>()];
    if found.info.ty != GgmlType::F32 || found.info.bytes != bytes.len() as u64 {
        return None;
    }
    let file = File::open(&**source.files.get(found.info.shard)?.path()).ok()?;
    file.read_exact_at(&mut bytes, found.info.offset).ok()?;
    Some(bytes.chunks_exact(4).filter_map(|four| Some(f32::from_le_bytes(four.try_into().ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(selection: &Selection, scores: &[f32]) -> Vec<f32> {
        let mut scores = scores.to_vec();
        selection.apply(&mut scores);
        scores
    }

    #[test]
    fn a_bias_of_scores_is_added_to_each_row() {
        let selection = Selection { bias: vec![0.0, 1.0], ..Selection::default() };
        assert_eq!(applied(&selection, &[2.0, 1.5, 0.0, 0.0]), [2.0, 2.5, 0.0, 1.0]);
        assert_eq!(applied(&Selection::default(), &[2.0, 1.5]), [2.0, 1.5]);
    }

    #[test]
    fn a_bias_of_probabilities_is_added_after_the_gate() {
        let correction = vec![0.0, 0.2];
        let sigmoid = Selection { correction: correction.clone(), sigmoid: true, ..Selection::default() };
        let scores = applied(&sigmoid, &[0.0, 0.0]);
        assert!((scores[0] - 0.5).abs() < 1e-6 && (scores[1] - 0.7).abs() < 1e-6, "{scores:?}");
        let softmax = Selection { correction, ..Selection::default() };
        let scores = applied(&softmax, &[1000.0, 1000.0]);
        assert!((scores[0] - 0.5).abs() < 1e-6 && (scores[1] - 0.7).abs() < 1e-6, "{scores:?}");
    }
}
