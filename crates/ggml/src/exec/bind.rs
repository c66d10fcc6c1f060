//! Operands elsewhere: weights in memory that the engine supplies, ids where the kernels of a device read
//! them.

use crate::error::ExecError;
use crate::memory::{Bytes, DeviceBuffer};
use crate::sys;
use std::ffi::c_void;

use super::operand::{plain_tensor, to_i64};
use super::run::GraphRun;
use super::scratch::LayerIds;
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
    if run.device().counts_in_blocks()
        && !run.is_host()
        && binding.slots > 1
        && !binding.stride.is_multiple_of(block)
    {
        return Err(ExecError::Misuse(format!("slots {} bytes apart are no whole blocks", binding.stride)));
    }
    bound.ne[2] = to_i64(binding.slots)?;
    bound.nb[2] = binding.stride;
    bound.nb[3] = binding.stride * binding.slots;
    Ok(bound)
}

/// A buffer of ids is at least so large.
const LEAST_IDS_BYTES: usize = 4096;

/// Most layers, in all the shapes that graphs take, whose ids are kept.
const MOST_IDS: usize = 1024;

/// Brings ids to the device, at a place that `operand` has for itself; returns the buffer and the address
/// that a tensor of them has.
fn upload_ids(
    run: &mut GraphRun<'_>,
    operand: usize,
    ids: &[i32],
) -> Result<(sys::ggml_backend_buffer_t, *mut c_void), ExecError> {
    let bytes = size_of_val(ids);
    let known = run.scratch.ids.get(&operand);
    if let Some(known) = known.filter(|known| known.content == ids) {
        return Ok(known.buffer.place(0));
    }
    let waits = run.scratch.waits;
    if known.is_some_and(|known| known.written == waits) || run.scratch.ids.len() > MOST_IDS {
        // Kernels may still read what was there.
        run.synchronize();
    }
    if run.scratch.ids.len() > MOST_IDS {
        run.scratch.ids.clear();
    }
    let device = run.device();
    let fits = run.scratch.ids.remove(&operand).filter(|known| known.buffer.len() >= bytes);
    let mut kept = match fits {
        Some(kept) => kept,
        None => LayerIds {
            buffer: DeviceBuffer::new(device, bytes.next_power_of_two().max(LEAST_IDS_BYTES))
                .map_err(ExecError::engine)?,
            content: Vec::new(),
            written: 0,
        },
    };
    kept.content.clear();
    kept.content.extend_from_slice(ids);
    kept.written = run.scratch.waits;
    let short = || ExecError::Misuse("there is no room for ids".to_owned());
    let mut tensor = kept.buffer.tensor(0, bytes).ok_or_else(short)?;
    // SAFETY: the backend is alive; the tensor describes bytes inside the buffer. Both and the content stay
    // as they are until the backend was waited for; the description is read during the call alone.
    unsafe {
        let from = kept.content.as_ptr().cast();
        sys::ggml_backend_tensor_set_async(run.inner(), &raw mut tensor, from, 0, bytes);
    }
    let place = kept.buffer.place(0);
    run.scratch.ids.insert(operand, kept);
    Ok(place)
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
    let region = upload_ids(run, ids as usize, slots)?;
    // SAFETY: the caller's promise.
    let mut copy = unsafe { plain_tensor(ids, std::ptr::null_mut()) };
    copy.op = sys::GGML_OP_NONE;
    copy.src = [std::ptr::null_mut(); 10];
    (copy.buffer, copy.data) = region;
    Ok(copy)
}
