//! From a tensor's name to what it is for.
//!
//! The names are those of `LLM_TENSOR_NAMES`, and which operation uses a weight is that of
//! `LLM_TENSOR_INFOS`, in llama.cpp's `llama-arch.cpp`. Names that are not known there get a role that keeps
//! them resident: to stream a tensor is only safe when the operation that reads it is known.

use std::fmt;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorRole {
    /// What every token passes in a layer besides norms and feed-forward: attention, state space,
    /// convolutions. Also the rare expert stacks that are not routed by the layer's router (`*_chexps`,
    /// `attn_v_exps`).
    Dense,
    /// Normalisation weights, in layers and outside.
    Norm,
    /// What chooses the experts of a token: `ffn_gate_inp` and the biases of its probabilities.
    Router,
    /// A stack of routed experts, read by MUL_MAT_ID.
    RoutedExpert(ExpertPart),
    /// Biases of routed experts, one row for each: small, resident.
    RoutedExpertBias(ExpertPart),
    /// Scales of routed experts' weights or inputs: small, resident.
    RoutedExpertScale(ExpertPart),
    /// An expert that every token passes, with its gate.
    SharedExpert,
    /// Feed-forward network of a layer without routing.
    DenseFfn(FfnPart),
    /// Tables of which a token reads one row.
    Embedding,
    /// The projection to the vocabulary.
    Output,
    /// Anything else, such as rotation factors and multi-token-prediction heads.
    Other,
}

impl TensorRole {
    /// Whether it belongs to routed experts: their matrices, biases or scales.
    #[must_use]
    pub const fn is_routed_expert(self) -> bool {
        matches!(self, Self::RoutedExpert(_) | Self::RoutedExpertBias(_) | Self::RoutedExpertScale(_))
    }
}

/// Which matrix of a routed expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExpertPart {
    /// `ffn_gate_exps`
    Gate,
    /// `ffn_up_exps`
    Up,
    /// `ffn_gate_up_exps`: gate and up in one.
    GateUp,
    /// `ffn_down_exps`
    Down,
}

/// Which matrix of a dense feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FfnPart {
    /// `ffn_gate`
    Gate,
    /// `ffn_up` (some architectures fuse the gate into it).
    Up,
    /// `ffn_down`
    Down,
}

/// How a tensor may be streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Streaming {
    /// It must be resident.
    No,
    /// Expert by expert: a stack read by MUL_MAT_ID with the ids of the layer's router.
    Experts,
    /// As a whole: a matrix that only MUL_MAT reads.
    Whole,
    /// By the row: a table that only GET_ROWS reads, so many rows of it for each token.
    Rows(u32),
}

impl ExpertPart {
    /// All parts, in the order in which an expert computes them.
    pub const ALL: [Self; 4] = [Self::Gate, Self::Up, Self::GateUp, Self::Down];

    /// `gate`, `up`, `gate_up` or `down`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Up => "up",
            Self::GateUp => "gate_up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for ExpertPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Matrices of attention, state spaces and short convolutions that MUL_MAT reads and nothing else does.
const DENSE_MATRICES: &[&str] = &[
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_qkv",
    "attn_output",
    "attn_gate",
    "attn_q_a",
    "attn_q_b",
    "attn_kv_a_mqa",
    "attn_kv_b",
    "attn_kv",
    "attn_output_a",
    "attn_output_b",
    "ssm_in",
    "ssm_out",
    "shortconv.in_proj",
    "shortconv.out_proj",
];

/// Tables that GET_ROWS reads by ids that are inputs of the graph. Others of the role are small, or added as
/// a whole (`token_types`).
const ROW_TABLES: &[&str] = &["token_embd", "per_layer_token_embd"];

/// A tensor's name taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameParts<'a> {
    /// N of `blk.N.`
    pub layer: Option<u32>,
    /// What is left without layer and suffix: `attn_q`.
    pub base: &'a str,
    /// `weight`, `bias`, `scale`, …; empty where the name has no dot.
    pub suffix: &'a str,
}

