//! New models of our own store: from a model of any store, from blobs, or from a file. Weights are linked, not copied,
//! wherever the file system can do that.

use hypura_core::gguf::ShardName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::blobs::{Stored, store_bytes};
use super::cache::{HeaderError, read_headers};
use super::digest::Digest;
use super::edit::write_manifest;
use super::entry::{Message, ModelEntry, TemplateLanguage, template_language};
use super::facts::Facts;
use super::files::shown_name;
use super::gather::shards_of;
use super::layout::{CONFIG_TYPE, Config, LAYER_PREFIX, Layer, Layout, MANIFEST_TYPE, Manifest};
use super::name::ModelName;
use super::places::Origin;
use super::{Store, StoreError};

/// The body of `/api/create`. `null` is as good as absent, and unknown keys are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the API")]
pub struct CreateRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The older word for `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// File names and digests of blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapters: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<String>,
    /// The older word for `quantize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// Of a draft model; read so that it can be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_files: Option<BTreeMap<String, String>>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_quantize: Option<String>,
    /// What a model without a header of its own would be told; refused too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// A GGUF file to use instead of `from` and `files`. Only for callers on this machine: it is no part of the body.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// What is being done, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What.
    pub status: String,
    /// Of how many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How many are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

impl Progress {
    fn status(status: impl Into<String>) -> Self {
        Self { status: status.into(), total: None, completed: None }
    }
}

/// Whoever watches a model being made.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// What a model is made of, before it has a manifest.
struct Parts {
    /// Files of weights in order, with the names of shards.
    weights: Vec<Weights>,
    facts: Facts,
    parent: Option<String>,
    template: Option<String>,
    system: Option<String>,
    parameters: Map<String, Json>,
    messages: Vec<Message>,
    licenses: Vec<String>,
    renderer: Option<String>,
    parser: Option<String>,
    requires: Option<String>,
}

struct Weights {
    kind: &'static str,
    path: PathBuf,
    /// Where it is known without reading the file.
    digest: Option<Digest>,
    name: Option<String>,
}

/// A file with the name that it was given, and its digest where that is known.
type Blob = (String, PathBuf, Option<Digest>);

impl Store {
    /// Makes a model. Hashes its file when that came from outside of any store, which takes as long as reading it.
    ///
    /// # Errors
    /// [`StoreError::BadRequest`] and its like for requests that make no sense, with Ollama's words.
    pub fn create(&self, request: &CreateRequest, watch: Watch<'_>) -> Result<ModelName, StoreError> {
        let target = request.model.as_deref().or(request.name.as_deref()).unwrap_or_default();
        let target = ModelName::parse(target)?;
        refuse_unsupported(request)?;
        let layout = self.own()?;
        let mut parts = self.parts(request, watch)?;
        parts.change(request)?;
        parts.save(&layout, &target, watch)?;
        watch(Progress::status("success"));
        Ok(target)
    }

    /// See [`Store::copy`].
    pub(super) fn save_copy(&self, entry: &ModelEntry, to: &ModelName) -> Result<(), StoreError> {
        Parts::of_entry(entry).save(&self.own()?, to, &mut |_| {})
    }

    fn parts(&self, request: &CreateRequest, watch: Watch<'_>) -> Result<Parts, StoreError> {
        if let Some(file) = &request.file {
            let files = shards_of(file)
                .map_err(|why| StoreError::BadRequest(format!("{}: {why}", file.display())))?;
            watch(Progress::status("parsing GGUF"));
            let files = files.into_iter().map(|path| (shown_name(&path), path, None)).collect();
            return Parts::of_files(files);
        }
        if let Some(from) = request.from.as_deref().filter(|from| !from.is_empty()) {
            let entry = self.resolve(from)?;
            let mut parts = Parts { parent: Some(entry.name.to_string()), ..Parts::of_entry(&entry) };
            if let Some(files) = request.files.as_ref().filter(|files| !files.is_empty()) {
                watch(Progress::status("parsing GGUF"));
                parts.take_projector(self.blobs(files)?)?;
            }
            return Ok(parts);
        }
        let nothing = || StoreError::BadRequest("neither 'from' or 'files' was specified".to_owned());
        let files = request.files.as_ref().ok_or_else(nothing)?;
        if files.is_empty() {
            return Err(StoreError::BadRequest("no files provided to convert".to_owned()));
        }
        watch(Progress::status("parsing GGUF"));
        Parts::of_files(self.blobs(files)?)
    }

