//! Why a GGUF was refused. No variant knows the file's path: the caller, who opened it, adds that.

use std::io;

/// What is wrong with a GGUF header, a set of shards, or a header about to be written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum GgufError {
    #[error("reading {what} failed: {source}")]
    Read { what: String, source: io::Error },
    #[error("writing the header failed: {0}")]
    Write(#[source] io::Error),
    #[error(
        "not a GGUF file: it begins with {found:02x?} instead of \"GGUF\"; is it another format, or an unfinished download?"
    )]
    NotGguf { found: [u8; 4] },
    #[error(
        "a big-endian GGUF (version field {version:#010x}): convert it to little endian (gguf-py's gguf_convert_endian.py)"
    )]
    BigEndian { version: u32 },
    #[error(
        "GGUF version {version} is not supported, only 2 and 3 are: convert the model again with a current llama.cpp"
    )]
    UnsupportedVersion { version: u32 },
    #[error(
        "{what} at byte {at} needs {need} bytes, but only {left} are left of the file: truncated or damaged, download it again"
    )]
    Truncated { what: String, at: u64, need: u64, left: u64 },
    #[error(
        "{what} is {value}, more than the limit of {limit}: the header is damaged, or not made for this program"
    )]
    OverLimit { what: String, value: u64, limit: u64 },
    #[error("key {index} is empty: the header is damaged")]
    EmptyKey { index: u64 },
    #[error("{what} is not UTF-8: the header is damaged")]
    NotUtf8 { what: String },
    #[error("key \"{key}\" appears twice: the header is damaged")]
    DuplicateKey { key: String },
    #[error("key \"{key}\" has value type {id}, which GGUF does not define: the header is damaged")]
    UnknownValueType { key: String, id: u32 },
    #[error(
        "key \"{key}\" nests arrays deeper than {limit}: the header is damaged, or not made for this program"
    )]
    NestedTooDeep { key: String, limit: usize },
    #[error(
        "key \"{key}\" should be {expected} but is {found}: convert the model again with a current llama.cpp"
    )]
    WrongType { key: String, expected: &'static str, found: &'static str },
    #[error("general.alignment is {value}, which is not a power of two of at most {limit}")]
    BadAlignment { value: u64, limit: u64 },
    #[error("a tensor has an empty name: the header is damaged")]
    EmptyTensorName,
    #[error("tensor \"{name}\" appears twice: the header is damaged")]
    DuplicateTensor { name: String },
    #[error("tensor \"{name}\" has {dims} dimensions, ggml allows 1 to 4")]
    BadRank { name: String, dims: u64 },
    #[error("tensor \"{name}\" has the shape {shape:?}, which has a dimension of zero")]
    ZeroDimension { name: String, shape: Vec<u64> },
    #[error(
        "tensor \"{name}\" has ggml type {id}, which this program does not know: it is retired, or newer than this program"
    )]
    UnknownTensorType { name: String, id: u32 },
    #[error("tensor \"{name}\" has rows of {row} elements, which are not whole {ty} blocks of {block}")]
    PartialBlock { name: String, row: u64, ty: &'static str, block: u64 },
    #[error("tensor \"{name}\" with shape {shape:?} is larger than any file can be")]
    TooLarge { name: String, shape: Vec<u64> },
    #[error(
        "tensor \"{name}\" lies at offset {offset} of the data, which is not a multiple of the alignment {alignment}"
    )]
    Misaligned { name: String, offset: u64, alignment: u64 },
    #[error(
        "tensor \"{name}\" ends at byte {end}, but the file has {file_bytes}: truncated, download it again"
    )]
    BeyondFile { name: String, end: u64, file_bytes: u64 },
    #[error("tensors \"{first}\" and \"{second}\" overlap in the file: the header is damaged")]
    Overlap { first: String, second: String },
    #[error("the model has no shards")]
    NoShards,
    #[error("{headers} headers were given with {sizes} file sizes")]
    ShardSizes { headers: usize, sizes: usize },
    #[error("shard {missing} of {count} is missing: all shards must lie in one folder")]
    MissingShard { missing: u64, count: u64 },
    #[error(
        "it is shard {index} of {count}, which its name does not say: name the files of a model like {expected}"
    )]
    MisnamedShard { index: u64, count: u64, expected: String },
    #[error("{given} shards were given, but the first one says that there are {count}")]
    ShardCount { given: u64, count: u64 },
    #[error("shard {position} says of itself that it is shard {found}: files are misnamed or mixed up")]
    ShardOrder { position: u64, found: u64 },
    #[error(
        "shard {position} says that there are {found} shards, the first one says {count}: files of two models are mixed"
    )]
    ShardCountsDiffer { position: u64, found: u64, count: u64 },
    #[error("shard {position} lacks the key \"{key}\": it is no shard, or files of two models are mixed")]
    NotAShard { position: u64, key: &'static str },
    #[error("the shards hold {found} tensors, the first one says {expected}: a shard is from another model")]
    ShardTensors { found: u64, expected: u64 },
}

impl GgufError {
    /// Which file of several it is about, counted from 1; `None` where it is about the first or about all.
    #[must_use]
    pub const fn shard(&self) -> Option<u64> {
        match self {
            Self::ShardOrder { position, .. }
            | Self::ShardCountsDiffer { position, .. }
            | Self::NotAShard { position, .. } => Some(*position),
            _ => None,
        }
    }
}
