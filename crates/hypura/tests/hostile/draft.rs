//! A model in parts that can be changed one by one, and written whatever they have become.

use hypura_core::gguf::{GgmlType, read_header};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use std::fs;
use std::path::{Path, PathBuf};

use crate::value::{Raw, put_text};

/// Most bytes of one tensor that are written; a larger one has holes, or lies.
const MOST_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub shape: Vec<u64>,
    pub ty: u32,
    pub data: Vec<u8>,
    /// Where the header says that it is, if not where it is.
    pub claimed: Option<u64>,
    /// Bytes that it has in a file with holes, beyond its data.
    pub hole_bytes: u64,
}

impl Tensor {
    /// Gives it as many bytes as its type and shape have, where that is a size.
    pub fn fit(&mut self) {
        let elements = self.shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n));
        let Some(ty) = GgmlType::from_id(self.ty) else { return };
        let Some(bytes) = elements.and_then(|elements| ty.row_bytes(elements)) else { return };
        let written = bytes.min(MOST_BYTES) as usize;
        let old = std::mem::take(&mut self.data);
        let filling = if old.is_empty() { vec![0] } else { old };
        self.data = filling.iter().copied().cycle().take(written).collect();
        // Larger than any file: it lies.
        self.hole_bytes = if bytes < 1 << 42 { bytes - written as u64 } else { 0 };
    }
}

/// How a model's file is damaged after it was written.
#[derive(Clone, Debug)]
pub enum Damage {
    Cut(u64),
    Byte(u64, u8),
    Word(u64, u64),
}

/// A model in parts.
#[derive(Clone, Debug)]
pub struct Draft {
    pub metadata: Vec<(Vec<u8>, Raw)>,
    pub tensors: Vec<Tensor>,
    pub damage: Vec<Damage>,
    /// Files that the tensors are spread over.
    pub shards: u16,
    /// What the metadata say of them, where they lie: number, count, tensors.
    pub shard_claims: Option<(u16, u16, i32)>,
    /// A file that is not written.
    pub lost_shard: Option<u16>,
}

impl Draft {
    /// A synthetic model of two layers.
    pub fn of(shape: Shape, quant: Quant) -> Self {
        let plan =
            SynthPlan::new(&SynthOptions { layers: Some(2), ..SynthOptions::new(shape, quant) }).unwrap();
        let mut bytes = vec![0; plan.shards()[0].file_bytes as usize];
        plan.fill_file(0, 0, &mut bytes);
        let header = read_header(bytes.as_slice(), bytes.len() as u64).unwrap();
        let metadata = header.metadata.iter().map(|(key, value)| (key.as_bytes().to_vec(), Raw::of(value)));
        let tensor = |info: &hypura_core::gguf::TensorInfo| Tensor {
            name: info.name.as_bytes().to_vec(),
            shape: info.shape.clone(),
            ty: info.ty.id(),
            data: bytes[info.offset as usize..(info.offset + info.bytes) as usize].to_vec(),
            claimed: None,
            hole_bytes: 0,
        };
        Self {
            metadata: metadata.collect(),
            tensors: header.tensors.iter().map(tensor).collect(),
            damage: Vec::new(),
            shards: 1,
            shard_claims: None,
            lost_shard: None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Raw> {
        self.metadata.iter().find(|(known, _)| known == key.as_bytes()).map(|(_, value)| value)
    }

    pub fn set(&mut self, key: &str, value: Raw) {
        match self.metadata.iter_mut().find(|(known, _)| known == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.as_bytes().to_vec(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(known, _)| known != key.as_bytes());
    }

    pub fn architecture(&self) -> String {
        match self.get("general.architecture") {
            Some(Raw::Text(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        }
    }

    /// Writes the files, and gives those that there are; the first is what a program is given.
    pub fn write(&self, folder: &Path, name: &str) -> Vec<PathBuf> {
        let path = |shard: u16| match self.shards {
            1 => folder.join(format!("{name}.gguf")),
            count => folder.join(format!("{name}-{:05}-of-{count:05}.gguf", shard + 1)),
        };
        let each = self.tensors.len().div_ceil(self.shards.into()).max(1);
        let mut written = Vec::new();
        for shard in (0..self.shards).filter(|shard| self.lost_shard != Some(*shard)) {
            let tensors = self.tensors.chunks(each).nth(shard.into()).unwrap_or_default();
            let (bytes, hole_bytes) = self.encode(shard, tensors);
            fs::write(path(shard), bytes).unwrap();
            if hole_bytes > 0 {
                let file = fs::OpenOptions::new().write(true).open(path(shard)).unwrap();
                file.set_len(file.metadata().unwrap().len() + hole_bytes).unwrap();
            }
            written.push(path(shard));
        }
        written
    }

    /// A file's bytes, and how long the hole is that follows.
    fn encode(&self, shard: u16, tensors: &[Tensor]) -> (Vec<u8>, u64) {
        let mut metadata = self.metadata.clone();
        if self.shards > 1 {
            let claims = (shard, self.shards, self.tensors.len() as i32);
            let (number, count, all) = self.shard_claims.unwrap_or(claims);
            metadata.push((b"split.no".to_vec(), Raw::Number(2, number.to_le_bytes().to_vec())));
            metadata.push((b"split.count".to_vec(), Raw::Number(2, count.to_le_bytes().to_vec())));
            metadata.push((b"split.tensors.count".to_vec(), Raw::i32(all)));
        }
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in &metadata {
            put_text(&mut out, key);
            value.put(&mut out);
        }
        let alignment = self.get("general.alignment").and_then(Raw::as_u64).unwrap_or(32);
        let alignment = if alignment.is_power_of_two() && alignment <= 1 << 16 { alignment } else { 32 };
        let mut data: Vec<u8> = Vec::new();
        let mut hole_bytes = 0;
        for tensor in tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.claimed.unwrap_or(data.len() as u64 + hole_bytes).to_le_bytes());
            if hole_bytes == 0 {
                data.extend(&tensor.data);
                data.resize(data.len().next_multiple_of(alignment as usize), 0);
                hole_bytes = tensor.hole_bytes.next_multiple_of(alignment);
            } else {
                let bytes = tensor.data.len() as u64 + tensor.hole_bytes;
                hole_bytes += bytes.next_multiple_of(alignment);
            }
        }
        out.resize(out.len().next_multiple_of(alignment as usize), 0);
        out.extend(data);
        self.damage.iter().for_each(|damage| damage.apply(&mut out));
        (out, hole_bytes)
    }
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // Places are shares of the file in 2^32 parts, or of the header's first bytes.
        let place = |at: u64, length: usize| (at % length.max(1) as u64) as usize;
        match *self {
            Self::Cut(at) => bytes.truncate(place(at, bytes.len())),
            Self::Byte(at, to) => {
                let at = place(at, bytes.len());
                bytes[at] = to;
            }
            Self::Word(at, to) => {
                let at = place(at, bytes.len().saturating_sub(8));
                bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
            }
        }
    }
}
