//! Flags that say which model, shared by every subcommand about one.

use hypura_engine::load::LoadSettings;
use std::path::PathBuf;

use super::environment::Env;
use super::load::LoadFlags;
use super::named::NamedModel;
use super::resolve::{Flags, resolve};
use super::size::MemorySize;

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
        let mut named = NamedModel::find(&self.model)?;
        if self.mmproj.is_some() {
            named.projector.clone_from(&self.mmproj);
        }
        Ok(named)
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
