//! Models that flags name: a file, `demo`, or a model of the store.

use anyhow::Context as _;
use hypura_engine::load::{Drafting, LoadSettings};
use hypura_store::fetch::RemoteName;
use hypura_store::{ModelEntry, ModelName, Store, StoreError, demo_candidates, projector_beside};
use std::path::{Path, PathBuf};

/// The word that stands for the model that comes with the program.
const DEMO: &str = "demo";
/// The file of the model that drafts for it.
const DEMO_DRAFT: &str = "demo-draft-Q8_0.gguf";

/// A model that was named.
#[derive(Clone, Debug)]
pub struct NamedModel {
    /// The file to open.
    pub path: PathBuf,
    /// What the store says of it, if it was named as a model of the store.
    pub entry: Option<ModelEntry>,
    /// Its projector for images and sounds, if it has one.
    pub projector: Option<PathBuf>,
}

impl NamedModel {
    /// The context that the model was made with (`PARAMETER num_ctx`). A negative one means "no limit".
    #[must_use]
    pub fn context_tokens(&self) -> Option<u32> {
        whole_parameter(self.entry.as_ref()?, "num_ctx")
    }

    /// Has the draft model that this one was made with draft for it, unless flags say who does.
    pub fn add_draft(&self, settings: &mut LoadSettings) {
        let draft = self.entry.as_ref().and_then(|entry| entry.draft.clone());
        let speculation = &mut settings.tuning.speculation;
        if settings.model.draft.is_none() && draft.is_some() && speculation.drafting != Drafting::Off {
            (settings.model.draft, settings.model.draft_is_optional) = (draft, true);
            if speculation.drafting == Drafting::Requested {
                speculation.drafting = Drafting::Auto;
            }
        }
    }

    /// A file, `demo`, or a model of the store.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::cli) fn find(model: &Path) -> anyhow::Result<Self> {
        if model == Path::new(DEMO) {
            return Ok(Self { path: demo()?, entry: None, projector: None });
        }
        let as_file = || {
            let projector = projector_beside(model);
            Self { path: model.to_owned(), entry: None, projector }
        };
        let Some(name) = model.to_str().filter(|_| !model.exists()) else { return Ok(as_file()) };
        // What was pulled by such a name has another one here.
        let elsewhere = RemoteName::parse(name).ok().filter(|_| RemoteName::is_explicit(name));
        let name = elsewhere.map_or_else(|| name.to_owned(), |elsewhere| elsewhere.local_name());
        let name = name.as_str();
        let is_path =
            name.ends_with(".gguf") || name.starts_with(['.', '/', '~']) || ModelName::parse(name).is_err();
        if is_path {
            // Opening it says what is wrong with it.
            return Ok(as_file());
        }
        let store = Store::of_environment();
        match store.resolve(name) {
            Ok(entry) => {
                let projector = entry.usable_projector().cloned();
                Ok(Self { path: store.open_path(&entry)?, entry: Some(entry), projector })
            }
            Err(StoreError::NotFound(_)) => anyhow::bail!(
                "there is no model and no file called {name}: `hypura list` shows the models of this machine"
            ),
            Err(error) => Err(error.into()),
        }
    }
}

/// A parameter of a model that counts something, if it counts at least one.
pub(in crate::cli) fn whole_parameter(entry: &ModelEntry, key: &str) -> Option<u32> {
    let number = entry.settings.parameters.get(key)?.as_f64()?;
    (number >= 1.0 && number <= f64::from(u32::MAX)).then_some(number as u32)
}

/// The model that drafts for the demo model, beside it.
///
/// # Errors
/// As for the demo model.
pub(super) fn demo_draft() -> anyhow::Result<PathBuf> {
    Ok(demo()?.with_file_name(DEMO_DRAFT))
}

fn demo() -> anyhow::Result<PathBuf> {
    let candidates = demo_candidates();
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.with_context(|| {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "the demo model is not where this program looks for it ({}): name its file or folder in HYPURA_DEMO, or \
             name a GGUF file instead of `demo`",
            tried.join(", ")
        )
    })
}
