//! What streaming did, for people and for the governor.

use super::lookups::Lookups;
use crate::threads::ThreadUse;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counters since the model was loaded; only ever increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStats {
    /// Decodes computed.
    pub graphs: u64,
    /// Expert lookups of decode steps: one per expert per step.
    pub decode: Lookups,
    /// Expert lookups of prefill ubatches.
    pub prefill: Lookups,
    /// Dense weights that went through the ring.
    pub dense_weights: u64,
    /// Rows that were gathered from tables that stream.
    pub table_rows: u64,
    /// Of these, the ones that were in memory or on their way there.
    pub table_hits: u64,
    /// Reads of rows, each of one row or of neighbours.
    pub table_reads: u64,
    /// Bytes of them, whole pages; a part of `bytes_read`.
    pub table_bytes_read: u64,
    /// Bytes our reader got from the disk.
    pub bytes_read: u64,
    /// Time with a read at the disk. Where experts and dense weights stream, each of the two is counted.
    pub disk_busy: Duration,
    /// Time with nothing to compute, waiting for the disk.
    pub read_stall: Duration,
    /// Time in graphs, stalls excluded.
    pub compute: Duration,
    /// Time in which pages of slots were touched for the first time by a thread beside those that compute.
    pub touch_overlap: Duration,
    /// Experts that lost their slot.
    pub evictions: u64,
    /// Experts read because the next layer was expected to want them.
    pub prefetches: u64,
    /// Of those, the ones that lost their slot before anything used them.
    pub prefetches_wasted: u64,
    /// Trials of the prefetch controller that ended with prefetching switched off.
    pub prefetch_switched_off: u64,
    /// Bytes of experts that rows of decode steps did not have to read, because another row of the same step
    /// did.
    pub shared_bytes: u64,
    /// Lookups of decode steps that were answered by a slot in the memory of a device; hits, too.
    pub device_hits: u64,
    /// Of those, the ones that were uploaded because the layer was expected to want them.
    pub device_prefetched: u64,
    /// Bytes of weights that were uploaded to a device.
    pub uploaded_bytes: u64,
    /// Bytes of experts that a device gave up and the host's memory took back.
    pub demoted_bytes: u64,
    /// Times that the thread that computes waited for a device, but for the end of a step.
    pub device_waits: u64,
    /// Time in those waits.
    pub device_wait: Duration,
    /// Time in which the thread that computes handed uploads over.
    pub device_upload: Duration,
    /// Time in which it handed nodes over.
    pub device_launch: Duration,
    /// Bytes that went to other machines and came from them, everything included, since they were connected.
    pub link: Traffic,
    /// How many threads computed, whether or not anything streams.
    pub threads: ThreadUse,
}

/// Bytes over links to other machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From here.
    pub sent_bytes: u64,
    /// To here.
    pub received_bytes: u64,
}

impl Traffic {
    /// Of both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_add(other.sent_bytes),
            received_bytes: self.received_bytes.saturating_add(other.received_bytes),
        }
    }

    /// What was carried since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
        }
    }
}

