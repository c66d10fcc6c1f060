//! Idle conversations to disk and back.

use hypura_core::gguf::Metadata;
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

/// Everything that must be equal for a saved state to mean the same, bit for bit: the files (length and samples spread over
/// each, the header's first), the type of the KV cache, the kernels and the ubatch that computed it, and the versions of this
/// program and of llama.cpp.
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

impl KvRows {
    /// From now on idle conversations are kept in this folder.
    ///
    /// # Errors
    /// When the folder or the model's files cannot be read.
    pub fn use_disk(&mut self, dir: &Path, quota: u64) -> io::Result<()> {
        let fingerprint = fingerprint(&self.loaded.planned)?;
        self.disk = Some(KvDisk::open(dir, quota, fingerprint)?);
        Ok(())
    }

    /// Brings back what the disk has of a prompt, when that is a block more than what is in memory.
    pub(super) fn recall(&mut self, prompt: &[hypura_ggml::Token]) {
        let rewinds = self.rewinds();
        let in_memory = self.choose(prompt).map_or(0, |choice| choice.common);
        let most = self.context_tokens();
        let Some(disk) = &mut self.disk else { return };
        let Some((tokens, state)) = disk.find(prompt, in_memory + BLOCK, most, rewinds) else { return };
        let Some(row) = self.rows.idle_rows().first().copied() else { return };
        self.empty(row);
        self.restore(row, &tokens, &state);
    }

    /// Writes idle conversations that are not on disk yet, until `hurry` says that there is something better to do. A disk that
    /// refuses is not asked again.
    ///
    /// # Errors
    /// Why it refused.
    pub fn keep_idle(&mut self, hurry: &dyn Fn() -> bool) -> io::Result<()> {
        let Some(mut disk) = self.disk.take() else { return Ok(()) };
        for row in self.rows.idle_rows() {
            let tokens = self.rows.row(row).cached.clone();
            // The numbers of media mean nothing to another process.
            let has_media = tokens.iter().any(|token| *token < 0);
            if tokens.len() < BLOCK || has_media || disk.has(&tokens) {
                continue;
            }
            if hurry() {
                break;
            }
            let state = self.loaded.context.save(index(row));
            if !state.is_empty() {
                disk.keep(&tokens, &state)?;
            }
        }
        self.disk = Some(disk);
        Ok(())
    }
}
