//! A model of the store: what it is, where its files are, and what was said about it when it was made.

use serde::Serialize;
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::StoreError;
use super::cache::FactCache;
use super::facts::{Capability, Facts, template_capabilities};
use super::gather::{Found, Source};
use super::go_template::GoTemplate;
use super::layout::{Layer, Layout, Manifest};
use super::name::ModelName;
use super::places::Origin;
use super::settings::ModelSettings;
use super::unusable::Unusable;

/// The language of a chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateLanguage {
    /// As in GGUF files.
    Jinja,
    /// As in Ollama's models.
    Go,
}

/// What lists show of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The model it was made from.
    pub parent_model: String,
    /// `gguf`
    pub format: String,
    /// The architecture.
    pub family: String,
    /// The same in a list.
    pub families: Vec<String>,
    /// Parameters for people: `8.0B`.
    pub parameter_size: String,
    /// `Q4_K_M`
    pub quantization_level: String,
    /// Longest context it was trained for, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Length of its hidden vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
}

/// A model.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// Its name.
    pub name: ModelName,
    /// Whose store it is in.
    pub origin: Origin,
    /// Its GGUF files: all shards in order. Use [`super::Store::open_path`] to open them.
    pub files: Vec<PathBuf>,
    /// The projector for images and sounds, if it has one.
    pub projector: Option<PathBuf>,
    /// What its header says; `None` where it cannot be read.
    pub projector_facts: Option<Arc<Facts>>,
    /// The model that drafts for it, if one was given.
    pub draft: Option<PathBuf>,
    /// Place, size and time of the files of weights: two models with the same text have the same ones, and
    /// what is loaded for one serves the other.
    pub weights: String,
    /// 64 hexadecimal digits: of the manifest, or of headers and sizes ([`Facts::digest`]).
    pub digest: String,
    /// Bytes of everything that belongs to it.
    pub size: u64,
    /// When it was made.
    pub modified: SystemTime,
    /// The model it was made from, if that is known.
    pub parent: String,
    /// What was set for it when it was made.
    pub settings: ModelSettings,
    /// What its header says.
    pub facts: Arc<Facts>,
}

impl ModelEntry {
    /// What lists show of it.
    #[must_use]
    pub fn details(&self) -> Details {
        Details {
            parent_model: self.parent.clone(),
            format: "gguf".to_owned(),
            family: self.facts.architecture.clone(),
            families: self.facts.families(self.projector.is_some()),
            parameter_size: self.facts.parameter_size(),
            quantization_level: self.facts.quantization.clone(),
            context_length: self.facts.context_length,
            embedding_length: self.facts.embedding_length,
        }
    }

