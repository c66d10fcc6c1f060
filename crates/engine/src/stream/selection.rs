//! How a layer chooses experts from its router's scores, as far as it decides who comes first: biases of the
//! scores (gpt-oss) and of the probabilities, and groups of experts of which only the best may be chosen from
//! (both DeepSeek-V3).
//!
//! Only for guessing: what is left out here makes guesses worse and nothing wrong.

use hypura_core::gguf::GgmlType;
use hypura_core::plan::LayerLayout;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::source::ModelSource;

/// `expert_gating_func` of a router whose scores go through a sigmoid each (llama.cpp's number).
const SIGMOID: u32 = 2;

/// Experts that speak for their group: the sum of their probabilities is the group's (DeepSeek-V3, section
/// 2.1.2; llama.cpp does the same).
const GROUP_TOP: usize = 2;

/// Experts are divided evenly into groups, and chosen from the best of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Groups {
    count: usize,
    used: usize,
}

/// What happens to the scores of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selection {
    /// Added to the scores.
    bias: Vec<f32>,
    /// Added to the probabilities.
    correction: Vec<f32>,
    sigmoid: bool,
    groups: Option<Groups>,
    experts: usize,
}

impl Selection {
    /// Reads what the model says about a layer. What cannot be read is left out: guesses are worse then, and
    /// nothing else.
    pub fn of(source: &ModelSource, layer: &LayerLayout) -> Self {
        let vector = |name: &str| {
            let name = format!("blk.{}.{name}.bias", layer.layer);
            floats(source, &name, layer.experts as usize).unwrap_or_default()
        };
        let number =
            |key: &str| source.metadata.u32(&format!("{}.{key}", source.shape.architecture)).ok().flatten();
        Self {
            bias: vector("ffn_gate_inp"),
            correction: vector("exp_probs_b"),
            sigmoid: number("expert_gating_func") == Some(SIGMOID),
            groups: groups(
                layer.experts as usize,
                number("expert_group_count"),
                number("expert_group_used_count"),
            ),
            experts: layer.experts as usize,
        }
    }

    /// Turns rows of scores into what the layer sorts by; softmax and sigmoid alone change no order.
    pub fn apply(&self, scores: &mut [f32]) {
        if self.experts == 0 {
            return;
        }
        for row in scores.chunks_exact_mut(self.experts) {
            row.iter_mut().zip(&self.bias).for_each(|(score, bias)| *score += bias);
            if self.correction.is_empty() && self.groups.is_none() {
                continue;
            }
            self.gate(row);
            row.iter_mut().zip(&self.correction).for_each(|(likely, correction)| *likely += correction);
            if let Some(groups) = self.groups {
                groups.forbid(row);
            }
        }
    }

    /// Turns scores into probabilities.
    fn gate(&self, row: &mut [f32]) {
        let highest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|score| (score - highest).exp()).sum();
        for score in row {
            *score =
                if self.sigmoid { 1.0 / (1.0 + (-*score).exp()) } else { (*score - highest).exp() / sum };
        }
    }
}

/// The groups of a layer of `experts`; `None` where they decide nothing.
fn groups(experts: usize, count: Option<u32>, used: Option<u32>) -> Option<Groups> {
    let (count, used) = (usize::try_from(count?).ok()?, usize::try_from(used?).ok()?);
    let sound = count > 1 && used > 0 && used < count && experts.is_multiple_of(count);
    sound.then_some(Groups { count, used })
}

impl Groups {
    /// Puts the experts of all but the best groups behind every other.
    fn forbid(self, row: &mut [f32]) {
        let size = row.len() / self.count;
        let mut best: Vec<(f32, usize)> =
            row.chunks_exact(size).map(group_score).zip(0..self.count).collect();
        best.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for (_, group) in best.into_iter().skip(self.used) {
            row[group * size..(group + 1) * size].fill(f32::NEG_INFINITY);
        }
    }
}

/// The sum of the highest probabilities of a group.
fn group_score(group: &[f32]) -> f32 {
    let mut sorted = group.to_vec();
    sorted.sort_by(|one, other| other.total_cmp(one));
    sorted.iter().take(GROUP_TOP).sum()
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
        let selection = Selection { bias: vec![0.0, 1.0], experts: 2, ..Selection::default() };
        assert_eq!(applied(&selection, &[2.0, 1.5, 0.0, 0.0]), [2.0, 2.5, 0.0, 1.0]);
        assert_eq!(applied(&Selection::default(), &[2.0, 1.5]), [2.0, 1.5]);
    }

    #[test]
    fn a_bias_of_probabilities_is_added_after_the_gate() {
        let correction = vec![0.0, 0.2];
        let sigmoid =
            Selection { correction: correction.clone(), sigmoid: true, experts: 2, ..Selection::default() };
        let scores = applied(&sigmoid, &[0.0, 0.0]);
        assert!((scores[0] - 0.5).abs() < 1e-6 && (scores[1] - 0.7).abs() < 1e-6, "{scores:?}");
        let softmax = Selection { correction, experts: 2, ..Selection::default() };
        let scores = applied(&softmax, &[1000.0, 1000.0]);
        assert!((scores[0] - 0.5).abs() < 1e-6 && (scores[1] - 0.7).abs() < 1e-6, "{scores:?}");
    }

    #[test]
    fn of_groups_the_best_two_experts_decide() {
        // The first group has the best expert of all, the second the best two.
        let scores = [3.0, -9.0, 2.0, 2.0, 1.0, 1.0];
        let selection = |used| Selection {
            sigmoid: true,
            groups: groups(6, Some(3), Some(used)),
            experts: 6,
            ..Selection::default()
        };
        let allowed = |used| -> Vec<bool> {
            applied(&selection(used), &scores).iter().map(|score| score.is_finite()).collect()
        };
        assert_eq!(allowed(1), [false, false, true, true, false, false]);
        assert_eq!(allowed(2), [false, false, true, true, true, true]);
        // Both tokens of a batch, each by itself.
        let two = applied(&selection(1), &[scores, [9.0, 9.0, 0.0, 0.0, 0.0, 0.0]].concat());
        assert!(two[2].is_finite() && two[6].is_finite() && !two[8].is_finite());
    }

    #[test]
    fn groups_that_decide_nothing_are_none() {
        assert_eq!(groups(8, None, Some(1)), None);
        assert_eq!(groups(8, Some(1), Some(1)), None, "Kimi-K2");
        assert_eq!(groups(8, Some(3), Some(1)), None, "uneven");
        assert_eq!(groups(8, Some(4), Some(4)), None, "all of them");
        assert_eq!(groups(256, Some(8), Some(4)), Some(Groups { count: 8, used: 4 }), "DeepSeek-V3");
    }
}
