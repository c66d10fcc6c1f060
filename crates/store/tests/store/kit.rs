//! A machine with model stores in a temporary folder, and small GGUF files to fill them.

use hypura_core::gguf::{Array, GgmlType, HeaderBuilder, Value};
use hypura_store::{Digest, Listing, Places, Store};
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub const JINJA: &str = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}{% endif %}";

/// A GGUF with a few keys and one small tensor.
pub fn gguf(extra: &[(&str, Value)]) -> Vec<u8> {
    let mut builder = builder(extra);
    builder.tensor("token_embd.weight", &[256, 4], GgmlType::Q8_0);
    whole(&builder)
}

/// The same model in shards, a tensor each.
pub fn gguf_shards(count: u16) -> Vec<Vec<u8>> {
    let shard = |index: u16| {
        let mut builder = if index == 0 { builder(&[]) } else { HeaderBuilder::new() };
        builder.set_split(index, count, i32::from(count));
        builder.tensor(format!("blk.{index}.x.weight"), &[32, 2], GgmlType::F32);
        whole(&builder)
    };
    (0..count).map(shard).collect()
}

fn builder(extra: &[(&str, Value)]) -> HeaderBuilder {
    let mut builder = HeaderBuilder::new();
    builder
        .set("general.architecture", "llama")
        .set("general.name", "A Name")
        .set("general.file_type", 15_u32);
    builder.set("llama.context_length", 8192_u32).set("llama.embedding_length", 256_u32);
    builder.set("tokenizer.chat_template", JINJA);
    let tokens: Vec<String> = (0..10).map(|i| format!("t{i}")).collect();
    builder.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    for (key, value) in extra {
        builder.set(*key, value.clone());
    }
    builder
}

fn whole(builder: &HeaderBuilder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    bytes.resize(layout.file_bytes as usize, 0);
    bytes
}

/// Writes a file and the folders above it.
pub fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub struct Machine {
    pub folder: TempDir,
    pub places: Places,
}

impl Machine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let places = Places {
            own: Some(at("own")),
            ollama: vec![at("ollama")],
            hugging_face: vec![at("hub")],
            lm_studio: vec![at("lmstudio")],
            demo: None,
            cache: Some(at("cache/models.json")),
        };
        Self { folder, places }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn store(&self) -> Store {
        Store::new(self.places.clone())
    }

    pub fn list(&self) -> Listing {
        self.store().list()
    }

    /// Names as lists show them, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.list().models.iter().map(|model| model.name.to_string()).collect();
        names.sort();
        names
    }

    /// Why things were skipped.
    pub fn reasons(&self) -> Vec<String> {
        self.list().skipped.into_iter().map(|skipped| skipped.why.to_string()).collect()
    }

    /// A blob of Ollama's store.
    pub fn ollama_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        put(&self.at(&format!("ollama/blobs/sha256-{}", digest.hex())), bytes);
        digest
    }

    /// A model of Ollama's store; layers are kinds and contents.
    pub fn ollama(&self, path: &str, layers: &[(&str, &[u8])]) -> String {
        let config =
            json!({"model_format": "gguf", "model_family": "llama", "model_families": null}).to_string();
        let layer = |kind: &str, bytes: &[u8]| {
            json!({"mediaType": format!("application/vnd.ollama.image.{kind}"),
                "digest": self.ollama_blob(bytes).to_string(), "size": bytes.len()})
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": self.ollama_blob(config.as_bytes()).to_string(), "size": config.len()},
            "layers": layers.iter().map(|(kind, bytes)| layer(kind, bytes)).collect::<Vec<Json>>(),
        });
        let text = manifest.to_string();
        put(&self.at("ollama/manifests").join(path), &text);
        text
    }

    /// Uploads a blob, as `/api/blobs` does; its digest.
    pub fn upload(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        if let Some(mut blob) = self.store().receive_blob(&digest).unwrap() {
            blob.write(bytes).unwrap();
            blob.finish().unwrap();
        }
        digest.to_string()
    }

    /// A model of Ollama's store with a LoRA adapter over it.
    pub fn ollama_adapted(&self, name: &str) -> String {
        let layers: [(&str, &[u8]); 2] = [("model", &gguf(&[])), ("adapter", b"GGUF of an adapter")];
        self.ollama(&format!("registry.ollama.ai/library/{name}/latest"), &layers)
    }

    /// A usual model of Ollama's store, and its manifest.
    pub fn ollama_llama(&self) -> String {
        let layers: [(&str, &[u8]); 6] = [
            ("model", &gguf(&[])),
            ("template", b"{{ if .Tools }}{{ end }}{{ .Prompt }}"),
            ("system", b"Be brief."),
            ("params", br#"{"stop": ["<|eot|>"], "num_ctx": 4096}"#),
            ("messages", br#"[{"role": "user", "content": "hi"}]"#),
            ("license", b"MIT"),
        ];
        self.ollama("registry.ollama.ai/library/llama3.2/3b", &layers)
    }

    /// A file in the cache of Hugging Face, as its tools lay it out: a link into the blobs.
    pub fn hugging_face(&self, repository: &str, file: &str, bytes: &[u8]) -> PathBuf {
        let blob = self.at("hub").join(repository).join("blobs").join(Digest::of(bytes).hex());
        put(&blob, bytes);
        let link = self.at("hub").join(repository).join("snapshots/abc123").join(file);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&blob, &link).unwrap();
        link
    }

    /// All files below a folder with their contents, the store's lock left out: to see that nothing was
    /// changed.
    pub fn contents(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        let mut folders = vec![self.at(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() != ".lock" {
                    all.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
                }
            }
        }
        all.sort();
        all
    }
}