    /// The blobs of files that were uploaded before.
    fn blobs(&self, files: &BTreeMap<String, String>) -> Result<Vec<Blob>, StoreError> {
        let mut blobs = Vec::new();
        for (name, digest) in files {
            if !is_relative(name) {
                return Err(StoreError::BadRequest("file path must be relative".to_owned()));
            }
            let digest = Digest::parse(digest)?;
            if self.blob_bytes(&digest)?.is_none() {
                return Err(StoreError::NoBlob(digest.to_string()));
            }
            let path = self.own()?.blob(&digest);
            blobs.push((shown_name(Path::new(name)), path, Some(digest)));
        }
        Ok(blobs)
    }
}

fn refuse_unsupported(request: &CreateRequest) -> Result<(), StoreError> {
    let quantize = request.quantize.as_deref().or(request.quantization.as_deref()).unwrap_or_default();
    let adapters = request.adapters.as_ref().map_or(0, BTreeMap::len);
    let drafts = request.draft_files.as_ref().is_some_and(|files| !files.is_empty())
        || request.draft_quantize.as_deref().is_some_and(|kind| !kind.is_empty());
    if drafts {
        let why = "draft models are not supported: leave draft_files and draft_quantize out";
        return Err(StoreError::BadRequest(why.to_owned()));
    }
    if request.info.as_ref().is_some_and(|info| !info.is_empty()) {
        let why = "info is not supported: what a model is stands in the header of its GGUF";
        return Err(StoreError::BadRequest(why.to_owned()));
    }
    let why = match (quantize, adapters) {
        ("", 0) => return Ok(()),
        ("", 1) => "adapters are not supported: merge the adapter into the model first",
        ("", _) => "only one adapter is currently supported",
        _ => {
            "quantizing is not supported: give a GGUF file that is quantized already (llama-quantize makes one)"
        }
    };
    Err(StoreError::BadRequest(why.to_owned()))
}

