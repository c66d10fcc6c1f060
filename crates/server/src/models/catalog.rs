//! Which models there are: what the server needs of a store.

use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Failure;
use crate::job::Message;
use crate::options::Options;
use hypura_store::Store;

/// A model that is installed.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// The short name, with its tag: `llama3.2:latest`.
    pub name: String,
    /// The file to load (of several shards: the first).
    pub path: PathBuf,
    /// The projector for images and sounds, where it has one that can be used.
    pub projector: Option<PathBuf>,
    /// Changes when the weights do: place, size and time of the file. Two names of one file share it.
    pub weights: String,
    /// 64 hexadecimal digits.
    pub digest: String,
    /// Bytes of all layers.
    pub size_bytes: u64,
    /// When it was installed or changed.
    pub modified: SystemTime,
    /// What lists show of it.
    pub details: Details,
    /// What it can do.
    pub capabilities: Capabilities,
    /// A chat template in Jinja instead of the one in the file.
    pub template: Option<String>,
    /// Its system message.
    pub system: Option<String>,
    /// Its own parameters, merged under those of a request.
    pub options: Options,
    /// Messages that come before those of a request.
    pub messages: Vec<Message>,
}

impl ModelEntry {
    /// Whether two entries are the same weights: what is loaded for one serves the other.
    #[must_use]
    pub fn same_weights(&self, other: &Self) -> bool {
        self.weights == other.weights
    }
}

/// What lists show of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The model that it was made from.
    pub parent_model: String,
    /// `gguf`.
    pub format: String,
    /// The architecture.
    pub family: String,
    /// All of them.
    pub families: Vec<String>,
    /// `7.2B`.
    pub parameter_size: String,
    /// `Q4_K_M`.
    pub quantization_level: String,
    /// Tokens of context that it was trained with.
    pub context_length: Option<u64>,
    /// Numbers in an embedding.
    pub embedding_length: Option<u64>,
}

/// What a model can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set with names, as the protocol has it")]
pub struct Capabilities {
    /// Continues text.
    pub completion: bool,
    /// Calls tools.
    pub tools: bool,
    /// Fills gaps.
    pub insert: bool,
    /// Sees pictures.
    pub vision: bool,
    /// Makes embeddings.
    pub embedding: bool,
    /// Thinks before it answers.
    pub thinking: bool,
    /// Hears sounds.
    pub audio: bool,
}

impl Capabilities {
    /// Ollama's words.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.completion, "completion"),
            (self.tools, "tools"),
            (self.insert, "insert"),
            (self.vision, "vision"),
            (self.embedding, "embedding"),
            (self.thinking, "thinking"),
            (self.audio, "audio"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }
}

/// Why a name leads to no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It is no name.
    Invalid,
    /// It is one, and nothing of that name is installed.
    NotInstalled,
    /// The request is refused for another reason.
    Refused(Failure),
}

/// What `/api/show` wants to know beyond the entry.
#[derive(Clone, Debug, Default)]
pub struct ShowData {
    /// Licence texts.
    pub license: Option<String>,
    /// The model file that would make this model.
    pub modelfile: String,
    /// Its parameters as lines.
    pub parameters: String,
    /// Its template.
    pub template: String,
    /// Metadata of the GGUF.
    pub model_info: Map<String, Value>,
    /// Name, type and shape of each tensor.
    pub tensors: Vec<Value>,
    /// Metadata of the projector.
    pub projector_info: Option<Map<String, Value>>,
    /// As Ollama's config says.
    pub renderer: Option<String>,
    /// As Ollama's config says.
    pub parser: Option<String>,
    /// The version of Ollama that it wants.
    pub requires: Option<String>,
}

/// The models of this machine. All calls may read files: call them where blocking is allowed.
pub trait Catalog: Send + Sync {
    /// The model of a name, as a request writes it.
    ///
    /// # Errors
    /// [`LookupError`].
    fn resolve(&self, name: &str) -> Result<Arc<ModelEntry>, LookupError>;
    /// All models, newest first.
    fn list(&self) -> Vec<Arc<ModelEntry>>;
    /// Everything about a model. `verbose` gives long arrays too.
    ///
    /// # Errors
    /// 500 when its files cannot be read.
    fn show(&self, entry: &ModelEntry, verbose: bool) -> Result<ShowData, Failure>;
    /// The store for changes, where there is one.
    fn store(&self) -> Option<Arc<Store>>;
}
