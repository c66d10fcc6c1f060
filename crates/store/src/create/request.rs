//! What is asked for when a model is made, and what is refused at once.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::quantizer::Quantizer;
use crate::StoreError;
use crate::settings::{Message, ModelSettings};

/// The body of `/api/create`. `null` is as good as absent, and unknown keys are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the API")]
pub struct CreateRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The older word for `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// File names and digests of blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapters: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<String>,
    /// The older word for `quantize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// The file name and digest of a draft model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_files: Option<BTreeMap<String, String>>,
    /// Its type; refused: a draft model is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_quantize: Option<String>,
    /// What a model without a header of its own would use; refused too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// A GGUF file to use instead of `from` and `files`. Only for callers on this machine: it is no part of
    /// the body.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The GGUF file of a draft model, in place of `draft_files`; for the same callers.
    #[serde(skip)]
    pub draft_file: Option<PathBuf>,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl CreateRequest {
    /// Asks for these settings and for nothing else.
    #[must_use]
    pub fn with_settings(settings: ModelSettings) -> Self {
        let ModelSettings {
            template,
            system,
            parameters,
            messages,
            licenses,
            renderer,
            parser,
            requires,
            ..
        } = settings;
        Self {
            template,
            system,
            license: Some(Texts::Many(licenses)).filter(|texts| *texts != Texts::Many(Vec::new())),
            parameters: Some(parameters).filter(|all| !all.is_empty()),
            messages: Some(messages).filter(|all| !all.is_empty()),
            renderer,
            parser,
            requires,
            ..Self::default()
        }
    }

    /// The type that the weights are to have, if another one is asked for.
    #[must_use]
    pub fn quantization(&self) -> Option<&str> {
        self.quantize.as_deref().or(self.quantization.as_deref()).filter(|kind| !kind.is_empty())
    }

    /// Refuses what this program cannot do, with a way out.
    pub(super) fn refuse_unsupported(&self, quantizer: Option<&dyn Quantizer>) -> Result<(), StoreError> {
        let asked = self.quantization().unwrap_or_default();
        let quantize = match quantizer {
            Some(quantizer) if quantizer.knows(asked) => "",
            _ => asked,
        };
        let adapters = self.adapters.as_ref().map_or(0, BTreeMap::len);
        if self.draft_quantize.as_deref().is_some_and(|kind| !kind.is_empty()) {
            let why = "draft_quantize is not supported: give a draft model that is quantized already";
            return Err(StoreError::BadRequest(why.to_owned()));
        }
        if self.info.as_ref().is_some_and(|info| !info.is_empty()) {
            let why = "info is not supported: what a model is stands in the header of its GGUF";
            return Err(StoreError::BadRequest(why.to_owned()));
        }
        let why = match (quantize, adapters) {
            ("", 0) => return Ok(()),
            ("", 1) => "adapters are not supported: merge the adapter into the model first",
            ("", _) => "only one adapter is currently supported",
            _ if quantizer.is_some() => {
                return Err(StoreError::BadRequest(format!("unsupported quantization type {asked}")));
            }
            _ => {
                "quantizing is not supported: give a GGUF file that is quantized already (llama-quantize makes one)"
            }
        };
        Err(StoreError::BadRequest(why.to_owned()))
    }
}