    /// What it can do, without loading it: as the template says that will be used, so that nothing is
    /// promised that only a template in another language could do.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut all = self.facts.capabilities.clone();
        if let Some(facts) = &self.projector_facts {
            all.extend(facts.takes_images().then_some(Capability::Vision));
            all.extend(facts.takes_sounds().then_some(Capability::Audio));
            all.sort_unstable();
        }
        if let Some(own) = self.capabilities_of_own_template() {
            all.retain(|capability| !matches!(capability, Capability::Tools | Capability::Thinking));
            all.extend(own);
            all.sort_unstable();
        }
        all
    }

    /// The projector, if it is one for pictures or sounds in prompts.
    #[must_use]
    pub fn usable_projector(&self) -> Option<&PathBuf> {
        let facts = self.projector_facts.as_ref();
        let is_of_use = facts.is_some_and(|facts| facts.takes_images() || facts.takes_sounds());
        self.projector.as_ref().filter(|_| is_of_use)
    }

    /// The template of the manifest in Jinja, where it replaces that of the GGUF.
    #[must_use]
    pub fn own_jinja(&self) -> Option<Cow<'_, str>> {
        Some(match self.own_template()? {
            OwnTemplate::Jinja(template) => Cow::Borrowed(template),
            OwnTemplate::Go(template) => Cow::Owned(template.jinja),
        })
    }

    /// The template of the manifest, where it replaces that of the GGUF: one in Go's language does where it
    /// was given when the model was made here, and where the GGUF has none.
    fn own_template(&self) -> Option<OwnTemplate<'_>> {
        let template = self.settings.template.as_deref()?;
        if template_language(template) == TemplateLanguage::Jinja {
            return Some(OwnTemplate::Jinja(template));
        }
        let alone = self.facts.template.as_ref().is_none_or(String::is_empty);
        let counts = self.settings.template_is_own || alone;
        // One that cannot be read came with a model that was made elsewhere.
        GoTemplate::parse(template).ok().filter(|_| counts).map(OwnTemplate::Go)
    }

    fn capabilities_of_own_template(&self) -> Option<Vec<Capability>> {
        Some(match self.own_template()? {
            OwnTemplate::Jinja(template) => template_capabilities(template, &self.facts.architecture),
            OwnTemplate::Go(GoTemplate { takes_tools, shows_thinking, .. }) => {
                let found = [(takes_tools, Capability::Tools), (shows_thinking, Capability::Thinking)];
                found.into_iter().filter_map(|(has, capability)| has.then_some(capability)).collect()
            }
        })
    }

    /// The template that conversations are written with, in its own language: that of the manifest, or that
    /// of the GGUF. `None`: neither is there, and llama.cpp assumes `ChatML`.
    #[must_use]
    pub fn used_template(&self) -> Option<&str> {
        let own = self.settings.template.as_deref().filter(|_| self.own_template().is_some());
        own.or(self.facts.template.as_deref())
    }

    /// Whether it has this capability.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities().contains(&capability)
    }

    /// Whether two models are the same weights.
    #[must_use]
    pub fn same_weights(&self, other: &Self) -> bool {
        self.weights == other.weights
    }

    pub(super) fn open(found: &Found, cache: &FactCache) -> Result<Self, Unusable> {
        let mut entry = Self::read(found, cache)?;
        if let Some(projector) = &entry.projector {
            entry.projector_facts =
                cache.facts(std::slice::from_ref(projector)).ok().filter(|facts| facts.is_projector);
        }
        let loaded = entry.files.iter().chain(entry.usable_projector()).chain(&entry.draft);
        entry.weights = loaded.map(|file| stamp(file)).collect::<Vec<_>>().join("\n");
        Ok(entry)
    }

    fn read(found: &Found, cache: &FactCache) -> Result<Self, Unusable> {
        match &found.source {
            Source::Files(files) => {
                let mut entry = Self::of_files(found, files, cache)?;
                let about = found.projector.as_ref().and_then(|path| fs::metadata(path).ok());
                entry.size += about.map_or(0, |about| about.len());
                entry.projector.clone_from(&found.projector);
                Ok(entry)
            }
            Source::Manifest(layout, path) => {
                let (manifest, digest) = Layout::read(path).map_err(Unusable::Manifest)?;
                let modified = fs::metadata(path).and_then(|about| about.modified()).unwrap_or(UNIX_EPOCH);
                let mut entry = Self::of_manifest(found, layout, &manifest, cache)?;
                entry.digest = digest.hex().to_owned();
                entry.modified = modified;
                Ok(entry)
            }
        }
    }

    fn of_files(found: &Found, files: &[PathBuf], cache: &FactCache) -> Result<Self, Unusable> {
        let facts = cache.facts(files)?;
        if facts.is_projector {
            return Err(Unusable::Projector);
        }
        let about: Vec<_> = files.iter().filter_map(|file| fs::metadata(file).ok()).collect();
        let size = about.iter().map(fs::Metadata::len).sum();
        let modified = about.iter().filter_map(|about| about.modified().ok()).max().unwrap_or(UNIX_EPOCH);
        Ok(Self {
            name: found.name.clone(),
            origin: found.origin,
            files: files.to_vec(),
            projector: None,
            projector_facts: None,
            draft: None,
            weights: String::new(),
            digest: facts.digest.clone(),
            size,
            modified,
            parent: String::new(),
            settings: ModelSettings::default(),
            facts,
        })
    }

    fn of_manifest(
        found: &Found,
        layout: &Layout,
        manifest: &Manifest,
        cache: &FactCache,
    ) -> Result<Self, Unusable> {
        let config = layout.config(manifest);
        if config.remote_host.is_some() || config.remote_model.is_some() {
            return Err(Unusable::Remote);
        }
        let files = model_files(layout, manifest)?;
        let mut entry = Self::of_files(found, &files, cache)?;
        entry.size =
            manifest.layers.iter().fold(manifest.config.size, |sum, layer| sum.saturating_add(layer.size));
        for layer in &manifest.layers {
            match layer.kind() {
                "model" => entry.parent = layer.from.clone().unwrap_or_default(),
                "projector" => entry.projector = Some(layout.layer_file(layer)?),
                "draft" => entry.draft = Some(layout.layer_file(layer)?),
                // Without it the answers would be those of the base model.
                "adapter" => return Err(Unusable::Adapter),
                _ => {}
            }
        }
        entry.settings = ModelSettings::of_layers(layout, &manifest.layers, config)?;
        Ok(entry)
    }
}

