//! The files of a synthetic model: which tensors, where, and any range of their bytes.
//!
//! Invariant: what [`SynthPlan::fill_file`] writes for a range depends on the options and the range alone,
//! never on how the file is cut into ranges.

use std::fmt;
use std::ops::Range;

use super::content::{Content, PAGE_BYTES, Patterns};
use super::dims::{Architecture, Dims, Form};
use super::{Quant, Shape, SynthError, list, metadata, tensors};
use crate::gguf::{HeaderBuilder, ShardName, TensorInfo};

/// Most layers that llama.cpp can load (`LLAMA_MAX_LAYERS` of `llama-hparams.h`).
const MAX_LAYERS: u32 = 512;

/// What to synthesise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthOptions {
    /// The model.
    pub shape: Shape,
    /// The quantisation of its weights.
    pub quant: Quant,
    /// Chooses the weights; the same options give the same files, byte for byte.
    pub seed: u64,
    /// Number of layers, if not the model's own.
    pub layers: Option<u32>,
    /// Rows of each head of a table of n-grams, if not the model's own (as many as the layers are of all).
    pub table_rows: Option<u64>,
    /// Number of files, 1 for a plain one.
    pub shards: u32,
    /// Makes only about this many different bytes for each kind of matrix (one type, one number of inputs)
    /// and repeats them with that period, so that a file system that shares extents needs little disk; see
    /// [`SynthPlan::extents`]. Tensors are then aligned to 4096 bytes. From 256 MiB on the experts of a layer
    /// still differ from each other in every shape; experts of different layers may be equal.
    pub unique_bytes: Option<u64>,
}

impl SynthOptions {
    /// One file, all layers, nothing repeating, seed 0.
    pub const fn new(shape: Shape, quant: Quant) -> Self {
        Self { shape, quant, seed: 0, layers: None, table_rows: None, shards: 1, unique_bytes: None }
    }
}

/// One file of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthShard {
    /// The header and its padding: the file's first bytes.
    pub header: Vec<u8>,
    /// Size of the whole file.
    pub file_bytes: u64,
    /// Its tensors, as indices into [`SynthPlan::tensors`].
    pub tensors: Range<usize>,
}

/// A synthetic model, ready to be written.
pub struct SynthPlan {
    shards: Vec<SynthShard>,
    tensors: Vec<TensorInfo>,
    /// What makes each tensor's bytes, by the same index.
    pub(super) contents: Vec<Content>,
    patterns: Patterns,
}

impl fmt::Debug for SynthPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SynthPlan")
            .field("shards", &self.shards.len())
            .field("tensors", &self.tensors.len())
            .field("file_bytes", &self.file_bytes())
            .finish_non_exhaustive()
    }
}

impl SynthPlan {
    /// Plans the files. Takes milliseconds; the weights are made when asked for.
    pub fn new(options: &SynthOptions) -> Result<Self, SynthError> {
        let dims = &options.shape.dims().with_table_rows(options.table_rows);
        let layers = layers(options, dims)?;
        let specs = tensors::list(dims, layers);
        let type_of = |spec: &list::TensorSpec| {
            let row = spec.shape.first().copied().unwrap_or(1);
            options.quant.type_of(spec.class, row, spec.layer, layers, dims.experts.is_some())
        };
        let mut whole = HeaderBuilder::new();
        for spec in &specs {
            whole.tensor(spec.name.as_str(), &spec.shape, type_of(spec));
        }
        let sizes: Vec<u64> = whole.layout()?.tensors.iter().map(|tensor| tensor.bytes).collect();
        let mut patterns = Patterns::new(options.seed);
        let mut contents: Vec<Content> = specs
            .iter()
            .zip(&sizes)
            .map(|(spec, &bytes)| patterns.content(spec, type_of(spec), bytes))
            .collect();
        if let Some(unique_bytes) = options.unique_bytes {
            contents = contents.into_iter().map(|content| patterns.repeat(content, unique_bytes)).collect();
        }
        let mut plan = Self { shards: Vec::new(), tensors: Vec::new(), contents, patterns };
        let count = u16::try_from(options.shards).ok().filter(|&n| n > 0 && usize::from(n) <= sizes.len());
        let Some(count) = count else {
            return Err(SynthError::Shards { shards: options.shards, tensors: sizes.len() });
        };
        for (index, tensors) in (0..count).zip(spread(&sizes, usize::from(count))) {
            let mut builder = HeaderBuilder::new();
            if index == 0 {
                *builder.metadata_mut() = metadata::of(dims, layers, options.quant, options.seed);
            }
            if options.unique_bytes.is_some() {
                builder.set_alignment(PAGE_BYTES as u32);
            }
            if count > 1 {
                builder.set_split(index, count, specs.len() as i32);
            }
            for spec in specs.get(tensors).unwrap_or_default() {
                builder.tensor(spec.name.as_str(), &spec.shape, type_of(spec));
            }
            plan.add_shard(&builder)?;
        }
        Ok(plan)
    }

