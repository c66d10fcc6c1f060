//! Models split over several GGUF files ("shards"), named and keyed as llama.cpp's `gguf-split` does it.
//!
//! Shards are counted from 0 here and in the metadata, from 1 in file names and in messages to people.

use std::collections::HashSet;

use super::{GgufError, Header, Metadata, TensorInfo};

/// Index of this shard, counted from 0.
pub(super) const SPLIT_NO_KEY: &str = "split.no";
/// Number of shards.
pub(super) const SPLIT_COUNT_KEY: &str = "split.count";
/// Number of tensors in all shards together.
pub(super) const SPLIT_TENSORS_KEY: &str = "split.tensors.count";

/// Most shards of a model: the metadata count them in 16 bits.
const MOST_SHARDS: u32 = u16::MAX as u32;

/// The name of a shard's file: `PREFIX-00001-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardName {
    /// What all shards of the model share. A path's folders are part of it.
    pub prefix: String,
    /// Which shard, counted from 0.
    pub index: u32,
    /// How many shards.
    pub count: u32,
}

impl ShardName {
    /// Takes a file name (or a path) apart; `None` when it is not that of a shard.
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let index = number.parse::<u32>().ok()?.checked_sub(1)?;
        let parsed = Self { prefix: prefix.to_owned(), index, count: count.parse().ok()? };
        // Only names that are written back the same: this refuses "+1", "001" and other near misses.
        let is_shard = index < parsed.count && parsed.count <= MOST_SHARDS && parsed.sibling(index) == name;
        is_shard.then_some(parsed)
    }

    /// The name of shard `index` (counted from 0) of the same model.
    pub fn sibling(&self, index: u32) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.prefix, u64::from(index) + 1, self.count)
    }
}

/// Checks that a shard bears a name by which its siblings can be found.
///
/// # Errors
/// [`GgufError::MisnamedShard`].
pub fn check_name(name: &str, header: &Header) -> Result<(), GgufError> {
    let count = header.metadata.u64(SPLIT_COUNT_KEY)?.and_then(|count| u32::try_from(count).ok());
    let index = header.metadata.u64(SPLIT_NO_KEY)?.and_then(|index| u32::try_from(index).ok());
    // What is wrong with the numbers themselves is for `merge` to say.
    let (Some(count @ 2..=MOST_SHARDS), Some(index)) = (count, index) else { return Ok(()) };
    if index >= count {
        return Ok(());
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    let named = ShardName::parse(name);
    if named.as_ref().is_some_and(|named| (named.index, named.count) == (index, count)) {
        return Ok(());
    }
    let prefix =
        named.map_or_else(|| name.strip_suffix(".gguf").unwrap_or(name).to_owned(), |named| named.prefix);
    let expected = ShardName { prefix, index, count }.sibling(index);
    Err(GgufError::MisnamedShard { index: u64::from(index) + 1, count: count.into(), expected })
}

/// All shards of a model as one; also a model in a single file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufSet {
    /// Metadata of the first shard: the model's. The others repeat only what concerns the shard.
    pub metadata: Metadata,
    /// Tensors of all shards, by shard and then in header order; [`TensorInfo::shard`] is set.
    pub tensors: Vec<TensorInfo>,
    /// Size of each shard's file.
    pub shard_bytes: Vec<u64>,
}

/// Joins the headers of a model's shards, given in order with the sizes of their files.
pub fn merge(headers: Vec<Header>, shard_bytes: Vec<u64>) -> Result<GgufSet, GgufError> {
    if headers.len() != shard_bytes.len() {
        return Err(GgufError::ShardSizes { headers: headers.len(), sizes: shard_bytes.len() });
    }
    let limit = i64::MAX as u64;
    let total = shard_bytes.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n)).unwrap_or(u64::MAX);
    if total > limit {
        // Sums of tensor sizes, which callers form freely, must not overflow.
        let what = "the size of all shards together".to_owned();
        return Err(GgufError::OverLimit { what, value: total, limit });
    }
    let count = check_numbers(&headers)?;
    let expected = match headers.first() {
        Some(first) if count > 1 => first.metadata.u64(SPLIT_TENSORS_KEY)?,
        _ => None,
    };
    let mut metadata = None;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    for (shard, header) in headers.into_iter().enumerate() {
        tensors.extend(header.tensors.into_iter().map(|tensor| TensorInfo { shard, ..tensor }));
        metadata.get_or_insert(header.metadata);
    }
    let found = tensors.len() as u64;
    if let Some(expected) = expected.filter(|&expected| expected != found) {
        return Err(GgufError::ShardTensors { found, expected });
    }
    let mut names = HashSet::with_capacity(tensors.len());
    if let Some(tensor) = tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(GgufError::DuplicateTensor { name: tensor.name.clone() });
    }
    let metadata = metadata.ok_or(GgufError::NoShards)?;
    Ok(GgufSet { metadata, tensors, shard_bytes })
}

/// Checks that the headers are all the shards of one model, in order, and returns how many that are.
fn check_numbers(headers: &[Header]) -> Result<u64, GgufError> {
    let first = headers.first().ok_or(GgufError::NoShards)?;
    let given = headers.len() as u64;
    let count = first.metadata.u64(SPLIT_COUNT_KEY)?.unwrap_or(1);
    if count <= 1 {
        return if given == 1 { Ok(1) } else { Err(GgufError::ShardCount { given, count: 1 }) };
    }
    let number = |(position, header): (usize, &Header)| {
        let missing = || GgufError::NotAShard { position: position as u64 + 1, key: SPLIT_NO_KEY };
        header.metadata.u64(SPLIT_NO_KEY)?.ok_or_else(missing)
    };
    let numbers = headers.iter().enumerate().map(number).collect::<Result<Vec<u64>, _>>()?;
    // Bounded by the shards given, not by what the file claims: the first gap is found within them or right
    // after.
    if let Some(missing) = (0..count.min(given + 1)).find(|index| !numbers.contains(index)) {
        return Err(GgufError::MissingShard { missing: missing + 1, count });
    }
    if given != count {
        return Err(GgufError::ShardCount { given, count });
    }
    for (position, (header, found)) in (1_u64..).zip(headers.iter().zip(numbers)) {
        if found + 1 != position {
            return Err(GgufError::ShardOrder { position, found: found + 1 });
        }
        let its_count = header.metadata.u64(SPLIT_COUNT_KEY)?.unwrap_or(count);
        if its_count != count {
            return Err(GgufError::ShardCountsDiffer { position, found: its_count, count });
        }
    }
    Ok(count)
}
