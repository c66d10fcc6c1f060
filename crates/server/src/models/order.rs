//! What loading a model takes, as plain data: it is sent to the process that does it.

use hypura_core::profile::Profile;
use hypura_engine::load::LoadSettings;
use hypura_engine::serve::RunnerSettings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All that loading a model takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOrder {
    /// The model's name, for messages.
    pub model: String,
    /// Its file, or the first of its shards.
    pub path: PathBuf,
    /// How to load it, budget included.
    pub settings: LoadSettings,
    /// How it is to serve; the memory that it may ask more of is where the order comes from.
    pub runner: RunnerSettings,
    /// Whether its own chat template would be used.
    pub needs_template: bool,
    /// What is known of this machine, for predictions, as JSON: the codec of messages bears no field that is
    /// left out where it is absent.
    pub profile: Option<String>,
}

impl LoadOrder {
    /// What is known of this machine.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        serde_json::from_str(self.profile.as_deref()?).ok()
    }
}