impl<'a> NameParts<'a> {
    pub fn of(name: &'a str) -> Self {
        let (layer, rest) = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((number, rest)) => match number.parse() {
                Ok(layer) => (Some(layer), rest),
                Err(_) => (None, name),
            },
            None => (None, name),
        };
        let (base, suffix) = rest.rsplit_once('.').unwrap_or((rest, ""));
        Self { layer, base, suffix }
    }

    /// `ffn_gate.7.weight`: experts as Mixtral files had them before they were stacked.
    pub fn is_unstacked_expert(&self) -> bool {
        let number =
            ["ffn_gate.", "ffn_up.", "ffn_down."].iter().find_map(|prefix| self.base.strip_prefix(prefix));
        self.layer.is_some() && number.is_some_and(|n| n.parse::<u32>().is_ok())
    }

    pub fn role(&self) -> TensorRole {
        if is_norm(self.base) {
            return TensorRole::Norm;
        }
        if self.layer.is_none() {
            return match self.base {
                "token_embd" | "position_embd" | "token_types" | "per_layer_token_embd" => {
                    TensorRole::Embedding
                }
                "output" => TensorRole::Output,
                _ => TensorRole::Other,
            };
        }
        match self.base {
            "ffn_gate_exps" => self.expert(ExpertPart::Gate),
            "ffn_up_exps" => self.expert(ExpertPart::Up),
            "ffn_gate_up_exps" => self.expert(ExpertPart::GateUp),
            "ffn_down_exps" => self.expert(ExpertPart::Down),
            "ffn_gate_inp" | "exp_probs_b" | "exp_probs_b_vl" | "ffn_gate_tid2eid" => TensorRole::Router,
            "ffn_gate_shexp" | "ffn_up_shexp" | "ffn_down_shexp" | "ffn_gate_inp_shexp" => {
                TensorRole::SharedExpert
            }
            "ffn_gate" => TensorRole::DenseFfn(FfnPart::Gate),
            "ffn_up" => TensorRole::DenseFfn(FfnPart::Up),
            "ffn_down" => TensorRole::DenseFfn(FfnPart::Down),
            base if base.starts_with("nextn.") => TensorRole::Other,
            _ => TensorRole::Dense,
        }
    }

    fn expert(&self, part: ExpertPart) -> TensorRole {
        match self.suffix {
            "weight" => TensorRole::RoutedExpert(part),
            "bias" => TensorRole::RoutedExpertBias(part),
            _ => TensorRole::RoutedExpertScale(part),
        }
    }

    pub fn streaming(&self, shape: &[u64]) -> Streaming {
        let matrix = self.suffix == "weight" && shape.len() == 2;
        match self.role() {
            TensorRole::RoutedExpert(_) => Streaming::Experts,
            TensorRole::DenseFfn(_) if matrix => Streaming::Whole,
            // The gate of a shared expert is a single row.
            TensorRole::SharedExpert if matrix && self.base != "ffn_gate_inp_shexp" => Streaming::Whole,
            TensorRole::Dense if matrix && DENSE_MATRICES.contains(&self.base) => Streaming::Whole,
            // How many rows a token reads, and whether the table is the projection to the vocabulary too, is
            // known of a whole model only (`tables`).
            TensorRole::Embedding if matrix && ROW_TABLES.contains(&self.base) => Streaming::Rows(1),
            _ => Streaming::No,
        }
    }
}

