//! A point in what a device does, that its other queue can wait for while the host goes on.

use crate::device::Device;
use crate::sys;

use super::run::GraphRun;

/// One such point at a time; recording it again moves it.
pub struct DeviceEvent {
    raw: sys::ggml_backend_event_t,
    recorded: bool,
}
// SAFETY: an event has no thread affinity; `&mut self` keeps it to one thread at a time.
unsafe impl Send for DeviceEvent {}

impl DeviceEvent {
    /// `None` where the device has no events: then the host waits.
    #[must_use]
    pub fn new(device: Device) -> Option<Self> {
        // SAFETY: the device lives for the whole process; a null event is one that there is not.
        let raw = unsafe { sys::ggml_backend_event_new(device.inner()) };
        (!raw.is_null()).then_some(Self { raw, recorded: false })
    }

    /// Puts it behind everything that was run.
    pub fn record_behind(&mut self, run: &GraphRun<'_>) {
        self.record(run.inner());
    }

    /// Behind everything that was handed to `backend`, which is alive and of the device.
    pub(super) fn record(&mut self, backend: sys::ggml_backend_t) {
        // SAFETY: the event is alive; the caller vouches for the backend.
        unsafe { sys::ggml_backend_event_record(self.raw, backend) };
        self.recorded = true;
    }

    /// Has what is handed to `backend` from now on wait for it; without a record, for nothing.
    pub(super) fn hold(&self, backend: sys::ggml_backend_t) {
        if self.recorded {
            // SAFETY: as above.
            unsafe { sys::ggml_backend_event_wait(backend, self.raw) };
        }
    }

    /// Has the host wait for it; without a record, for nothing. Whoever was held by an earlier record must be
    /// done: some devices use those again.
    pub fn wait(&self) {
        if self.recorded {
            // SAFETY: the event is alive.
            unsafe { sys::ggml_backend_event_synchronize(self.raw) };
        }
    }
}

impl Drop for DeviceEvent {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; backends have taken down what they wait for.
        unsafe { sys::ggml_backend_event_free(self.raw) };
    }
}
