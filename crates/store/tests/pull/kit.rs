//! A machine with empty stores, models for servers, and settings that lose no time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hypura_core::gguf::{GgmlType, HeaderBuilder};
use hypura_core::random;
use hypura_store::fetch::Network;
use hypura_store::{Digest, Places, PullError, PullRequest, PullSettings, Store};
use tempfile::TempDir;

use crate::server::Hub;

/// A model of about `bytes`, whose weights follow from the seed; shard `index` of `count`.
pub fn model(seed: u64, bytes: usize, index: u16, count: u16) -> Vec<u8> {
    let mut builder = HeaderBuilder::new();
    if index == 0 {
        builder.set("general.architecture", "llama").set("general.name", "A Name");
        builder.set("llama.context_length", 8192_u32).set("llama.embedding_length", 256_u32);
        builder.set("llama.block_count", 1_u32);
    }
    if count > 1 {
        builder.set_split(index, count, i32::from(count));
    }
    let rows = (bytes / 128).max(1) as u64;
    builder.tensor(format!("blk.{index}.x.weight"), &[32, rows], GgmlType::F32);
    let mut out = Vec::new();
    let layout = builder.write_header(&mut out).unwrap();
    let begin = out.len() as u64;
    let words = (layout.file_bytes - begin).div_ceil(8);
    out.extend((0..words).flat_map(|word| random::at(seed, word).to_le_bytes()));
    out.truncate(layout.file_bytes as usize);
    out
}

/// A model in shards, by name.
pub fn shards(seed: u64, bytes: usize, count: u16) -> Vec<(String, Vec<u8>)> {
    let name = |index: u16| match count {
        1 => "m-Q4_K_M.gguf".to_owned(),
        _ => format!("m-Q4_K_M-{:05}-of-{count:05}.gguf", index + 1),
    };
    (0..count).map(|index| (name(index), model(seed + u64::from(index), bytes, index, count))).collect()
}

/// Small parts, short waits after failures. Servers have the time that they have elsewhere: on a busy machine
/// one that is slow is not given up, so that bytes can be counted.
pub fn quick() -> PullSettings {
    PullSettings {
        part_bytes: 4 << 10,
        request_bytes: 16 << 10,
        flush_bytes: 64 << 10,
        tries: 5,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(20),
        connect_timeout: Duration::from_secs(5),
        report_every: Duration::from_millis(5),
        ..PullSettings::default()
    }
}

pub struct Machine {
    pub folder: TempDir,
    pub settings: PullSettings,
    pub token: Option<String>,
}

impl Machine {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), settings: quick(), token: None }
    }

    /// One that gives silent servers up soon.
    pub fn impatient() -> Self {
        let mut machine = Self::new();
        machine.settings.silence = Duration::from_millis(200);
        machine
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn places(&self) -> Places {
        Places {
            own: Some(self.at("own")),
            ollama: vec![self.at("ollama")],
            hugging_face: vec![self.at("hub")],
            ..Places::default()
        }
    }

    pub fn network(&self, hub: &Hub) -> Network {
        Network {
            hub: hub.address.clone(),
            hub_token: self.token.clone(),
            hub_offline: false,
            offline: false,
        }
    }

    pub fn store(&self, hub: &Hub) -> Store {
        Store::new(self.places()).with_network(self.network(hub)).with_pull_settings(self.settings.clone())
    }

    /// Pulls to the end.
    pub fn pull(&self, hub: &Hub, name: &str) -> Result<String, PullError> {
        self.store(hub).pulls().pull(&request(name), &mut |_| {}, &|| true)
    }

    /// All files below a folder that are no links.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut folders = vec![self.at(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => all.push(entry.path()),
                    _ => {}
                }
            }
        }
        all.sort();
        all
    }

    /// Every blob has the content that its name says; there are this many.
    pub fn check_blobs(&self, expected: usize) {
        let is_blob = |path: &&PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            path.parent().unwrap().ends_with("blobs") && !name.contains('.')
        };
        let files = self.files("");
        let blobs: Vec<&PathBuf> = files.iter().filter(is_blob).collect();
        for blob in &blobs {
            let name = blob.file_name().unwrap().to_str().unwrap();
            let hex = name.strip_prefix("sha256-").unwrap_or(name);
            if hex.len() == 64 {
                assert_eq!(hex, digest_of(blob), "{}", blob.display());
            }
        }
        assert_eq!(blobs.len(), expected, "{files:?}");
    }
}

pub fn request(name: &str) -> PullRequest {
    PullRequest { name: name.to_owned(), ..PullRequest::default() }
}

pub fn digest_of(path: &Path) -> String {
    Digest::of(&fs::read(path).unwrap()).hex().to_owned()
}
