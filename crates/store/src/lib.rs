//! Models by name: Hypura's own store, and (read only) those of Ollama, Hugging Face and LM Studio.
//!
//! - [`name`](ModelName): names of models
//! - `places`: which folders
//! - `layout`, `digest`, `files`: manifests and blobs on disk
//! - `gather`: what is where, by file names
//! - `projectors`: which projector belongs to which model, by the same
//! - `facts`, `cache`: what headers say, remembered
//! - `entry`, `show`: what is told of a model; `unusable`: why one cannot be used
//! - `modelfile`: reading and writing Modelfiles
//! - `blobs`, `create`, `edit`: changes, all of them in our own store
//! - [`fetch`]: headers of models that are elsewhere
//!
//! Invariants: no other program's folder is ever written to; nothing that a manifest, a request or a link says leads a
//! write out of our folder; a broken model is skipped with a reason and stops nobody else's; nothing here loads a model,
//! so every call is quick (the exceptions, hashing a file and `verbose`, say so). All calls block: from async code use a
//! blocking task. `Store` is `Sync` and holds no lock while it reads files.
#![deny(unsafe_code)]

mod blobs;
mod cache;
mod create;
mod digest;
mod edit;
mod entry;
mod error;
mod facts;
pub mod fetch;
mod files;
mod gather;
mod layout;
mod modelfile;
mod name;
mod places;
mod projectors;
mod show;
mod unusable;

pub use blobs::{BlobWriter, Stored};
pub use cache::HeaderError;
pub use create::{CreateRequest, Progress, Texts};
pub use digest::Digest;
pub use entry::{Details, Message, ModelEntry, TemplateLanguage, template_language};
pub use error::StoreError;
pub use facts::{Capability, Facts, TensorRow, human_number};
pub use gather::{Skipped, shards_of};
pub use modelfile::{Modelfile, ModelfileError};
pub use name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Locality, ModelName};
pub use places::{Origin, Places, demo_candidates};
pub use projectors::{is_projector_name, projector_beside};
pub use show::{Show, parameter_lines};
pub use unusable::Unusable;

use std::path::{Path, PathBuf};

use cache::FactCache;
use gather::{Found, Gathered, Source};
use layout::Layout;

/// The models of this machine.
pub struct Store {
    places: Places,
    given: Vec<PathBuf>,
    /// The projector of the files that were given, where one was given too.
    given_projector: Option<PathBuf>,
    cache: FactCache,
}

/// All models, and all that seem to be models and cannot be used.
#[derive(Debug, Default)]
pub struct Listing {
    /// The newest first.
    pub models: Vec<ModelEntry>,
    /// With the reasons.
    pub skipped: Vec<Skipped>,
}

impl Store {
    /// The store as the environment describes it. Opens nothing yet.
    #[must_use]
    pub fn of_environment() -> Self {
        Self::new(Places::of_environment())
    }