/// Whether a path stays below the folder it is relative to.
fn is_relative(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

impl Parts {
    fn of_entry(entry: &ModelEntry) -> Self {
        let known = |path: &Path| {
            let name = shown_name(path);
            Digest::parse(&name).ok().or_else(|| hugging_face_digest(entry.origin, path))
        };
        let named = |path: &Path| ShardName::parse(&shown_name(path)).map(|_| shown_name(path));
        let weights = |kind, path: &PathBuf| Weights {
            kind,
            path: path.clone(),
            digest: known(path),
            name: named(path),
        };
        let models = entry.files.iter().map(|path| weights("model", path));
        Self {
            weights: models.chain(entry.projector.iter().map(|path| weights("projector", path))).collect(),
            facts: (*entry.facts).clone(),
            parent: Some(entry.parent.clone()).filter(|parent| !parent.is_empty()),
            template: entry.template.clone(),
            system: entry.system.clone(),
            parameters: entry.parameters.clone(),
            messages: entry.messages.clone(),
            licenses: entry.licenses.clone(),
            renderer: entry.renderer.clone(),
            parser: entry.parser.clone(),
            requires: entry.requires.clone(),
        }
    }

    /// Takes a projector in place of the one that there may be.
    fn take_projector(&mut self, files: Vec<Blob>) -> Result<(), StoreError> {
        let bad = |why: &str| StoreError::BadRequest(why.to_owned());
        let [(name, path, digest)] = <[Blob; 1]>::try_from(files)
            .map_err(|_| bad("beside 'from' there can be one file: a projector"))?;
        refuse_foreign_format(&name, &path)?;
        let facts = facts_of(std::slice::from_ref(&path), false)?;
        let facts = facts.filter(|facts| facts.is_projector);
        facts.ok_or_else(|| bad("beside 'from' there can be one file: a projector"))?;
        self.weights.retain(|weights| weights.kind != "projector");
        self.weights.push(Weights { kind: "projector", path, digest, name: None });
        Ok(())
    }

    /// One model in files that are named as given: all its shards, and its projector if there is one.
    fn of_files(mut files: Vec<Blob>) -> Result<Self, StoreError> {
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut weights, mut models) = (Vec::new(), Vec::new());
        for (name, path, digest) in files {
            refuse_foreign_format(&name, &path)?;
            let facts = facts_of(std::slice::from_ref(&path), ShardName::parse(&name).is_some())?;
            let kind = if facts.is_some_and(|facts| facts.is_projector) { "projector" } else { "model" };
            if kind == "model" {
                models.push(path.clone());
            }
            let name = ShardName::parse(&name).map(|_| name);
            weights.push(Weights { kind, path, digest, name });
        }
        let nothing = || StoreError::BadRequest("the files hold no model".to_owned());
        Ok(Self {
            facts: facts_of(&models, false)?.ok_or_else(nothing)?,
            weights,
            parent: None,
            template: None,
            system: None,
            parameters: Map::new(),
            messages: Vec::new(),
            licenses: Vec::new(),
            renderer: None,
            parser: None,
            requires: None,
        })
    }

    /// Takes over what the request says.
    fn change(&mut self, request: &CreateRequest) -> Result<(), StoreError> {
        if let Some(template) = request.template.as_ref().filter(|template| !template.is_empty()) {
            let inherited = self.template.as_ref() == Some(template);
            if !inherited && template_language(template) == TemplateLanguage::Go {
                let why = "template error: Go templates are not supported: give one in Jinja, or none, to use that of the GGUF";
                return Err(StoreError::BadRequest(why.to_owned()));
            }
            self.template = Some(template.clone());
        }
        self.system = request.system.clone().or(self.system.take());
        for (key, value) in request.parameters.iter().flatten() {
            self.parameters.insert(key.clone(), value.clone());
        }
        if let Some(messages) = &request.messages {
            self.messages.clone_from(messages);
        }
        match &request.license {
            Some(Texts::One(text)) => self.licenses = vec![text.clone()],
            Some(Texts::Many(texts)) => self.licenses.clone_from(texts),
            None => {}
        }
        self.renderer = request.renderer.clone().or(self.renderer.take());
        self.parser = request.parser.clone().or(self.parser.take());
        self.requires = request.requires.clone().or(self.requires.take());
        Ok(())
    }

    /// Brings everything into the layout, the manifest last: until then there is no new model.
    fn save(&self, layout: &Layout, name: &ModelName, watch: Watch<'_>) -> Result<(), StoreError> {
        let mut layers = Vec::new();
        for weights in &self.weights {
            layers.push(self.weights_layer(layout, weights, watch)?);
        }
        let add = |kind: &str, text: &str, watch: &mut dyn FnMut(Progress)| {
            add_layer(layout, &format!("{LAYER_PREFIX}{kind}"), text.as_bytes(), watch)
        };
        for (kind, text) in [("template", &self.template), ("system", &self.system)] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                layers.push(add(kind, text, watch)?);
            }
        }
        if !self.parameters.is_empty() {
            layers.push(add("params", &json!(self.parameters).to_string(), watch)?);
        }
        if !self.messages.is_empty() {
            layers.push(add("messages", &json!(self.messages).to_string(), watch)?);
        }
        for license in &self.licenses {
            layers.push(add("license", license, watch)?);
        }
        let config = json!(self.config()).to_string();
        let config = add_layer(layout, CONFIG_TYPE, config.as_bytes(), watch)?;
        watch(Progress::status("writing manifest"));
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST_TYPE.to_owned(), config, layers };
        write_manifest(layout, name, &manifest)
    }

    fn config(&self) -> Config {
        let has_projector = self.weights.iter().any(|weights| weights.kind == "projector");
        Config {
            model_format: "gguf".to_owned(),
            model_family: self.facts.architecture.clone(),
            model_families: self.facts.families(has_projector),
            model_type: self.facts.parameter_size(),
            file_type: self.facts.quantization.clone(),
            renderer: self.renderer.clone(),
            parser: self.parser.clone(),
            requires: self.requires.clone(),
            remote_host: None,
            remote_model: None,
        }
    }

    fn weights_layer(
        &self,
        layout: &Layout,
        weights: &Weights,
        watch: Watch<'_>,
    ) -> Result<Layer, StoreError> {
        let path = &weights.path;
        let size = fs::metadata(path).map_err(StoreError::io("read", path))?.len();
        let digest = match &weights.digest {
            Some(digest) => digest.clone(),
            None => {
                let mut told = |done| {
                    let status = "hashing weights".to_owned();
                    watch(Progress { status, total: Some(size), completed: Some(done) });
                };
                Digest::of_file(path, &mut told).map_err(StoreError::io("read", path))?
            }
        };
        let stored = link_blob(layout, path, &digest, size)?;
        tell(&digest, stored, watch);
        let from = self.parent.clone().filter(|_| weights.kind == "model");
        Ok(Layer {
            media_type: format!("{LAYER_PREFIX}{}", weights.kind),
            digest: digest.to_string(),
            size,
            name: weights.name.clone(),
            from,
        })
    }
}