/// `attn_norm`, `post_ffw_norm_1`, `ffn_norm_exps`, `nextn.enorm`, …, but not `ffn_norm_ada_up`, which is a
/// matrix.
fn is_norm(base: &str) -> bool {
    base.ends_with("norm") || ["_norm_1", "_norm_2", "_norm_exps"].iter().any(|end| base.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> TensorRole {
        NameParts::of(name).role()
    }

    #[test]
    fn names_have_roles() {
        use TensorRole::*;
        let cases = [
            ("token_embd.weight", Embedding),
            ("token_embd_norm.weight", Norm),
            ("output.weight", Output),
            ("output_norm.weight", Norm),
            ("rope_freqs.weight", Other),
            ("blk.3.attn_q.weight", Dense),
            ("blk.3.attn_q.bias", Dense),
            ("blk.3.attn_q_a_norm.weight", Norm),
            ("blk.3.attn_sinks.weight", Dense),
            ("blk.3.ssm_conv1d.weight", Dense),
            ("blk.3.post_ffw_norm_2.weight", Norm),
            ("blk.3.ffn_norm_ada_up.weight", Dense),
            ("blk.3.ffn_gate_inp.weight", Router),
            ("blk.3.ffn_gate_inp.bias", Router),
            ("blk.3.exp_probs_b.bias", Router),
            ("blk.3.ffn_gate_inp_shexp.weight", SharedExpert),
            ("blk.3.ffn_up_shexp.weight", SharedExpert),
            ("blk.3.ffn_gate_exps.weight", RoutedExpert(ExpertPart::Gate)),
            ("blk.3.ffn_gate_up_exps.weight", RoutedExpert(ExpertPart::GateUp)),
            ("blk.3.ffn_gate_up_exps.bias", RoutedExpertBias(ExpertPart::GateUp)),
            ("blk.3.ffn_down_exps.scale", RoutedExpertScale(ExpertPart::Down)),
            ("blk.3.ffn_up_exps.input_scale", RoutedExpertScale(ExpertPart::Up)),
            ("blk.3.ffn_up_chexps.weight", Dense),
            ("blk.3.ffn_down.weight", DenseFfn(FfnPart::Down)),
            ("blk.61.nextn.eh_proj.weight", Other),
            ("blk.61.nextn.enorm.weight", Norm),
            ("blk.x.attn_q.weight", Other),
        ];
        for (name, expected) in cases {
            assert_eq!(role(name), expected, "{name}");
        }
    }

    #[test]
    fn layers_are_read_from_names() {
        assert_eq!(NameParts::of("blk.17.attn_q.weight").layer, Some(17));
        assert_eq!(NameParts::of("output.weight").layer, None);
        assert_eq!(NameParts::of("blk.99999999999.attn_q.weight").layer, None);
    }

    #[test]
    fn only_known_matrices_may_be_streamed() {
        let streaming = |name, shape: &[u64]| NameParts::of(name).streaming(shape);
        assert_eq!(streaming("blk.0.ffn_up_exps.weight", &[64, 32, 8]), Streaming::Experts);
        assert_eq!(streaming("blk.0.ffn_up_exps.bias", &[32, 8]), Streaming::No);
        assert_eq!(streaming("blk.0.ffn_up.weight", &[64, 32]), Streaming::Whole);
        assert_eq!(streaming("blk.0.ffn_up.bias", &[32]), Streaming::No);
        assert_eq!(streaming("blk.0.attn_kv_b.weight", &[64, 32]), Streaming::Whole);
        assert_eq!(streaming("blk.0.attn_k_b.weight", &[64, 32, 4]), Streaming::No);
        assert_eq!(streaming("blk.0.ssm_conv1d.weight", &[4, 32]), Streaming::No);
        assert_eq!(streaming("blk.0.ssm_in.weight", &[64, 32]), Streaming::Whole);
        assert_eq!(streaming("blk.0.shortconv.in_proj.weight", &[64, 32]), Streaming::Whole);
        assert_eq!(streaming("blk.0.ffn_up_shexp.weight", &[64, 32]), Streaming::Whole);
        assert_eq!(streaming("blk.0.ffn_gate_inp_shexp.weight", &[64, 1]), Streaming::No);
        assert_eq!(streaming("token_embd.weight", &[64, 32]), Streaming::Rows(1));
        assert_eq!(streaming("per_layer_token_embd.weight", &[64, 32]), Streaming::Rows(1));
        assert_eq!(streaming("token_types.weight", &[64, 2]), Streaming::No);
        assert_eq!(streaming("position_embd.weight", &[64, 32]), Streaming::No);
    }

    #[test]
    fn unstacked_experts_are_recognised() {
        assert!(NameParts::of("blk.0.ffn_gate.7.weight").is_unstacked_expert());
        assert!(!NameParts::of("blk.0.ffn_gate.weight").is_unstacked_expert());
        assert!(!NameParts::of("blk.0.ffn_gate_exps.weight").is_unstacked_expert());
    }
}
