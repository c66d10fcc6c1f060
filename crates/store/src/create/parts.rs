//! What a model is made of, before it has a manifest.

use hypura_core::gguf::ShardName;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::progress::{Progress, Watch};
use super::{CreateRequest, Texts};
use crate::cache::{HeaderError, read_headers};
use crate::digest::Digest;
use crate::entry::{ModelEntry, TemplateLanguage, template_language};
use crate::facts::Facts;
use crate::files::shown_name;
use crate::gather::shards_of;
use crate::go_template::GoTemplate;
use crate::places::Origin;
use crate::settings::ModelSettings;
use crate::{Store, StoreError};

/// What a model is made of.
pub(super) struct Parts {
    /// Files of weights in order, with the names of shards.
    pub weights: Vec<Weights>,
    pub facts: Facts,
    pub parent: Option<String>,
    pub settings: ModelSettings,
}

/// A file of weights.
pub(super) struct Weights {
    pub kind: &'static str,
    pub path: PathBuf,
    /// Where it is known without reading the file.
    pub digest: Option<Digest>,
    pub name: Option<String>,
}

/// A file with the name that it was given, and its digest where that is known.
pub(super) type Blob = (String, PathBuf, Option<Digest>);

impl Parts {
    /// What a request asks for, before its settings.
    pub fn of_request(store: &Store, request: &CreateRequest, watch: Watch<'_>) -> Result<Self, StoreError> {
        if let Some(file) = &request.file {
            let files = shards_of(file)
                .map_err(|why| StoreError::BadRequest(format!("{}: {why}", file.display())))?;
            watch(Progress::status("parsing GGUF"));
            let files = files.into_iter().map(|path| (shown_name(&path), path, None)).collect();
            return Self::of_files(files);
        }
        if let Some(from) = request.from.as_deref().filter(|from| !from.is_empty()) {
            let entry = store.resolve(from)?;
            let mut parts = Self { parent: Some(entry.name.to_string()), ..Self::of_entry(&entry) };
            if let Some(files) = request.files.as_ref().filter(|files| !files.is_empty()) {
                watch(Progress::status("parsing GGUF"));
                parts.take_projector(blobs(store, files)?)?;
            }
            return Ok(parts);
        }
        let nothing = || StoreError::BadRequest("neither 'from' or 'files' was specified".to_owned());
        let files = request.files.as_ref().ok_or_else(nothing)?;
        if files.is_empty() {
            return Err(StoreError::BadRequest("no files provided to convert".to_owned()));
        }
        watch(Progress::status("parsing GGUF"));
        Self::of_files(blobs(store, files)?)
    }

    pub fn of_entry(entry: &ModelEntry) -> Self {
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
            weights: models
                .chain(entry.projector.iter().map(|path| weights("projector", path)))
                .chain(entry.draft.iter().map(|path| weights("draft", path)))
                .collect(),
            facts: (*entry.facts).clone(),
            parent: Some(entry.parent.clone()).filter(|parent| !parent.is_empty()),
            settings: entry.settings.clone(),
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
            settings: ModelSettings::default(),
        })
    }

    /// Takes over what the request says.
    pub fn change(&mut self, request: &CreateRequest) -> Result<(), StoreError> {
        let settings = &mut self.settings;
        if let Some(template) = request.template.as_ref().filter(|template| !template.is_empty()) {
            let inherited = settings.template.as_ref() == Some(template);
            if !inherited {
                check_template(template)?;
                (settings.template, settings.template_is_own) = (Some(template.clone()), true);
            }
        }
        settings.system = request.system.clone().or(settings.system.take());
        for (key, value) in request.parameters.iter().flatten() {
            settings.parameters.insert(key.clone(), value.clone());
        }
        if let Some(messages) = &request.messages {
            settings.messages.clone_from(messages);
        }
        match &request.license {
            Some(Texts::One(text)) => settings.licenses = vec![text.clone()],
            Some(Texts::Many(texts)) => settings.licenses.clone_from(texts),
            None => {}
        }
        settings.renderer = request.renderer.clone().or(settings.renderer.take());
        settings.parser = request.parser.clone().or(settings.parser.take());
        settings.requires = request.requires.clone().or(settings.requires.take());
        Ok(())
    }
}

/// One in Go's language must be one that can be used; llama.cpp reads the others when the model is loaded.
fn check_template(template: &str) -> Result<(), StoreError> {
    if template_language(template) == TemplateLanguage::Jinja {
        return Ok(());
    }
    let why = |error| {
        let why = format!(
            "template error: {error}: write it otherwise or in Jinja, or leave it out, to use that of the GGUF"
        );
        StoreError::BadRequest(why)
    };
    GoTemplate::parse(template).map(drop).map_err(why)
}

/// The blobs of files that were uploaded before.
pub(super) fn blobs(store: &Store, files: &BTreeMap<String, String>) -> Result<Vec<Blob>, StoreError> {
    let mut blobs = Vec::new();
    for (name, digest) in files {
        if !is_relative(name) {
            return Err(StoreError::BadRequest("file path must be relative".to_owned()));
        }
        let digest = Digest::parse(digest)?;
        if store.blob_bytes(&digest)?.is_none() {
            return Err(StoreError::NoBlob(digest.to_string()));
        }
        let path = store.own()?.blob(&digest);
        blobs.push((shown_name(Path::new(name)), path, Some(digest)));
    }
    Ok(blobs)
}

/// Whether a path stays below the folder it is relative to.
fn is_relative(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
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
pub(super) fn facts_of(files: &[PathBuf], shard: bool) -> Result<Option<Facts>, StoreError> {
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
