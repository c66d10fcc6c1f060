//! The ids of a `MUL_MAT_ID`: which experts each token uses.

use crate::error::ExecError;
use crate::sys;
use std::ffi::c_void;

use super::graph::StreamedOp;
use super::memory::is_host;
use super::run::GraphRun;

/// The ids operand of a `MUL_MAT_ID`: which experts each token uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoeIds {
    /// Experts per token.
    pub used: usize,
    /// Tokens of the step.
    pub tokens: usize,
    /// `tokens × used` expert numbers, token by token; −1 means none.
    pub experts: Vec<i32>,
}

impl MoeIds {
    /// Reads the ids operand of a `MUL_MAT_ID`. The node that makes it must have run; on a device, all that
    /// was launched is waited for.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID` or an id is out of range.
    pub fn read(run: &mut GraphRun<'_>, op: StreamedOp) -> Result<Self, ExecError> {
        let (used, tokens) = run.graph().ids_shape(op)?;
        let node = run.graph().node(op.node);
        // SAFETY: the weight of a MUL_MAT_ID is alive.
        let expert_count = unsafe { (*(*node).src[0]).ne[2] };
        let mut experts = Vec::with_capacity(used * tokens);
        with_ids(run, op, |bytes, [row, element]| {
            for at in (0..tokens).flat_map(|token| (0..used).map(move |slot| token * row + slot * element)) {
                let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                experts.push(i32::from_ne_bytes(four));
            }
            Some(())
        })?;
        match experts.iter().find(|id| **id < -1 || i64::from(**id) >= expert_count) {
            Some(id) => Err(ExecError::Misuse(format!("expert {id} of {expert_count}"))),
            None => Ok(Self { used, tokens, experts }),
        }
    }

    /// Makes these the chosen experts. The node that makes them must have run, the nodes that use them not
    /// yet.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the shape or an expert does not fit.
    pub fn force(&self, run: &mut GraphRun<'_>, op: StreamedOp) -> Result<(), ExecError> {
        let current = Self::read(run, op)?;
        if (current.used, current.tokens, current.experts.len())
            != (self.used, self.tokens, self.experts.len())
        {
            return Err(ExecError::Misuse("the forced ids have another shape".to_owned()));
        }
        let ids = ids_of(run, op)?;
        // SAFETY: the weight of a MUL_MAT_ID is alive.
        let expert_count = unsafe { (*(*run.graph().node(op.node)).src[0]).ne[2] };
        if let Some(expert) = self.experts.iter().find(|id| **id < -1 || i64::from(**id) >= expert_count) {
            return Err(ExecError::Misuse(format!("expert {expert} of {expert_count}")));
        }
        for (at, expert) in self.experts.iter().enumerate() {
            let (token, slot) = (at / self.used, at % self.used);
            // SAFETY: the ids operand is alive, token and slot are inside its shape, and only the nodes to
            // come read it: a device has nothing to do (`moe_ids`).
            unsafe {
                let place = token * (*ids).nb[1] + slot * (*ids).nb[0];
                sys::ggml_backend_tensor_set(ids, std::ptr::from_ref(expert).cast(), place, 4);
            }
        }
        Ok(())
    }
}

/// Gives the bytes of the ids operand to `read`, with the strides of a row and of an element.
fn with_ids(
    run: &mut GraphRun<'_>,
    op: StreamedOp,
    read: impl FnOnce(&[u8], [usize; 2]) -> Option<()>,
) -> Result<(), ExecError> {
    let ids = ids_of(run, op)?;
    // SAFETY: the ids operand is alive and has been computed. Host memory holds all of its bytes; from
    // other memory they are copied once the backend is done.
    let outcome = unsafe {
        let length = sys::ggml_nbytes(ids);
        let strides = [(*ids).nb[1], (*ids).nb[0]];
        if is_host(ids) {
            read(std::slice::from_raw_parts((*ids).data.cast::<u8>(), length), strides)
        } else {
            let mut bytes = vec![0u8; length];
            read_back(run, ids, bytes.as_mut_ptr().cast(), length);
            read(&bytes, strides)
        }
    };
    outcome.ok_or_else(|| ExecError::Misuse("the ids are shorter than their shape".to_owned()))
}

/// Waits until all that was run has been computed, and copies a tensor of the graph to the host, with the
/// scores of the router that was asked behind it.
///
/// # Safety
/// The tensor is alive, in memory of the device, and has `bytes` bytes, as many as there is room for at `to`.
unsafe fn read_back(run: &mut GraphRun<'_>, tensor: *const sys::ggml_tensor, to: *mut c_void, bytes: usize) {
    let (backend, queues) = (run.inner(), run.device().copies_to_host_behind_graphs());
    if !queues {
        run.synchronize();
    }
    // SAFETY: the caller's promise, and that of `Questions::fetch`. Copies behind what was run are done when
    // the backend was waited for, below, and others when the call returns.
    let copy = |tensor: *const sys::ggml_tensor, to: *mut c_void, bytes: usize| unsafe {
        if queues {
            sys::ggml_backend_tensor_get_async(backend, tensor, to, 0, bytes);
        } else {
            sys::ggml_backend_tensor_get(tensor, to, 0, bytes);
        }
    };
    copy(tensor, to, bytes);
    run.scratch.questions.fetch(|scores, to, bytes| copy(scores, to, bytes));
    if queues {
        run.synchronize();
    }
}

/// The ids operand.
fn ids_of(run: &GraphRun<'_>, op: StreamedOp) -> Result<*mut sys::ggml_tensor, ExecError> {
    run.graph().ids_shape(op)?;
    // SAFETY: a MUL_MAT_ID has an ids operand; it has I32 elements by ggml's own assertion.
    let ids = unsafe { (*run.graph().node(op.node)).src[2] };
    // SAFETY: as above; alive with the graph.
    if unsafe { (*ids).data.is_null() } {
        return Err(ExecError::Misuse("the ids have no memory".to_owned()));
    }
    Ok(ids)
}
