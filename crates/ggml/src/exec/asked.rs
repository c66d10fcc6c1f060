//! Questions to routers on a device: what is asked behind the nodes that are run next, and what was answered.

use crate::memory::DeviceBuffer;
use crate::sys;
use std::collections::HashMap;
use std::ffi::c_void;

use super::graph::WeightId;

/// Questions of one context.
#[derive(Default)]
pub(crate) struct Questions {
    /// By the matrices of the router whose input it is, and of the one that is asked.
    pub(super) memory: HashMap<(WeightId, WeightId), QuestionMemory>,
    /// Behind the nodes that are run next.
    nodes: Vec<*mut sys::ggml_tensor>,
    /// What `nodes` ask.
    next: Option<Asked>,
    /// What was asked last.
    asked: Option<Asked>,
    answer: Option<(WeightId, Vec<f32>)>,
}
// SAFETY: the pointers are to stand-ins of the same scratch memory, which one thread at a time uses.
unsafe impl Send for Questions {}

/// The memory of one question: factors, rows, scores.
pub(super) struct QuestionMemory {
    pub buffer: DeviceBuffer,
    /// Whether the rows are exchanged before they are asked about.
    pub exchanged: bool,
    pub tokens: usize,
}

/// A router that was asked, and its scores on the device: so many floats.
struct Asked {
    router: WeightId,
    scores: *mut sys::ggml_tensor,
    count: usize,
}

impl Questions {
    /// `nodes` ask a router behind what is run next; the last of them makes `count` scores.
    pub fn ask(
        &mut self,
        router: WeightId,
        nodes: Vec<*mut sys::ggml_tensor>,
        scores: *mut sys::ggml_tensor,
        count: usize,
    ) {
        self.next = Some(Asked { router, scores, count });
        self.nodes = nodes;
    }

    /// A graph begins, or what was to be run next will not be.
    pub fn withdraw(&mut self) {
        self.nodes.clear();
        self.next = None;
    }

    /// Its nodes are run behind others, now.
    pub fn take_nodes(&mut self) -> Vec<*mut sys::ggml_tensor> {
        // The last answer may not have been looked at yet.
        self.asked = self.next.take().or(self.asked.take());
        std::mem::take(&mut self.nodes)
    }

    /// Has the scores of what was asked copied to the host by `copy`, which is given the tensor, which is a
    /// live stand-in, and a place for as many bytes as it has.
    pub fn fetch(&mut self, copy: impl FnOnce(*mut sys::ggml_tensor, *mut c_void, usize)) {
        let Some(Asked { router, scores, count }) = self.asked.take() else { return };
        let mut answer = vec![0.0f32; count];
        copy(scores, answer.as_mut_ptr().cast(), size_of_val(answer.as_slice()));
        self.answer = Some((router, answer));
    }

    /// The answer of a router; `None` when it was taken already.
    pub fn take_answer(&mut self, router: WeightId) -> Option<Vec<f32>> {
        self.answer.take_if(|(of, _)| *of == router).map(|(_, scores)| scores)
    }
}
