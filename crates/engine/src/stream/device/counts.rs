//! What a device did, counted and timed where the host talks to it.

use std::time::Duration;

/// What a device did, since the model was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceCounts {
    /// Lookups of decode steps that a slot of the device answered, whoever filled it.
    pub hits: u64,
    /// Of those, the ones whose upload a guess had started.
    pub prefetched: u64,
    /// Bytes of weights that were uploaded.
    pub uploaded_bytes: u64,
    /// Bytes of experts that came back to the host's memory.
    pub demoted_bytes: u64,
    /// Times that the host waited for the device, and how long.
    pub waits: u64,
    pub wait: Duration,
    /// How long the host took to hand over uploads, and nodes to compute.
    pub upload: Duration,
    pub launch: Duration,
}

impl DeviceCounts {
    /// The host waited for the device.
    pub fn note_wait(&mut self, wait: Duration) {
        self.waits += 1;
        self.wait += wait;
    }

    /// So many bytes were handed over, and it took so long.
    pub fn note_upload(&mut self, bytes: usize, taken: Duration) {
        self.uploaded_bytes += bytes as u64;
        self.upload += taken;
    }
}
