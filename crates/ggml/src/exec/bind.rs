//! Operands elsewhere: weights in memory that the engine supplies, ids where the kernels of a device read
//! them.

use crate::error::ExecError;
use crate::memory::{Bytes, DeviceBuffer};
use crate::sys;
use std::ffi::c_void;

use super::operand::{plain_tensor, to_i64};
use super::run::GraphRun;
use super::scratch::DeviceIds;
use super::slots::SlotBinding;

/// A copy of a weight that points elsewhere.
///
/// # Safety
/// `weight` is alive.
pub(super) unsafe fn bind(
    run: &GraphRun<'_>,
    weight: *const sys::ggml_tensor,
    memory: Bytes<'_>,
) -> Result<sys::ggml_tensor, ExecError> {
    match memory {
        // SAFETY: the caller vouches for the weight.
        Bytes::Host(bytes) if run.is_host() => unsafe {
            Ok(plain_tensor(weight, bytes.as_ptr().cast_mut().cast()))
        },
        Bytes::Device(region) if region.device() == run.device() => {
            // SAFETY: the caller vouches for the weight.
            let mut copy = unsafe { plain_tensor(weight, std::ptr::null_mut()) };
            region.place(&mut copy);
            Ok(copy)
        }
        Bytes::Host(_) | Bytes::Device(_) => {
            let name = run.device().name();
            Err(ExecError::Misuse(format!("{name} cannot compute with memory of another device")))
        }
    }
}

/// A copy of a stack of experts that is the slots of a pool instead.
///
/// # Safety
/// `weight` is alive.
pub(super) unsafe fn bind_slots(
    run: &GraphRun<'_>,
    weight: *const sys::ggml_tensor,
    binding: SlotBinding<'_>,
) -> Result<sys::ggml_tensor, ExecError> {
    // SAFETY: the caller vouches for the weight.
    let mut bound = unsafe { bind(run, weight, binding.memory)? };
    // SAFETY: a tensor has a type of ggml's own table. Kernels of devices count in whole blocks, and are
    // silently wrong where a stride is none of them.
    let block = unsafe { sys::ggml_type_size(bound.type_) };
    if !run.is_host() && binding.slots > 1 && !binding.stride.is_multiple_of(block) {
        return Err(ExecError::Misuse(format!("slots {} bytes apart are no whole blocks", binding.stride)));
    }
    bound.ne[2] = to_i64(binding.slots)?;
    bound.nb[2] = binding.stride;
    bound.nb[3] = binding.stride * binding.slots;
    Ok(bound)
}

/// Brings ids to the device; returns the buffer and the address that a tensor of them has.
fn upload_ids(
    run: &mut GraphRun<'_>,
    ids: &[i32],
) -> Result<(sys::ggml_backend_buffer_t, *mut c_void), ExecError> {
    let bytes = size_of_val(ids);
    let known = run.scratch.ids.as_ref();
    if known.is_none_or(|known| known.content != ids) {
        // Kernels may still read what was there.
        run.synchronize();
        let device = run.device();
        let fits = run.scratch.ids.take().filter(|known| known.buffer.len() >= bytes);
        let mut kept = match fits {
            Some(kept) => kept,
            None => DeviceIds {
                buffer: DeviceBuffer::new(device, bytes.next_power_of_two().max(4096))
                    .map_err(ExecError::engine)?,
                content: Vec::new(),
            },
        };
        kept.buffer.write(0, ids)?;
        kept.content.clear();
        kept.content.extend_from_slice(ids);
        run.scratch.ids = Some(kept);
    }
    let ids = run.scratch.ids.as_ref().map(|known| known.buffer.place(0));
    ids.ok_or_else(|| ExecError::Misuse("there are no ids".to_owned()))
}

/// A stand-in for the ids operand that holds `slots`, where the kernels can read it.
///
/// # Safety
/// `ids` is alive.
pub(super) unsafe fn remapped_ids(
    run: &mut GraphRun<'_>,
    ids: *const sys::ggml_tensor,
    slots: &[i32],
) -> Result<sys::ggml_tensor, ExecError> {
    if run.is_host() {
        run.scratch.slots.clear();
        run.scratch.slots.extend_from_slice(slots);
        // SAFETY: the caller's promise.
        return Ok(unsafe { plain_tensor(ids, run.scratch.slots.as_mut_ptr().cast()) });
    }
    let region = upload_ids(run, slots)?;
    // SAFETY: the caller's promise.
    let mut copy = unsafe { plain_tensor(ids, std::ptr::null_mut()) };
    copy.op = sys::GGML_OP_NONE;
    copy.src = [std::ptr::null_mut(); 10];
    (copy.buffer, copy.data) = region;
    Ok(copy)
}
