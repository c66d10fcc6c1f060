//! What distinguishes one shape from another.

/// The architectures of llama.cpp that shapes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen2Vl,
    Gemma3,
    Qwen3Moe,
    GptOss,
    DeepSeek2,
    Gemma4,
    Qwen4Exp,
    DeepSeek41,
}

/// Dimensions of multi-head latent attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latent {
    pub query_rank: u64,
    pub kv_rank: u64,
    /// Part of a key head without position.
    pub nope_len: u64,
    /// Part of a key head with position.
    pub rope_len: u64,
    pub value_len: u64,
}

/// Experts of each MoE layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    pub count: u64,
    pub used: u32,
    pub shared: u64,
    pub ffn: u64,
    pub leading_dense: u32,
}

/// What small models of Gemma 4 have beside others: an embedding of each token for each layer, and layers
/// that use the keys and values of earlier ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerLayer {
    /// Numbers of a token's embedding in one layer.
    pub embedding: u64,
    /// Of so many layers one sees the whole context, the last.
    pub period: u32,
    /// Length of a head in layers that do.
    pub global_head_len: u64,
    /// Layers at the end without keys and values of their own.
    pub shared_kv_layers: u32,
    /// Whether these have a feed-forward network of twice the size.
    pub wide_ffn: bool,
}

/// What models of Qwen3.8-Flash-Next's kind have beside experts and attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hybrid {
    /// Residual streams.
    pub streams: u64,
    /// Rank of what mixes them.
    pub rank: u64,
    /// Of so many layers one has attention, the last.
    pub period: u32,
    /// Length of a state, of a key and of a value of a recurrent layer.
    pub state_len: u64,
    pub key_heads: u64,
    pub value_heads: u64,
    pub indexer_heads: u64,
    pub indexer_len: u64,
    /// Cells that the indexer chooses.
    pub indexer_top_k: u32,
    /// Cells that it chooses together.
    pub indexer_block: u32,
    pub ngrams: NGram,
}

/// What models of DeepSeek-V4.1's kind have beside experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Engram {
    /// Residual streams.
    pub streams: u64,
    pub query_rank: u64,
    /// Numbers of a head that turn with the position.
    pub rope_len: u64,
    pub output_groups: u64,
    pub output_rank: u64,
    pub indexer_heads: u64,
    pub indexer_len: u64,
    /// Compressed cells that the indexer chooses.
    pub indexer_top_k: u32,
    pub ngrams: NGram,
}

/// A table of n-grams. A module is a layer that reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NGram {
    /// Tokens of the longest n-gram; the shortest has two.
    pub longest: u32,
    /// Heads for n-grams of each length.
    pub heads_per_length: u32,
    /// Numbers of a row.
    pub head_len: u64,
    /// Rows of a head, at most: the largest primes up to it.
    pub head_rows: u64,
    /// Layers that read the table.
    pub modules: u32,
    /// Whether a model with fewer layers has a smaller table too.
    pub is_cut: bool,
}

/// What a model has beside attention and feed-forward networks of the usual kinds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Usual,
    PerLayer(PerLayer),
    Hybrid(Hybrid),
    Engram(Engram),
}

/// Everything that distinguishes one shape from another.
#[derive(Debug, Clone)]
pub(super) struct Dims {
    pub name: &'static str,
    pub title: &'static str,
    pub size_label: &'static str,
    pub architecture: Architecture,
    pub vocab: u64,
    pub layers: u32,
    pub embedding: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_len: u64,
    /// Inner size of a dense FFN.
    pub ffn: u64,
    pub experts: Option<Experts>,
    pub latent: Option<Latent>,
    pub form: Form,
    pub context: u32,
    /// Sliding window of every second layer.
    pub window: Option<u32>,
    pub rope_base: f32,
    pub rms_eps: f32,
    /// Whether RoPE frequencies are stretched as in Llama 3.1 (`rope_freqs.weight`).
    pub llama3_rope: bool,
}

impl Dims {
    /// The same with so many rows for each head of a table of n-grams, where there is one.
    pub fn with_table_rows(&self, rows: Option<u64>) -> Self {
        let mut dims = self.clone();
        if let (Form::Hybrid(Hybrid { ngrams, .. }) | Form::Engram(Engram { ngrams, .. }), Some(rows)) =
            (&mut dims.form, rows)
        {
            (ngrams.head_rows, ngrams.is_cut) = (rows, false);
        }
        dims
    }
}
