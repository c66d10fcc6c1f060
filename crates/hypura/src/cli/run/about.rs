//! What a chat shows of a model that is loaded here, and keeps of it under another name: by the store,
//! without a server.

use anyhow::Context as _;
use hypura_store::{CreateRequest, Message, Show, Store};
use std::path::PathBuf;

use super::chat::{ChatSettings, Part};
use crate::cli::flags::NamedModel;
use crate::cli::models::{make_model, summary};

/// A model of this machine.
#[derive(Debug)]
pub(super) struct About {
    path: PathBuf,
    /// Its name in the store; files that are in none have no name.
    name: Option<String>,
}

impl About {
    pub fn of(named: &NamedModel) -> Self {
        let name = named.entry.as_ref().map(|entry| entry.name.to_string());
        Self { path: named.path.clone(), name }
    }

    /// What is known of it.
    ///
    /// # Errors
    /// When the file is gone, or broken.
    pub fn shown(&self, part: Part) -> anyhow::Result<String> {
        let show = self.found()?;
        Ok(match part {
            Part::Info => {
                let all = serde_json::to_value(&show).context("cannot write what is known of the model")?;
                summary(&all, false)
            }
            Part::License => show.license,
            Part::Modelfile => show.modelfile,
            Part::Parameters => show.parameters,
            Part::System => show.system,
            Part::Template => show.template,
        })
    }

    fn found(&self) -> anyhow::Result<Show> {
        let store = Store::of_environment();
        if let Some(name) = &self.name {
            return Ok(store.show(name, false)?);
        }
        let store = store.with_files([self.path.clone()]);
        let digest = store.file_digest(&self.path)?;
        let entry = store.list().models.into_iter().find(|entry| entry.digest == digest);
        let entry = entry.with_context(|| format!("{} cannot be read as a model", self.path.display()))?;
        Ok(Show::of(&entry, false)?)
    }

    /// Makes a model of it with these settings, which begins with what was said.
    ///
    /// # Errors
    /// What is wrong with the name, or with the store.
    pub fn save(&self, name: &str, messages: Vec<Message>, settings: &ChatSettings) -> anyhow::Result<()> {
        let request = CreateRequest {
            model: Some(name.to_owned()),
            from: self.name.clone(),
            file: self.name.is_none().then(|| self.path.clone()),
            system: settings.system.clone(),
            parameters: Some(settings.parameters.clone()).filter(|all| !all.is_empty()),
            messages: Some(messages).filter(|all| !all.is_empty()),
            ..CreateRequest::default()
        };
        make_model(&request)
    }
}