    /// A store of these folders.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let cache = FactCache::new(places.cache.clone());
        Self { places, given: Vec::new(), given_projector: None, cache }
    }

    /// Also knows these files, under the names of the files (`/models/Mixtral.gguf` is `Mixtral:latest`), before all others.
    #[must_use]
    pub fn with_files(mut self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        self.given.extend(files);
        self
    }

    /// The files that were given see by this projector, and by no other.
    #[must_use]
    pub fn with_projector(mut self, projector: Option<PathBuf>) -> Self {
        self.given_projector = projector;
        self
    }

    fn gathered(&self) -> Gathered {
        let mut all = Gathered::from(&self.places, &self.given);
        if let Some(projector) = &self.given_projector {
            let given = all.found.iter_mut().filter(|found| found.origin == Origin::Given);
            given.for_each(|found| found.projector = Some(projector.clone()));
        }
        all
    }

    /// The folders.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Every model of every place.
    #[must_use]
    pub fn list(&self) -> Listing {
        let Gathered { found, skipped } = self.gathered();
        let mut listing = Listing { models: Vec::new(), skipped };
        for found in found {
            match ModelEntry::open(&found, &self.cache) {
                Ok(entry) => listing.models.push(entry),
                Err(why) => {
                    listing.skipped.push(Skipped { origin: found.origin, path: path_of(&found), why });
                }
            }
        }
        self.cache.keep();
        listing
            .models
            .sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.name.key().cmp(&b.name.key())));
        listing
    }

    /// The model that a request names, in whatever case. Of `hf.co/org/repo` without a quantisation it is Q4_K_M, or the
    /// first there is.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::NotFound`] (with the name as given), [`StoreError::Broken`].
    pub fn resolve(&self, text: &str) -> Result<ModelEntry, StoreError> {
        let (name, locality) = ModelName::parse_request(text)?;
        if locality == Locality::Cloud {
            // A name may end so and still be a file of ours; only what is nowhere is in the cloud.
            let name = ModelName::parse(text)?;
            return self.resolve_name(&name, text);
        }
        self.resolve_name(&name, text)
    }

    /// The model of this name; `text` is how the request spelled it, for the error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Broken`].
    pub fn resolve_name(&self, name: &ModelName, text: &str) -> Result<ModelEntry, StoreError> {
        let found = self.find(name).ok_or_else(|| StoreError::NotFound(text.to_owned()))?;
        let entry = ModelEntry::open(&found, &self.cache).map_err(entry::broken(&found.name))?;
        self.cache.keep();
        Ok(entry)
    }

    /// What `show` tells of a model. `verbose` reads its header again, which takes a while for large vocabularies.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn show(&self, text: &str, verbose: bool) -> Result<Show, StoreError> {
        Show::of(&self.resolve(text)?, verbose)
    }

    /// The tensors of a model. Reads its header again.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn tensors(&self, text: &str) -> Result<Vec<TensorRow>, StoreError> {
        show::tensors_of(&self.resolve(text)?)
    }

    /// The digest by which lists know the model in a GGUF file that was given ([`Facts::digest`]).
    ///
    /// # Errors
    /// When it is no model.
    pub fn file_digest(&self, file: &Path) -> Result<String, StoreError> {
        let bad = |why: Unusable| StoreError::BadRequest(format!("{}: {why}", files::shown_name(file)));
        let files = shards_of(file).map_err(bad)?;
        let facts = self.cache.facts(&files).map_err(|error| bad(error.into()))?;
        self.cache.keep();
        Ok(facts.digest.clone())
    }

    /// The file to load a model from. Its other shards lie beside it under their usual names, which for shards that are
    /// blobs takes a folder of links in our store.
    ///
    /// # Errors
    /// When those links cannot be made.
    pub fn open_path(&self, entry: &ModelEntry) -> Result<PathBuf, StoreError> {
        edit::open_path(self.places.own.as_deref(), entry)
    }

    fn find(&self, name: &ModelName) -> Option<Found> {
        if let Some(found) = self.find_manifest(name) {
            return Some(found);
        }
        let mut all = self.gathered().found;
        if let Some(at) = all.iter().position(|found| found.name == *name) {
            return Some(all.swap_remove(at));
        }
        if !name.tag().eq_ignore_ascii_case(DEFAULT_TAG)
            || !is_hugging_face(name.host()) && !has_publisher(name)
        {
            return find_mirror(all, name);
        }
        // Ollama and llama.cpp take this one, too.
        let same = |found: &Found| same_repository(&found.name, name);
        let best =
            all.iter().position(|found| same(found) && found.name.tag().eq_ignore_ascii_case("Q4_K_M"));
        let at = best.or_else(|| all.iter().position(same))?;
        Some(all.swap_remove(at))
    }

    /// The quick way for most names: a manifest of our own store, if no given file has the name.
    fn find_manifest(&self, name: &ModelName) -> Option<Found> {
        if !self.given.is_empty() {
            return None;
        }
        let layouts = self.places.own.iter().map(|own| (Origin::Own, own));
        let layouts = layouts.chain(self.places.ollama.iter().map(|folder| (Origin::Ollama, folder)));
        for (origin, folder) in layouts {
            let layout = Layout::new(folder);
            if let Some(path) = layout.find(name) {
                let name = name_of_manifest(&path).unwrap_or_else(|| name.clone());
                let source = Source::Manifest(layout, path);
                return Some(Found { name, origin, source, projector: None });
            }
        }
        None
    }

    fn own(&self) -> Result<Layout, StoreError> {
        self.places.own.as_ref().map(Layout::new).ok_or(StoreError::NoHome)
    }
}

/// A name as its manifest spells it.
fn name_of_manifest(path: &Path) -> Option<ModelName> {
    let mut parts: Vec<&str> = path.iter().rev().take(4).map_while(|part| part.to_str()).collect();
    parts.reverse();
    let [host, namespace, model, tag] = parts.as_slice() else { return None };
    ModelName::parse(&format!("{host}/{namespace}/{model}:{tag}")).ok()
}

fn path_of(found: &Found) -> PathBuf {
    match &found.source {
        Source::Manifest(_, path) => path.clone(),
        Source::Files(files) => files.first().cloned().unwrap_or_default(),
    }
}

fn is_hugging_face(host: &str) -> bool {
    ["hf.co", "huggingface.co"].iter().any(|known| known.eq_ignore_ascii_case(host))
}

fn has_publisher(name: &ModelName) -> bool {
    name.host().eq_ignore_ascii_case(DEFAULT_HOST)
        && !name.namespace().eq_ignore_ascii_case(DEFAULT_NAMESPACE)
}

fn same_repository(a: &ModelName, b: &ModelName) -> bool {
    let hosts =
        a.host().eq_ignore_ascii_case(b.host()) || is_hugging_face(a.host()) && is_hugging_face(b.host());
    hosts && a.namespace().eq_ignore_ascii_case(b.namespace()) && a.model().eq_ignore_ascii_case(b.model())
}

/// The same repository under Hugging Face's other name.
fn find_mirror(mut all: Vec<Found>, name: &ModelName) -> Option<Found> {
    let same = |found: &Found| {
        is_hugging_face(name.host())
            && same_repository(&found.name, name)
            && found.name.tag().eq_ignore_ascii_case(name.tag())
    };
    let at = all.iter().position(same)?;
    Some(all.swap_remove(at))
}