/// What calls itself no GGUF and is none, in Ollama's words.
fn refuse_foreign_format(name: &str, path: &Path) -> Result<(), StoreError> {
    let extension = Path::new(name).extension().map(|extension| extension.to_ascii_lowercase());
    let why = match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("gguf") => return Ok(()),
        Some("safetensors") => {
            "safetensors are not supported: convert them to GGUF first (llama.cpp's convert_hf_to_gguf.py)"
        }
        _ => "unknown type",
    };
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_ok() && &magic == b"GGUF" {
        return Ok(());
    }
    Err(StoreError::BadRequest(why.to_owned()))
}

/// The facts of a model in these files. A shard alone is no model, which is no fault: `None`.
fn facts_of(files: &[PathBuf], shard: bool) -> Result<Option<Facts>, StoreError> {
    match read_headers(files) {
        Ok((gguf, digest)) => Ok(Some(Facts::of(&gguf, digest))),
        Err(HeaderError::Gguf(_)) if shard => Ok(None),
        Err(_) if files.is_empty() => Ok(None),
        Err(error) if files.len() > 1 => {
            Err(StoreError::BadRequest(format!("the files are not one model: {error}")))
        }
        Err(error) => Err(StoreError::BadRequest(format!("supplied file was not in GGUF format: {error}"))),
    }
}

/// Hugging Face names its blobs by their SHA-256.
fn hugging_face_digest(origin: Origin, path: &Path) -> Option<Digest> {
    let target = (origin == Origin::HuggingFace).then(|| fs::canonicalize(path).ok()).flatten()?;
    Digest::from_hex(&shown_name(&target))
}

fn add_layer(layout: &Layout, media_type: &str, bytes: &[u8], watch: Watch<'_>) -> Result<Layer, StoreError> {
    let (digest, stored) = store_bytes(layout, bytes)?;
    tell(&digest, stored, watch);
    Ok(Layer {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: bytes.len() as u64,
        name: None,
        from: None,
    })
}

fn tell(digest: &Digest, stored: Stored, watch: Watch<'_>) {
    let how = match stored {
        Stored::Created => "creating new layer",
        Stored::Present => "using existing layer",
    };
    watch(Progress::status(format!("{how} {digest}")));
}

/// Makes a file a blob of the layout: by a hard link, so that it stays when the other name goes; across file systems, or
/// where the system forbids such links, by a symbolic one.
fn link_blob(layout: &Layout, path: &Path, digest: &Digest, size: u64) -> Result<Stored, StoreError> {
    let blob = layout.blob(digest);
    if fs::metadata(&blob).is_ok_and(|about| about.len() == size) {
        return Ok(Stored::Present);
    }
    if let Some(folder) = blob.parent() {
        fs::create_dir_all(folder).map_err(StoreError::io("make the folder", folder))?;
    }
    let real = fs::canonicalize(path).map_err(StoreError::io("read", path))?;
    // A link that leads nowhere any more may be in the way.
    let _ = fs::remove_file(&blob);
    let linked = fs::hard_link(&real, &blob).or_else(|_| symlink(&real, &blob));
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("link", blob)(error))
        }
        _ => Ok(Stored::Created),
    }
}
