//! The buffer types of one load.
//!
//! Each load has objects of its own, one for each kind and device, so that what is noted belongs to a load
//! and not to a thread or the process. The model owns them: they outlive its buffers.

use crate::device::Device;
use crate::sys::{self, raw};
use std::sync::Arc;

use super::context::{TypeContext, WeightMemory};
use super::kind::{interface, type_name};
use super::notes::Notes;

/// A buffer type that ggml can be given.
struct OwnedType {
    kind: WeightMemory,
    device: Device,
    object: *mut raw::ggml_backend_buffer_type,
}

impl Drop for OwnedType {
    fn drop(&mut self) {
        // SAFETY: both boxes were made by `BufferTypes::handle` and are freed once, after the model's buffers
        // (`model::Handle`).
        unsafe {
            let object = Box::from_raw(self.object);
            drop(Box::from_raw(object.context.cast::<TypeContext>()));
        }
    }
}

/// The buffer types of one load.
#[derive(Default)]
pub(crate) struct BufferTypes {
    notes: Arc<Notes>,
    types: Vec<OwnedType>,
}
// SAFETY: the objects are written once, before ggml gets them, and only read afterwards; notes are behind
// locks.
unsafe impl Send for BufferTypes {}
// SAFETY: as above.
unsafe impl Sync for BufferTypes {}

impl BufferTypes {
    /// The buffer type for a kind of memory on a device, made the first time.
    pub fn handle(&mut self, kind: WeightMemory, device: Device) -> sys::ggml_backend_buffer_type_t {
        if let Some(known) = self.types.iter().find(|known| (known.kind, known.device) == (kind, device)) {
            return known.object.cast();
        }
        let (name, notes) = (type_name(kind, device), Arc::clone(&self.notes));
        let context = Box::into_raw(Box::new(TypeContext { name, device, notes }));
        let object = Box::into_raw(Box::new(raw::ggml_backend_buffer_type {
            iface: interface(kind, device),
            device: device.handle(),
            context: context.cast(),
        }));
        self.types.push(OwnedType { kind, device, object });
        object.cast()
    }

    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}
