//! A graph as it was when it was handed over: ggml may build the next one in the same memory, and operands
//! that were exchanged are put back as soon as the call returns.

use crate::sys::{self, raw};
use std::collections::HashMap;
use std::ffi::CStr;
use std::ops::Range;

use super::memory::{host_address, span};
use super::order::{Access, Order};

/// Tells where the bytes are that will be at an address when all that was handed over before is done.
pub(super) type Upcoming<'a> = &'a dyn Fn(*const u8) -> *const u8;

/// Copies of a graph's tensors, with addresses that the CPU can follow.
pub(super) struct Captured {
    #[expect(clippy::vec_box, reason = "they point at each other, so they must not move")]
    tensors: Vec<Box<sys::ggml_tensor>>,
    nodes: Vec<*mut sys::ggml_tensor>,
}

impl Captured {
    /// Copies a graph. What it reads and writes comes with it. Tensors elsewhere than in memory of the device
    /// are violations, and the graph is then none.
    ///
    /// # Safety
    /// Graph, nodes and operands are alive.
    pub unsafe fn new(
        graph: *const raw::ggml_cgraph,
        order: &Order,
        upcoming: Upcoming<'_>,
    ) -> Option<(Self, Vec<Access>)> {
        let mut captured = Self { tensors: Vec::new(), nodes: Vec::new() };
        let mut accesses = Vec::new();
        let mut known = HashMap::new();
        // SAFETY: the caller's promise.
        unsafe {
            let count = usize::try_from((*graph).n_nodes).unwrap_or(0);
            for node in (0..count).map(|index| *(*graph).nodes.add(index)) {
                if is_nothing(node) {
                    // A shape of something else: those who use it are given its address.
                    continue;
                }
                let mut sources = [std::ptr::null_mut(); 10];
                for (source, copy) in (*node).src.into_iter().zip(&mut sources) {
                    if !source.is_null() {
                        *copy = captured.copy(source, &mut known, order)?;
                    }
                }
                for span in reads(node, upcoming) {
                    accesses.push(Access { span, writes: false });
                }
                accesses.push(Access { span: span(node, 0, sys::ggml_nbytes(node)), writes: true });
                let copy = captured.copy(node, &mut known, order)?;
                (*copy).src = sources;
                captured.nodes.push(copy);
            }
        }
        Some((captured, accesses))
    }

    /// # Safety
    /// `tensor` is alive.
    unsafe fn copy(
        &mut self,
        tensor: *mut sys::ggml_tensor,
        known: &mut HashMap<usize, *mut sys::ggml_tensor>,
        order: &Order,
    ) -> Option<*mut sys::ggml_tensor> {
        if let Some(copy) = known.get(&(tensor as usize)) {
            return Some(*copy);
        }
        // SAFETY: the caller's promise.
        let (mut copy, address) = unsafe { (Box::new(*tensor), host_address(tensor)) };
        let Some(address) = address else {
            // SAFETY: the name of a live tensor is NUL-terminated.
            let name = unsafe { CStr::from_ptr((*tensor).name.as_ptr()) }.to_string_lossy();
            order.violation(format!("a graph uses tensor {name}, which is not in memory of the device"));
            return None;
        };
        copy.data = address.cast();
        copy.buffer = std::ptr::null_mut();
        copy.view_src = std::ptr::null_mut();
        copy.extra = std::ptr::null_mut();
        copy.src = [std::ptr::null_mut(); 10];
        let pointer = &raw mut *copy;
        self.tensors.push(copy);
        known.insert(tensor as usize, pointer);
        Some(pointer)
    }

    /// Computes it.
    ///
    /// # Safety
    /// `backend` is a live CPU backend that nobody else uses, and the memory that the graph uses is alive.
    pub unsafe fn compute(mut self, backend: sys::ggml_backend_t) -> bool {
        let count = self.nodes.len();
        // SAFETY: the context holds one graph of as many nodes, whose list is replaced by ours for the call;
        // nodes and operands are owned by `self`.
        unsafe {
            let params = sys::ggml_init_params {
                mem_size: sys::ggml_graph_overhead_custom(count.max(1), false) + sys::ggml_tensor_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            };
            let context = sys::ggml_init(params);
            if context.is_null() {
                return false;
            }
            let graph = sys::ggml_new_graph_custom(context, count.max(1), false);
            let raw = graph.cast::<raw::ggml_cgraph>();
            (*raw).nodes = self.nodes.as_mut_ptr();
            (*raw).n_nodes = i32::try_from(count).unwrap_or(0);
            let status = sys::ggml_backend_graph_compute(backend, graph);
            sys::ggml_free(context);
            status == crate::exec::STATUS_OK
        }
    }
}

/// Whether a node computes nothing.
///
/// # Safety
/// `node` is alive.
unsafe fn is_nothing(node: *const sys::ggml_tensor) -> bool {
    // SAFETY: the caller's promise.
    let op = unsafe { (*node).op };
    matches!(
        op,
        sys::GGML_OP_NONE
            | sys::GGML_OP_RESHAPE
            | sys::GGML_OP_VIEW
            | sys::GGML_OP_PERMUTE
            | sys::GGML_OP_TRANSPOSE
    )
}

/// The addresses that a node reads. Of a stack of experts only those that the ids name, as far as the ids are
/// known yet: other slots may be written to meanwhile.
///
/// # Safety
/// Node and operands are alive.
unsafe fn reads(node: *const sys::ggml_tensor, upcoming: Upcoming<'_>) -> Vec<Range<usize>> {
    // SAFETY: the caller's promise; ids that are a leaf come from the host, through this queue, and are kept
    // where they come from until it was waited for.
    unsafe {
        let sources = (*node).src.into_iter().filter(|source| !source.is_null());
        let whole = |source: *mut sys::ggml_tensor| span(source, 0, sys::ggml_nbytes(source));
        let ids = (*node).src[2];
        let known = (*node).op == sys::GGML_OP_MUL_MAT_ID && (*ids).op == sys::GGML_OP_NONE;
        let Some(address) = known.then(|| host_address(ids)).flatten() else {
            return sources.map(whole).collect();
        };
        let mut spans: Vec<_> = sources.skip(1).map(whole).collect();
        let stack = (*node).src[0];
        let address = upcoming(address);
        for at in 0..sys::ggml_nbytes(ids) / 4 {
            let slot = address.cast::<i32>().add(at).read_unaligned();
            if let Ok(slot) = usize::try_from(slot) {
                let slice = sys::ggml_row_size((*stack).type_, (*stack).ne[0])
                    * usize::try_from((*stack).ne[1]).unwrap_or(0);
                spans.push(span(stack, slot * (*stack).nb[2], slice));
            }
        }
        spans
    }
}
