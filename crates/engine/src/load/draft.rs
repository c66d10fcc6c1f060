//! A draft model beside the one that it drafts for: checked, measured, loaded. It is resident, and llama.cpp
//! runs it on the CPU with kernels of its own choice: its bits are nobody's answer.

use hypura_core::plan::{Basis, ContextShape, Homes, KvType, Ledger, Purpose, Residency, vocabulary_bytes};
use hypura_core::speculate::check_vocabulary;
use std::path::Path;

use super::devices::DeviceSettings;
use super::measure::NeedsMeter;
use super::settings::{LoadSettings, ModelOptions, Tuning};
use crate::error::{DraftModelError, LoadError};
use crate::source::ModelSource;

/// Tokens of a graph: a prompt goes through the draft model in so many parts, between steps of the other.
pub(crate) const DRAFT_UBATCH: u32 = 256;

/// A draft model that was found to fit.
#[derive(Debug)]
pub struct PlannedDraft {
    source: ModelSource,
    threads: u32,
    devices: DeviceSettings,
}

impl PlannedDraft {
    /// Reads the headers of a draft model and holds its vocabulary against the model's.
    ///
    /// # Errors
    /// [`LoadError`] naming the file; [`DraftModelError`] when it does not fit.
    pub fn of(path: &Path, target: &ModelSource, threads: u32) -> Result<Self, LoadError> {
        let source = ModelSource::open(path)?;
        let path = || source.path.clone();
        if source.is_for_embeddings() {
            return Err(DraftModelError::Embeds { path: path() }.into());
        }
        check_vocabulary(&target.metadata, &source.metadata)
            .map_err(|error| DraftModelError::Vocabulary { path: path(), source: error })?;
        let devices = DeviceSettings::default();
        if NeedsMeter::new(&source, threads, &devices, None)?.is_recurrent() {
            let architecture = source.shape.architecture.clone();
            return Err(DraftModelError::Recurrent { path: path(), architecture }.into());
        }
        Ok(Self { source, threads, devices })
    }

    /// The file, or the first of its shards.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.source.shape.total_bytes()
    }

    /// Its context beside that of the model: as many sequences, and as many tokens as it was trained for.
    fn context(&self, target: &ContextShape) -> ContextShape {
        let trained = u32::try_from(self.source.shape.context_train).unwrap_or(u32::MAX);
        let most = if trained == 0 { u32::MAX } else { trained };
        let context_tokens = target.context_tokens.min(most);
        let ubatch_tokens = DRAFT_UBATCH.min(context_tokens);
        ContextShape { context_tokens, ubatch_tokens, kv: KvType::F16, ..*target }
    }

    /// How to load it beside a context of the model.
    pub(super) fn settings(&self, target: &ContextShape) -> LoadSettings {
        let context = self.context(target);
        LoadSettings {
            model: ModelOptions {
                residency: Residency::Auto,
                context: context.context_tokens,
                ubatch: context.ubatch_tokens,
                sequences: context.sequences,
                idle_sequences: context.idle_sequences,
                kv_may_shrink: false,
                ..ModelOptions::default()
            },
            tuning: Tuning { threads: self.threads, ..Tuning::default() },
            ..LoadSettings::default()
        }
    }
}

/// What a model needs, and what drafts for it: the needs of a plan.
pub struct PlanMeter<'a> {
    model: NeedsMeter<'a>,
    draft: Option<&'a PlannedDraft>,
    /// Made when it is first asked.
    of_draft: Option<NeedsMeter<'a>>,
    known: Vec<(ContextShape, u64)>,
}

impl<'a> PlanMeter<'a> {
    /// For a model and what drafts for it, if anything does.
    #[must_use]
    pub fn new(model: NeedsMeter<'a>, draft: Option<&'a PlannedDraft>) -> Self {
        Self { model, draft, of_draft: None, known: Vec::new() }
    }

    /// What a context takes where layers have these homes, the process, and the draft model beside it.
    ///
    /// # Errors
    /// llama.cpp's reason.
    pub fn needs(&mut self, context: &ContextShape, homes: &Homes) -> Result<Ledger, LoadError> {
        let needs = self.model.needs(context, homes)?;
        match self.draft {
            Some(draft) => {
                Ok(needs.with_host(Purpose::Draft, self.draft_bytes(draft, context)?, Basis::Measured))
            }
            None => Ok(needs),
        }
    }

    fn draft_bytes(&mut self, draft: &'a PlannedDraft, target: &ContextShape) -> Result<u64, LoadError> {
        let context = draft.context(target);
        if let Some((_, bytes)) = self.known.iter().find(|(known, _)| *known == context) {
            return Ok(*bytes);
        }
        let PlannedDraft { source, threads, devices } = draft;
        let meter = match &mut self.of_draft {
            Some(meter) => meter,
            none => none.insert(NeedsMeter::new(source, *threads, devices, None)?),
        };
        let shape = &source.shape;
        let used = meter.needs(&context, &Homes::on_host(shape))?;
        let bytes = [
            shape.total_bytes(),
            used.bytes_for(Purpose::Kv),
            used.bytes_for(Purpose::Compute),
            vocabulary_bytes(shape),
        ];
        let bytes = bytes.into_iter().fold(0, u64::saturating_add);
        self.known.push((context, bytes));
        Ok(bytes)
    }
}
