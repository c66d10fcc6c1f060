//! Which ranges of a file repeat others, for writers that can share extents instead of writing them again.

use super::SynthPlan;
use super::content::{Content, PAGE_BYTES};
use crate::gguf::TensorInfo;

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Where its content comes from.
    pub source: ExtentSource,
}

/// Where the content of an [`Extent`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentSource {
    /// To be made with [`SynthPlan::fill_file`].
    Made,
    /// Equal to as many bytes of the file of `shard` from `offset` on, which earlier extents of this shard or
    /// those of an earlier shard have made. All offsets and the size are multiples of 4096. It may as well be
    /// made.
    Copied {
        /// The file to copy from.
        shard: usize,
        /// First byte to copy.
        offset: u64,
    },
}

impl SynthPlan {
    /// The whole file of shard `shard` as extents in order; a single one where nothing repeats.
    pub fn extents(&self, shard: usize) -> Vec<Extent> {
        let mut extents = Extents::default();
        let Some(file) = self.shards().get(shard) else { return extents.list };
        for tensor in file.tensors.clone() {
            if let (Some(info), Some(content)) = (self.tensors().get(tensor), self.contents.get(tensor)) {
                self.add_copies(&mut extents, info, content);
            }
        }
        extents.made_until(file.file_bytes);
        extents.list
    }

    fn add_copies(&self, extents: &mut Extents, info: &TensorInfo, content: &Content) {
        let Content::Repeated { pattern, period, phase } = *content else { return };
        let Some((first, first_phase)) = self.first_of(pattern) else { return };
        let own = (first.shard, first.offset) == (info.shard, info.offset);
        if !own && (info.shard, info.offset) < (first.shard, first.offset) {
            return;
        }
        let whole_pages = info.bytes - info.bytes % PAGE_BYTES;
        let mut at = if own { period.min(whole_pages) } else { 0 };
        while at < whole_pages {
            // Where in the first tensor's stretch the byte at `at` is.
            let place = (at % period + phase + period - first_phase) % period;
            let bytes = (period - place).min(whole_pages - at);
            extents.made_until(info.offset + at);
            let source = ExtentSource::Copied { shard: first.shard, offset: first.offset + place };
            extents.list.push(Extent { offset: info.offset + at, bytes, source });
            extents.end = info.offset + at + bytes;
            at += bytes;
        }
    }

    /// The first tensor that contains a whole period of a pattern, and where in the period it starts.
    fn first_of(&self, wanted: usize) -> Option<(&TensorInfo, u64)> {
        self.tensors().iter().zip(&self.contents).find_map(|(info, content)| match *content {
            Content::Repeated { pattern, period, phase } if pattern == wanted && info.bytes >= period => {
                Some((info, phase))
            }
            _ => None,
        })
    }
}

/// Extents so far, without gaps up to `end`.
#[derive(Default)]
struct Extents {
    list: Vec<Extent>,
    end: u64,
}

impl Extents {
    fn made_until(&mut self, offset: u64) {
        if offset > self.end {
            let bytes = offset - self.end;
            self.list.push(Extent { offset: self.end, bytes, source: ExtentSource::Made });
            self.end = offset;
        }
    }
}