/// Place, size and time of change of a file.
fn stamp(path: &Path) -> String {
    let about = fs::metadata(path).ok();
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let bytes = about.as_ref().map_or(0, fs::Metadata::len);
    let changed =
        about.and_then(|about| about.modified().ok()).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{}\n{bytes}\n{}", place.display(), changed.map_or(0, |time| time.as_nanos()))
}

/// The GGUF files of a manifest: one, or the shards in the order of the layers.
fn model_files(layout: &Layout, manifest: &Manifest) -> Result<Vec<PathBuf>, Unusable> {
    let models: Vec<&Layer> = manifest.layers.iter().filter(|layer| layer.kind() == "model").collect();
    if models.is_empty() {
        let mlx = manifest.layers.iter().any(|layer| matches!(layer.kind(), "tensor" | "json"));
        return Err(if mlx { Unusable::Safetensors } else { Unusable::NoWeights });
    }
    models.into_iter().map(|layer| layout.layer_file(layer)).collect()
}

/// A template that replaces that of the GGUF.
enum OwnTemplate<'a> {
    Jinja(&'a str),
    Go(GoTemplate),
}

/// Which language a template is written in: Go's names begin with a dot, are keywords or functions in front
/// of such names, or hold comments; Jinja has statements.
#[must_use]
pub fn template_language(template: &str) -> TemplateLanguage {
    let is_go = template.split("{{").skip(1).any(|inner| {
        let inner = inner.trim_start_matches('-').trim_start();
        let word: String = inner.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let argument = inner.get(word.len()..).unwrap_or_default().trim_start();
        inner.starts_with(['.', '$'])
            || inner.starts_with("/*")
            || argument.starts_with('$')
            || argument.strip_prefix('.').is_some_and(|name| name.starts_with(char::is_uppercase))
            || matches!(word.as_str(), "if" | "range" | "end" | "else" | "with" | "block" | "define")
    });
    if is_go && !template.contains("{%") { TemplateLanguage::Go } else { TemplateLanguage::Jinja }
}

/// Turns a reason into an error about a name.
pub(super) fn broken(name: &ModelName) -> impl FnOnce(Unusable) -> StoreError {
    let name = name.to_string();
    move |why| StoreError::Broken { name, why: Box::new(why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_a_template_is_seen() {
        for (template, language) in [
            ("{{ .Prompt }}", TemplateLanguage::Go),
            ("{{- if .System }}x{{ end }}", TemplateLanguage::Go),
            ("{{- range $i, $m := .Messages }}{{ end }}", TemplateLanguage::Go),
            ("{{ html .Prompt }}", TemplateLanguage::Go),
            ("{{- /* nothing */}}x", TemplateLanguage::Go),
            ("{{ json $ }}", TemplateLanguage::Go),
            ("{{ bos_token }}{{ m.content }}", TemplateLanguage::Jinja),
            ("{% for m in messages %}{{ m.content }}{% endfor %}", TemplateLanguage::Jinja),
            ("{{ messages[0].content }}", TemplateLanguage::Jinja),
            ("{%- if tools %}{{ '.Tools' }}{% endif %}", TemplateLanguage::Jinja),
            ("plain", TemplateLanguage::Jinja),
        ] {
            assert_eq!(template_language(template), language, "{template}");
        }
    }
}
