//! A catalogue of models without files, for the scripted engine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hypura_server::Failure;
use hypura_server::models::{Catalog, LookupError};
use hypura_store::{Capability, Facts, ModelEntry, ModelName, ModelSettings, Origin, Show, Store};

/// A catalogue that tests fill.
#[derive(Default)]
pub struct FakeCatalog {
    pub models: Mutex<Vec<Arc<ModelEntry>>>,
    pub store: Option<Arc<Store>>,
}

impl Catalog for FakeCatalog {
    fn resolve(&self, name: &str) -> Result<Arc<ModelEntry>, LookupError> {
        let name = ModelName::parse(name).map_err(|_| LookupError::Invalid)?;
        let models = self.models.lock().unwrap();
        let found = models.iter().find(|model| model.name == name);
        found.cloned().ok_or(LookupError::NotInstalled)
    }

    fn list(&self) -> Vec<Arc<ModelEntry>> {
        self.models.lock().unwrap().clone()
    }

    fn show(&self, entry: &ModelEntry, _: bool) -> Result<Show, Failure> {
        let model_info = serde_json::json!({"general.architecture": "fake", "fake.context_length": 4096});
        let show = Show::of(entry, false).map_err(|error| Failure::internal(error.to_string()))?;
        let model_info = model_info.as_object().unwrap().clone();
        Ok(Show { modelfile: String::new(), model_info, ..show })
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.store.clone()
    }
}

/// A model that can everything but see and hear.
pub fn entry(name: &str) -> ModelEntry {
    able(name, &[Capability::Completion, Capability::Tools, Capability::Insert, Capability::Thinking])
}

/// The model `m` for which this was set.
pub fn set(settings: ModelSettings) -> ModelEntry {
    ModelEntry { settings, ..entry("m") }
}

/// A model with these capabilities.
pub fn able(name: &str, capabilities: &[Capability]) -> ModelEntry {
    let facts = Facts {
        digest: "ab".repeat(32),
        architecture: "fake".into(),
        parameters: 1_000_000_000,
        quantization: "Q4_K_M".into(),
        context_length: Some(4096),
        embedding_length: None,
        template: None,
        capabilities: capabilities.to_vec(),
        model_info: serde_json::Map::new(),
        is_projector: false,
    };
    ModelEntry {
        name: ModelName::parse(name).unwrap(),
        origin: Origin::Own,
        files: vec![format!("/secret/place/{name}.gguf").into()],
        projector: None,
        projector_facts: None,
        draft: None,
        weights: name.to_owned(),
        digest: facts.digest.clone(),
        size: 1234,
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        parent: String::new(),
        settings: ModelSettings::default(),
        facts: Arc::new(facts),
    }
}
