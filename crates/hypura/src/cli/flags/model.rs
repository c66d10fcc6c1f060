//! Flags that say which model, shared by every subcommand about one.

use anyhow::Context as _;
use hypura_engine::load::LoadSettings;
use std::path::{Path, PathBuf};

use super::environment::Env;
use super::load::LoadFlags;
use super::resolve::{Flags, resolve};
use super::size::MemorySize;
use hypura_store::fetch::RemoteName;
use hypura_store::{ModelEntry, ModelName, Store, StoreError, demo_candidates, projector_beside};

/// The word that stands for the model that comes with the program.
const DEMO: &str = "demo";

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
}

/// A parameter of a model that counts something, if it counts at least one.
pub(in crate::cli) fn whole_parameter(entry: &ModelEntry, key: &str) -> Option<u32> {
    let number = entry.settings.parameters.get(key)?.as_f64()?;
    (number >= 1.0 && number <= f64::from(u32::MAX)).then_some(number as u32)
}

/// Which model, and how to load it.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelFlags {
    /// A GGUF file (of several shards: any of them), the name of a model (see `hypura list`), or `demo`
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Memory that may be used in all: 8GiB, 512MiB, 60% of the machine [default: what is free, less
    /// headroom]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub memory: Option<MemorySize>,

    /// Tokens that the model can remember, never more than it was trained for [default: 4096, or more where
    /// that takes little memory]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Model")]
    pub ctx: Option<u32>,

    /// Projector with which the model sees images and hears sounds [default: the model's own, or the one
    /// beside its file]
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub mmproj: Option<PathBuf>,

    #[command(flatten)]
    load: LoadFlags,
}

impl ModelFlags {
    /// A model by name, to be loaded as by default.
    #[must_use]
    pub fn named(model: PathBuf, memory: Option<MemorySize>, ctx: Option<u32>) -> Self {
        Self { model, memory, ctx, mmproj: None, load: LoadFlags::default() }
    }

    /// The model that is named: a file, `demo`, or a model of the store.
    ///
    /// # Errors
    /// When there is neither.
    pub fn find(&self) -> anyhow::Result<NamedModel> {
        let mut named = self.find_model()?;
        if self.mmproj.is_some() {
            named.projector.clone_from(&self.mmproj);
        }
        Ok(named)
    }

    fn find_model(&self) -> anyhow::Result<NamedModel> {
        if self.model == Path::new(DEMO) {
            return Ok(NamedModel { path: demo()?, entry: None, projector: None });
        }
        let as_file = || {
            let projector = projector_beside(&self.model);
            NamedModel { path: self.model.clone(), entry: None, projector }
        };
        let Some(name) = self.model.to_str().filter(|_| !self.model.exists()) else { return Ok(as_file()) };
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
                Ok(NamedModel { path: store.open_path(&entry)?, entry: Some(entry), projector })
            }
            Err(StoreError::NotFound(_)) => anyhow::bail!(
                "there is no model and no file called {name}: `hypura list` shows the models of this machine"
            ),
            Err(error) => Err(error.into()),
        }
    }

    /// The file to open.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.find()?.path)
    }

    /// Whether nothing is asked for that only a model of one's own can give: then one that a server has
    /// loaded will do.
    pub(in crate::cli) fn suits_a_server(&self) -> bool {
        self.memory.is_none() && self.mmproj.is_none() && self.load == LoadFlags::default()
    }

    /// Whether nobody said what to compute on, neither by flag nor by variable.
    pub(in crate::cli) fn leaves_the_device_open(&self, env: &Env) -> bool {
        self.load.device.is_open(env)
    }

    /// The context that the model was made with, unless `--ctx` says otherwise.
    pub(in crate::cli) fn settle_context(&self, settings: &mut LoadSettings, of_model: Option<u32>) {
        if let (None, Some(context)) = (self.ctx, of_model) {
            (settings.model.context, settings.model.context_may_grow) = (context, false);
        }
    }

    /// How to load it.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn settings(&self, env: &Env) -> anyhow::Result<LoadSettings> {
        let (context, projector) = (self.ctx, self.mmproj.clone());
        resolve(&Flags { memory: self.memory, context, projector, load: &self.load }, env)
    }
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
