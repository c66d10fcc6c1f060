//! One graph in execution on one backend: its nodes, and running some of them.

use crate::device::Device;
use crate::error::ExecError;
use crate::sys::{self, raw};
use std::ffi::c_int;
use std::ops::Range;

use super::between::BetweenNodes;
use super::graph::Graph;
use super::operand::to_int;
use super::scratch::Scratch;

/// `enum ggml_status` of success, as a plain int.
pub(crate) const STATUS_OK: c_int = 0;
/// `GGML_STATUS_FAILED`.
pub(crate) const STATUS_FAILED: c_int = -1;
/// `GGML_STATUS_ABORTED`.
pub(crate) const STATUS_ABORTED: c_int = 1;

/// Runs the graphs that a context computes on one device. Implemented by the engine.
///
/// One decode may arrive as several graphs: where layers lie on several devices, each of them gets its parts
/// in turn.
pub trait Executor: Send {
    /// A decode begins: the graphs until [`Self::end_step`] belong to it.
    fn begin_step(&mut self) {}

    /// Computes every node of the graph, in order.
    ///
    /// # Errors
    /// Any error voids the decode in progress and is returned from it.
    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError>;

    /// The decode has ended; `ok` when all of its graphs were computed. Nothing is being computed any more.
    fn end_step(&mut self, _ok: bool) {}
}

/// One graph in execution.
pub struct GraphRun<'a> {
    inner: sys::ggml_backend_t,
    device: Device,
    graph: Graph<'a>,
    pub(super) scratch: &'a mut Scratch,
    between: &'a BetweenNodes,
}

impl<'a> GraphRun<'a> {
    /// # Safety
    /// Backend, graph and all tensors of the graph live for `'a` and are used by nobody else meanwhile. The
    /// backend is one of `device`'s inner device.
    pub(crate) unsafe fn new(
        inner: sys::ggml_backend_t,
        device: Device,
        graph: *mut raw::ggml_cgraph,
        scratch: &'a mut Scratch,
        between: &'a BetweenNodes,
    ) -> Self {
        scratch.converted.forget();
        scratch.questions.withdraw();
        // SAFETY: the caller's promise.
        let graph = unsafe { Graph::new(graph) };
        Self { inner, device, graph, scratch, between }
    }

    /// Its nodes.
    #[must_use]
    pub fn graph(&self) -> Graph<'a> {
        self.graph
    }

    /// The device that computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether it computes with host memory, and is done when a call returns. Others may only be used whole
    /// node by whole node, and are done when [`Self::synchronize`] says so.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.device.is_host()
    }

    pub(super) fn inner(&self) -> sys::ggml_backend_t {
        self.inner
    }

    /// Runs nodes as they are; a device may still be computing them when this returns.
    ///
    /// # Errors
    /// [`ExecError::Backend`] or [`ExecError::Device`], with the status of the inner backend.
    pub fn run(&mut self, range: Range<usize>) -> Result<(), ExecError> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.graph.len() {
            return Err(ExecError::Misuse(format!("nodes {range:?} of a graph of {}", self.graph.len())));
        }
        if self.scratch.plan_question(self.graph, range.clone()) {
            return self.compute_planned();
        }
        let (first, end) = (to_int(range.start)?, to_int(range.end)?);
        // SAFETY: the range lies in the live graph; the view borrows its node list for this call only.
        let mut view = unsafe { raw::ggml_graph_view(self.graph.raw(), first, end) };
        self.compute(&mut view)
    }

    /// Waits until all that was run has been computed.
    pub fn synchronize(&mut self) {
        // SAFETY: the backend is alive (`new`).
        unsafe { sys::ggml_backend_synchronize(self.inner) };
        self.scratch.settle();
    }

    /// The operands of a call are put back: the host is done with its stand-ins.
    pub(super) fn end_call(&mut self) {
        if self.is_host() {
            self.scratch.settle();
        }
    }

    /// Computes with any of the methods here, doing `work` between nodes, in the thread that computes: every
    /// few hundred microseconds for a token, and never while a node is computed. Its time is time that the
    /// other threads wait. A device computes on its own; the work is then done once, beside it.
    ///
    /// # Errors
    /// That of `compute`; [`ExecError::Panic`] when `work` panicked.
    pub fn meanwhile<T>(
        &mut self,
        work: &mut dyn FnMut(),
        compute: impl FnOnce(&mut Self) -> Result<T, ExecError>,
    ) -> Result<T, ExecError> {
        if !self.is_host() {
            let outcome = compute(self);
            work();
            return outcome;
        }
        let between = self.between;
        between.during(work, || compute(self)).map_err(ExecError::Panic)?
    }

    /// Computes the nodes that were laid out in scratch memory.
    pub(super) fn compute_planned(&mut self) -> Result<(), ExecError> {
        // SAFETY: an empty view of the live graph lends its hash set; the node list lives in scratch.
        let mut graph = unsafe { raw::ggml_graph_view(self.graph.raw(), 0, 0) };
        graph.nodes = self.scratch.nodes.as_mut_ptr();
        graph.n_nodes = to_int(self.scratch.nodes.len())?;
        self.compute(&mut graph)
    }

    fn compute(&mut self, graph: &mut raw::ggml_cgraph) -> Result<(), ExecError> {
        // SAFETY: both are alive; a backend has noted what it is to compute when the call returns.
        let status = unsafe {
            sys::ggml_backend_graph_compute_async(self.inner, (&raw mut *graph).cast::<sys::ggml_cgraph>())
        };
        if status == STATUS_OK { Ok(()) } else { Err(failed(self.device, status)) }
    }
}

/// What a status of the backend of `device` is.
fn failed(device: Device, status: c_int) -> ExecError {
    if device.is_host() || status == STATUS_ABORTED {
        ExecError::Backend(status)
    } else {
        ExecError::Device { device: device.name(), status }
    }
}
