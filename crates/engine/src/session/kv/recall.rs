//! Idle conversations to disk and back.

use hypura_core::gguf::Metadata;
use hypura_ggml::Token;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::disk::{BLOCK, Fingerprint, KvDisk};
use super::share::{KvRows, index};
use crate::load::Planned;

/// Weights are not read through to tell models apart: these many samples of each file are.
const SAMPLES: u64 = 32;
const SAMPLE_BYTES: usize = 4096;

/// Everything that must be equal for a saved state to mean the same, bit for bit: the files (length and
/// samples spread over each, the header's first), the type of the KV cache, the kernels and the ubatch that
/// computed it, and the versions of this program and of llama.cpp.
///
/// # Errors
/// When a file cannot be read.
fn fingerprint(planned: &Planned) -> io::Result<Fingerprint> {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(hypura_ggml::system::ggml_version());
    let context = &planned.plan.context;
    hash.update(context.kv.name());
    hash.update(planned.kernels().name());
    if let Some(gpu) = &planned.gpu {
        // Its kernels round in their own way, and each layer's state is where the layer is.
        hash.update(gpu.info.backend.as_bytes());
        hash.update(planned.plan.homes.device_layers().to_le_bytes());
    }
    hash.update(context.ubatch_tokens.to_le_bytes());
    let metadata: &Metadata = &planned.source.metadata;
    hash.update((metadata.len() as u64).to_le_bytes());
    for source in &planned.source.files {
        let mut file = File::open(source.path())?;
        let bytes = file.metadata()?.len();
        hash.update(bytes.to_le_bytes());
        for sample in 0..SAMPLES {
            let at = u128::from(bytes) * u128::from(sample) / u128::from(SAMPLES);
            file.seek(SeekFrom::Start(u64::try_from(at).unwrap_or(0)))?;
            let mut piece = Vec::with_capacity(SAMPLE_BYTES);
            Read::by_ref(&mut file).take(SAMPLE_BYTES as u64).read_to_end(&mut piece)?;
            hash.update(&piece);
        }
    }
    Ok(hash.finalize().into())
}

/// Where idle conversations are kept, if anywhere.
#[derive(Default)]
pub(crate) struct Recall(Option<KvDisk>);

impl Recall {
    /// In this folder.
    ///
    /// # Errors
    /// When the folder or the model's files cannot be read.
    pub fn open(planned: &Planned, dir: &Path, quota: u64) -> io::Result<Self> {
        Ok(Self(Some(KvDisk::open(dir, quota, fingerprint(planned)?)?)))
    }

    /// Brings back what the disk has of a prompt, when that is a block more than what is in memory.
    pub fn bring_back(&mut self, kv: &mut KvRows, prompt: &[Token]) {
        let Some(disk) = &mut self.0 else { return };
        let in_memory = kv.choose(prompt).map_or(0, |choice| choice.common);
        let found = disk.find(prompt, in_memory + BLOCK, kv.context_tokens(), kv.rewinds());
        let Some((tokens, state)) = found else { return };
        let Some(row) = kv.rows().idle_rows().first().copied() else { return };
        kv.empty(row);
        kv.restore(row, &tokens, &state);
    }

    /// Writes idle conversations that are not on disk yet, until `hurry` says that there is something better
    /// to do. A disk that refuses is not asked again.
    ///
    /// # Errors
    /// Why it refused.
    pub fn keep_idle(&mut self, kv: &mut KvRows, hurry: &dyn Fn() -> bool) -> io::Result<()> {
        let Some(mut disk) = self.0.take() else { return Ok(()) };
        for row in kv.rows().idle_rows() {
            let tokens = kv.rows().row(row).cached.clone();
            // The numbers of media mean nothing to another process.
            let has_media = tokens.iter().any(|token| *token < 0);
            if tokens.len() < BLOCK || has_media || disk.has(&tokens) {
                continue;
            }
            if hurry() {
                break;
            }
            let state = kv.context_mut().save(index(row));
            if !state.is_empty() {
                disk.keep(&tokens, &state)?;
            }
        }
        self.0 = Some(disk);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadSettings, prepare};
    use crate::source::ModelSource;
    use hypura_core::plan::{CacheSize, KvType, Residency};

    #[test]
    fn a_state_of_other_bits_is_not_recalled() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf");
        let of = |settings: LoadSettings| {
            let settings = settings.with_context(256);
            fingerprint(&prepare(ModelSource::open(&path).unwrap(), settings).unwrap()).unwrap()
        };
        let resident = || LoadSettings::default().with_choice(Residency::Resident).with_ubatch(24);
        let base = of(resident());
        assert_eq!(of(resident().with_threads(2).with_sequences(3)), base);
        let cache = Some(CacheSize::Percent(40.0));
        let streamed = resident().with_choice(Residency::Stream).with_cache(cache);
        assert_eq!(of(streamed), base, "streamed weights have the bits of resident ones");
        assert_ne!(of(resident().with_choice(Residency::Auto)), base, "other kernels");
        assert_ne!(of(resident().with_ubatch(32)), base, "other tiles");
        assert_ne!(of(resident().with_kv(KvType::Q8_0)), base, "other numbers");
    }
}
