//! Writes a plan: one thread makes bytes ahead of the one that writes them; what repeats is shared where the
//! file system can.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_core::synth::{ExtentSource, SynthPlan};
use hypura_engine::machine;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::files::{OutFiles, PAGE};
use crate::cli::interrupt::Interrupt;
use crate::cli::style::progress_bar;

/// Bytes of one write; large enough that the disk does not notice where one ends.
const CHUNK_BYTES: usize = 8 << 20;
/// Chunks that are made ahead.
const AHEAD: usize = 4;
/// What the trial of sharing extents takes; a multiple of every block size in use.
const TRIAL_BYTES: u64 = 64 << 10;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub made_bytes: u64,
    pub shared_bytes: u64,
}

/// What the writer does next.
enum Step {
    Write { shard: usize, offset: u64, bytes: Chunk },
    Share { shard: usize, offset: u64, len: u64, from: usize, from_offset: u64 },
}

/// Bytes that begin at a page of memory, so that they can be written past the page cache.
#[derive(Debug, Default)]
struct Chunk {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Chunk {
    /// Becomes `len` bytes of anything.
    fn of_len(&mut self, len: usize) -> &mut [u8] {
        if self.room.len() < len + PAGE {
            self.room = vec![0; len + PAGE];
            self.start = self.room.as_ptr().align_offset(PAGE).min(PAGE);
        }
        self.len = len;
        &mut self.room[self.start..self.start + len]
    }

    fn get(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

/// Tries whether the file system of the (empty) first file shares extents.
///
/// # Errors
/// When not even plain bytes can be written.
pub(super) fn share_extents(files: &OutFiles) -> anyhow::Result<bool> {
    let file = files.file(0);
    let shared = file
        .write_all_at(&vec![0; TRIAL_BYTES as usize], 0)
        .map(|()| machine::clone_range(file, 0, file, TRIAL_BYTES, TRIAL_BYTES).is_ok());
    let empty = file.set_len(0);
    shared.and_then(|shared| empty.map(|()| shared)).with_context(|| cannot_write(files))
}

/// Bytes that need room on the disk.
pub(super) fn bytes_to_make(plan: &SynthPlan, share: bool) -> u64 {
    if !share {
        return plan.file_bytes();
    }
    let extents = (0..plan.shards().len()).flat_map(|shard| plan.extents(shard));
    extents.filter(|extent| extent.source == ExtentSource::Made).map(|extent| extent.bytes).sum()
}

/// Writes all files. `None` when Ctrl-C stopped it.
///
/// # Errors
/// When the disk refuses.
pub(super) fn write(
    plan: &SynthPlan,
    files: &OutFiles,
    share: bool,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Written>> {
    let (steps, made) = sync_channel(AHEAD);
    let (used, spare) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || make(plan, share, &steps, &spare));
        let mut writer = Writer { plan, files, written: Written::default() };
        writer.run(made, &used, interrupt)
    })
}

/// Sends all steps in order; ends early when nobody takes them any more.
fn make(plan: &SynthPlan, share: bool, steps: &SyncSender<Step>, spare: &Receiver<Chunk>) {
    for shard in 0..plan.shards().len() {
        for extent in plan.extents(shard) {
            let sent = match extent.source {
                ExtentSource::Copied { shard: from, offset: from_offset } if share => {
                    let (offset, len) = (extent.offset, extent.bytes);
                    steps.send(Step::Share { shard, offset, len, from, from_offset }).is_ok()
                }
                _ => chunks(extent.offset, extent.bytes).all(|(offset, len)| {
                    let mut bytes = spare.try_recv().unwrap_or_default();
                    plan.fill_file(shard, offset, bytes.of_len(len));
                    steps.send(Step::Write { shard, offset, bytes }).is_ok()
                }),
            };
            if !sent {
                return;
            }
        }
    }
}

/// Cuts a range into chunks that end at multiples of [`CHUNK_BYTES`].
fn chunks(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let (mut at, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let stop = (at / CHUNK_BYTES as u64 + 1) * CHUNK_BYTES as u64;
        let chunk = (at, (stop.min(end) - at.min(end)) as usize);
        at += chunk.1 as u64;
        (chunk.1 > 0).then_some(chunk)
    })
}

struct Writer<'a> {
    plan: &'a SynthPlan,
    files: &'a OutFiles,
    written: Written,
}

impl Writer<'_> {
    fn run(
        &mut self,
        made: Receiver<Step>,
        used: &Sender<Chunk>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<Written>> {
        let progress = progress_bar("writing");
        for step in made {
            if interrupt.raised() {
                return Ok(None);
            }
            self.take(step, used).with_context(|| self.failure())?;
            progress.set(self.written.made_bytes + self.written.shared_bytes, self.plan.file_bytes());
        }
        Ok(Some(self.written))
    }

    fn take(&mut self, step: Step, used: &Sender<Chunk>) -> io::Result<()> {
        match step {
            Step::Write { shard, offset, bytes } => {
                self.files.write_at(shard, bytes.get(), offset)?;
                self.written.made_bytes += bytes.get().len() as u64;
                // The maker may have finished already.
                let _ = used.send(bytes);
                Ok(())
            }
            Step::Share { shard, offset, len, from, from_offset } => {
                let (src, dst) = (self.files.file(from), self.files.file(shard));
                if machine::clone_range(src, from_offset, dst, offset, len).is_ok() {
                    self.written.shared_bytes += len;
                    return Ok(());
                }
                // File systems limit how often an extent is shared: then it is made after all.
                let mut bytes = Chunk::default();
                for (at, len) in chunks(offset, len) {
                    self.plan.fill_file(shard, at, bytes.of_len(len));
                    self.files.write_at(shard, bytes.get(), at)?;
                    self.written.made_bytes += len as u64;
                }
                Ok(())
            }
        }
    }

    fn failure(&self) -> String {
        let done = self.written.made_bytes + self.written.shared_bytes;
        format!(
            "{} after {} of {}, which were removed; make room or write it elsewhere (--out)",
            cannot_write(self.files),
            human_bytes(done),
            human_bytes(self.plan.file_bytes())
        )
    }
}

fn cannot_write(files: &OutFiles) -> String {
    format!("cannot write {}", files.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_a_range_once_and_in_order() {
        let size = CHUNK_BYTES as u64;
        for (offset, len) in [(0, 0), (0, 1), (size - 1, 2), (3, 3 * size), (size, size)] {
            let mut at = offset;
            for (start, taken) in chunks(offset, len) {
                assert_eq!(start, at);
                assert!(taken > 0 && taken <= CHUNK_BYTES);
                at += taken as u64;
            }
            assert_eq!(at, offset + len);
        }
    }
}