    fn add_shard(&mut self, builder: &HeaderBuilder) -> Result<(), SynthError> {
        let mut header = Vec::new();
        let layout = builder.write_header(&mut header)?;
        let (shard, first) = (self.shards.len(), self.tensors.len());
        self.tensors.extend(layout.tensors.into_iter().map(|tensor| TensorInfo { shard, ..tensor }));
        let tensors = first..self.tensors.len();
        self.shards.push(SynthShard { header, file_bytes: layout.file_bytes, tensors });
        Ok(())
    }

    /// The files, in the order of their numbers.
    pub fn shards(&self) -> &[SynthShard] {
        &self.shards
    }

    /// All tensors in file order; `shard` and `offset` say where each one lies.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum()
    }

    /// Size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.file_bytes).sum()
    }

    /// Name (or path) of the file of shard `shard`, where `stem` is the one asked for without `.gguf`.
    pub fn file_name(&self, stem: &str, shard: usize) -> String {
        if self.shards.len() == 1 {
            return format!("{stem}.gguf");
        }
        let name =
            ShardName { prefix: stem.to_owned(), index: shard as u32, count: self.shards.len() as u32 };
        name.sibling(name.index)
    }

    /// Writes the bytes of tensor `tensor` from `offset` on into `out`.
    ///
    /// Bytes past the tensor's end, or of a tensor that does not exist, are left as they are.
    pub fn fill(&self, tensor: usize, offset: u64, out: &mut [u8]) {
        let (Some(info), Some(content)) = (self.tensors.get(tensor), self.contents.get(tensor)) else {
            return;
        };
        let left = usize::try_from(info.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let taken = out.len().min(left);
        if let Some(out) = out.get_mut(..taken) {
            self.patterns.fill(content, offset, out);
        }
    }

    /// Writes the bytes of the file of shard `shard` from `offset` on into `out`: header, tensors and padding
    /// alike. What lies past the end of the file is zero.
    ///
    /// Any range may be asked for, in any order, from any thread.
    pub fn fill_file(&self, shard: usize, offset: u64, out: &mut [u8]) {
        out.fill(0);
        let Some(file) = self.shards.get(shard) else { return };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let header = file.header.get(from..).unwrap_or_default();
        out.iter_mut().zip(header).for_each(|(out, byte)| *out = *byte);
        let end = offset.saturating_add(out.len() as u64);
        let tensors = self.tensors.get(file.tensors.clone()).unwrap_or_default();
        let first = tensors.partition_point(|tensor| tensor.offset + tensor.bytes <= offset);
        let touched = tensors.iter().enumerate().skip(first).take_while(|(_, tensor)| tensor.offset < end);
        for (index, tensor) in touched {
            let start = tensor.offset.max(offset);
            let stop = (tensor.offset + tensor.bytes).min(end);
            let range = (start - offset) as usize..(stop - offset) as usize;
            if let Some(out) = out.get_mut(range) {
                self.fill(file.tensors.start + index, start - tensor.offset, out);
            }
        }
    }
}

/// The number of layers, if llama.cpp can load the architecture with it.
fn layers(options: &SynthOptions, dims: &Dims) -> Result<u32, SynthError> {
    let layers = options.layers.unwrap_or(dims.layers);
    let least = dims.experts.map_or(1, |experts| experts.leading_dense + 1);
    let least = match dims.form {
        Form::Usual => least,
        // llama.cpp wants two layers with keys and values of their own.
        Form::PerLayer(_) => 2,
        // One with attention.
        Form::Hybrid(hybrid) => hybrid.period,
        // One that compresses, and two that read the table.
        Form::Engram(_) => 3,
    };
    let why = if layers < least {
        "choose enough for a layer of each kind"
    } else if layers > MAX_LAYERS {
        "llama.cpp loads 512 at most"
    } else if dims.architecture == Architecture::DeepSeek2 && matches!(layers, 26 | 27) {
        "llama.cpp takes deepseek2 of 26 or 27 layers for the Lite model, which is built differently; choose another number"
    } else {
        return Ok(layers);
    };
    Err(SynthError::Layers { shape: options.shape, layers, why })
}

/// Cuts the tensors into `count` runs of about equal bytes, none of them empty.
fn spread(sizes: &[u64], count: usize) -> Vec<Range<usize>> {
    let total: u128 = sizes.iter().map(|&bytes| u128::from(bytes)).sum();
    let mut runs = Vec::with_capacity(count);
    let (mut start, mut sum) = (0, 0_u128);
    // `sum` is the size of all tensors before `index`.
    for (index, &before) in (1..sizes.len()).zip(sizes) {
        sum += u128::from(before);
        let next = runs.len() + 1;
        let due = sum * count as u128 >= total * next as u128;
        let last_chance = sizes.len() - index == count - next;
        if next < count && (due || last_chance) {
            runs.push(start..index);
            start = index;
        }
    }
    runs.push(start..sizes.len());
    runs
}