impl StreamStats {
    /// Expert lookups of both kinds of step: all of a prompt's, whose last or only ubatch may be as small as
    /// a decode step and is then looked up like one.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        let (one, other) = (self.decode, self.prefill);
        Lookups {
            hits: one.hits + other.hits,
            misses: one.misses + other.misses,
            prefetched: one.prefetched + other.prefetched,
            late: one.late + other.late,
        }
    }

    /// Together with what another executor counted of the same steps.
    fn with(self, other: &Self) -> Self {
        let lookups = |one: Lookups, other: Lookups| Lookups {
            hits: one.hits + other.hits,
            misses: one.misses + other.misses,
            prefetched: one.prefetched + other.prefetched,
            late: one.late + other.late,
        };
        Self {
            graphs: self.graphs.max(other.graphs),
            decode: lookups(self.decode, other.decode),
            prefill: lookups(self.prefill, other.prefill),
            dense_weights: self.dense_weights + other.dense_weights,
            table_rows: self.table_rows + other.table_rows,
            table_hits: self.table_hits + other.table_hits,
            table_reads: self.table_reads + other.table_reads,
            table_bytes_read: self.table_bytes_read + other.table_bytes_read,
            bytes_read: self.bytes_read + other.bytes_read,
            read_stall: self.read_stall + other.read_stall,
            disk_busy: self.disk_busy + other.disk_busy,
            compute: self.compute + other.compute,
            touch_overlap: self.touch_overlap + other.touch_overlap,
            evictions: self.evictions + other.evictions,
            prefetches: self.prefetches + other.prefetches,
            prefetches_wasted: self.prefetches_wasted + other.prefetches_wasted,
            prefetch_switched_off: self.prefetch_switched_off + other.prefetch_switched_off,
            shared_bytes: self.shared_bytes + other.shared_bytes,
            device_hits: self.device_hits + other.device_hits,
            device_prefetched: self.device_prefetched + other.device_prefetched,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
            demoted_bytes: self.demoted_bytes + other.demoted_bytes,
            device_waits: self.device_waits + other.device_waits,
            device_wait: self.device_wait + other.device_wait,
            device_upload: self.device_upload + other.device_upload,
            device_launch: self.device_launch + other.device_launch,
            link: self.link,
            threads: self.threads,
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let lookups = |now: Lookups, then: Lookups| Lookups {
            hits: now.hits - then.hits,
            misses: now.misses - then.misses,
            prefetched: now.prefetched - then.prefetched,
            late: now.late - then.late,
        };
        Self {
            graphs: self.graphs - earlier.graphs,
            decode: lookups(self.decode, earlier.decode),
            prefill: lookups(self.prefill, earlier.prefill),
            dense_weights: self.dense_weights - earlier.dense_weights,
            table_rows: self.table_rows - earlier.table_rows,
            table_hits: self.table_hits - earlier.table_hits,
            table_reads: self.table_reads - earlier.table_reads,
            table_bytes_read: self.table_bytes_read - earlier.table_bytes_read,
            bytes_read: self.bytes_read - earlier.bytes_read,
            disk_busy: self.disk_busy.saturating_sub(earlier.disk_busy),
            read_stall: self.read_stall.saturating_sub(earlier.read_stall),
            compute: self.compute.saturating_sub(earlier.compute),
            touch_overlap: self.touch_overlap.saturating_sub(earlier.touch_overlap),
            evictions: self.evictions - earlier.evictions,
            prefetches: self.prefetches - earlier.prefetches,
            prefetches_wasted: self.prefetches_wasted - earlier.prefetches_wasted,
            prefetch_switched_off: self.prefetch_switched_off - earlier.prefetch_switched_off,
            shared_bytes: self.shared_bytes - earlier.shared_bytes,
            device_hits: self.device_hits - earlier.device_hits,
            device_prefetched: self.device_prefetched - earlier.device_prefetched,
            uploaded_bytes: self.uploaded_bytes - earlier.uploaded_bytes,
            demoted_bytes: self.demoted_bytes - earlier.demoted_bytes,
            device_waits: self.device_waits - earlier.device_waits,
            device_wait: self.device_wait.saturating_sub(earlier.device_wait),
            device_upload: self.device_upload.saturating_sub(earlier.device_upload),
            device_launch: self.device_launch.saturating_sub(earlier.device_launch),
            link: self.link.since(earlier.link),
            threads: self.threads.since(&earlier.threads),
        }
    }
}

/// What streaming holds when a step has ended. After one that failed or was stopped: nothing. After any
/// other: no pin, and only what was read ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Slots that are pinned.
    pub pins: usize,
    /// Slots whose expert is being read.
    pub loading_slots: usize,
    /// Cells, of experts and of the ring, that are being read into or wait to be used.
    pub cells: usize,
    /// Reads that were asked for and have not been answered.
    pub reads: usize,
}

/// The counters of a loaded model, shared between its executors and whoever asks.
#[derive(Debug, Default)]
pub struct SharedStats {
    executors: Mutex<Vec<(StreamStats, Held)>>,
    beside: Mutex<(ThreadUse, Traffic)>,
}

impl SharedStats {
    fn parts(&self) -> MutexGuard<'_, Vec<(StreamStats, Held)>> {
        self.executors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters, of all executors together.
    #[must_use]
    pub fn get(&self) -> StreamStats {
        let (threads, link) = *self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let none = StreamStats { threads, link, ..StreamStats::default() };
        self.parts().iter().fold(none, |sum, (part, _)| sum.with(part))
    }

    /// How many threads computed, and what links to other machines carried.
    pub(crate) fn set_beside(&self, threads: ThreadUse, link: Traffic) {
        *self.beside.lock().unwrap_or_else(PoisonError::into_inner) = (threads, link);
    }

    /// What the last step left behind.
    #[must_use]
    pub fn held(&self) -> Held {
        self.parts().iter().fold(Held::default(), |sum, (_, part)| Held {
            pins: sum.pins + part.pins,
            loading_slots: sum.loading_slots + part.loading_slots,
            cells: sum.cells + part.cells,
            reads: sum.reads + part.reads,
        })
    }
}

/// The counters of one executor.
pub(crate) struct StatsPart {
    shared: Arc<SharedStats>,
    index: usize,
}

impl StatsPart {
    /// Room for another executor.
    pub fn of(shared: &Arc<SharedStats>) -> Self {
        let mut parts = shared.parts();
        parts.push(Default::default());
        let index = parts.len() - 1;
        drop(parts);
        Self { shared: Arc::clone(shared), index }
    }

    pub fn set(&self, stats: StreamStats) {
        self.shared.parts()[self.index].0 = stats;
    }

    pub fn set_held(&self, held: Held) {
        self.shared.parts()[self.index].1 = held;
    }
}
