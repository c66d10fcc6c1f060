//! Registered files of a ring: the kernel then looks a file up once instead of for every read. It owns the
//! table; when the table is full or the kernel has none, reads use plain descriptors.
//!
//! Invariant: an entry is replaced only when its `SourceFile` is gone, and thus no read of it is at the
//! device.

use std::collections::HashMap;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Weak};

use io_uring::IoUring;

use crate::SourceFile;

/// Models have at most a few dozen shards.
const ENTRIES: usize = 64;

pub(super) struct FileTable {
    entries: Vec<Option<Weak<SourceFile>>>,
    /// Index by `SourceFile::id`; `None` for files that were refused or came when the table was full.
    indices: HashMap<u64, Option<u32>>,
}

impl FileTable {
    pub(super) fn register(ring: &IoUring) -> FileTable {
        let works = ring.submitter().register_files_sparse(ENTRIES as u32).is_ok();
        let entries = if works { vec![None; ENTRIES] } else { Vec::new() };
        FileTable { entries, indices: HashMap::new() }
    }

    /// The index under which the ring knows the file, registering it first if there is room.
    pub(super) fn index_of(&mut self, ring: &IoUring, file: &Arc<SourceFile>) -> Option<u32> {
        if let Some(&known) = self.indices.get(&file.id()) {
            return known;
        }
        let free = self.entries.iter().position(Option::is_none);
        let index = free.and_then(|free| {
            let index = u32::try_from(free).ok()?;
            ring.submitter().register_files_update(index, &[file.as_raw_fd()]).ok()?;
            self.entries[free] = Some(Arc::downgrade(file));
            Some(index)
        });
        self.indices.insert(file.id(), index);
        index
    }

    /// Gives up entries whose files are closed, so that deleted files do not keep their disk space. Call it
    /// only when no read is at the device.
    pub(super) fn forget_closed(&mut self, ring: &IoUring) {
        let mut changed = false;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.as_ref().is_some_and(|file| file.strong_count() == 0)
                && ring.submitter().register_files_update(index as u32, &[-1]).is_ok()
            {
                *entry = None;
                changed = true;
            }
        }
        if changed {
            // Also lets files that found the table full try again.
            let entries = &self.entries;
            self.indices.retain(|_, index| index.is_some_and(|index| entries[index as usize].is_some()));
        }
    }
}
