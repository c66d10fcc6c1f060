//! The store: lists, and looks models up by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::FactCache;
use crate::entry::{self, ModelEntry};
use crate::fetch::Network;
use crate::gather::{Found, Gathered, Skipped, Source, shards_of};
use crate::layout::Layout;
use crate::name::{Locality, ModelName};
use crate::places::{Origin, Places};
use crate::pull::PullSettings;
use crate::show::Show;
use crate::unusable::Unusable;
use crate::{StoreError, files, shards};

/// The models of this machine.
pub struct Store {
    pub(crate) places: Places,
    pub(crate) given: Vec<PathBuf>,
    /// The projector of the files that were given, where one was given too.
    given_projector: Option<PathBuf>,
    cache: FactCache,
    pub(crate) network: Arc<Network>,
    pub(crate) pull_settings: Arc<PullSettings>,
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
        Self {
            places,
            given: Vec::new(),
            given_projector: None,
            cache,
            network: Arc::new(Network::of_environment()),
            pull_settings: Arc::default(),
        }
    }

    /// Asks these endpoints instead of those of the environment.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = Arc::new(network);
        self
    }

    /// Pulls like this.
    #[must_use]
    pub fn with_pull_settings(mut self, settings: PullSettings) -> Self {
        self.pull_settings = Arc::new(settings);
        self
    }

    /// Also knows these files, under the names of the files (`/models/Mixtral.gguf` is `Mixtral:latest`),
    /// before all others.
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

    pub(crate) fn gathered(&self) -> Gathered {
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

    /// The model that a request names, in whatever case. Of `hf.co/org/repo` without a quantisation it is
    /// Q4_K_M, or the first there is.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::NotFound`] (with the name as given),
    /// [`StoreError::Broken`].
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

    /// What `show` tells of a model. `verbose` reads its header again, which takes a while for large
    /// vocabularies.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn show(&self, text: &str, verbose: bool) -> Result<Show, StoreError> {
        Show::of(&self.resolve(text)?, verbose)
    }

    /// The digest by which lists know the model in a GGUF file that was given ([`crate::Facts::digest`]).
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

    /// The file to load a model from. Its other shards lie beside it under their usual names, which for
    /// shards that are blobs takes a folder of links in our store.
    ///
    /// # Errors
    /// When those links cannot be made.
    pub fn open_path(&self, entry: &ModelEntry) -> Result<PathBuf, StoreError> {
        shards::open_path(self.places.own.as_deref(), entry)
    }

    pub(crate) fn own(&self) -> Result<Layout, StoreError> {
        self.places.own.as_ref().map(Layout::new).ok_or(StoreError::NoHome)
    }
}

fn path_of(found: &Found) -> PathBuf {
    match &found.source {
        Source::Manifest(_, path) => path.clone(),
        Source::Files(files) => files.first().cloned().unwrap_or_default(),
    }
}
