//! Memory that calls reuse: rows and stand-ins of a call, and what is kept from one to the next.

use crate::memory::DeviceBuffer;
use crate::sys;
use std::collections::HashMap;
use std::ops::Range;

use super::asked::Questions;
use super::copies::RouterCopies;
use super::graph::Graph;
use super::standins::StandIns;

/// Memory reused from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) input: Vec<f32>,
    pub(super) output: Vec<f32>,
    pub(super) slots: Vec<i32>,
    pub(super) tensors: Vec<sys::ggml_tensor>,
    pub(super) nodes: Vec<*mut sys::ggml_tensor>,
    pub(super) converted: Converted,
    pub(super) routers: RouterCopies,
    pub(super) chain: ChainScratch,
    pub(super) ids: DeviceIds,
    /// For devices.
    pub(super) standins: StandIns,
    pub(super) questions: Questions,
    /// Times that the backend was waited for.
    pub(super) waits: u64,
}

impl Scratch {
    /// The backend was waited for, or is done when a call returns.
    pub(crate) fn settle(&mut self) {
        self.waits += 1;
        self.standins.settle();
    }

    /// Lays out nodes of a graph with those of a question behind them, if there is one.
    pub(super) fn plan_question(&mut self, graph: Graph<'_>, range: Range<usize>) -> bool {
        let behind = self.questions.take_nodes();
        if behind.is_empty() {
            return false;
        }
        self.nodes.clear();
        self.nodes.extend(range.map(|node| graph.node(node)).chain(behind));
        true
    }

    /// Keeps a stand-in where it stays.
    pub(super) fn push(&mut self, tensor: sys::ggml_tensor) -> *mut sys::ggml_tensor {
        assert!(self.tensors.len() < self.tensors.capacity(), "stand-ins must not move");
        self.tensors.push(tensor);
        // SAFETY: the element was just pushed.
        unsafe { self.tensors.as_mut_ptr().add(self.tensors.len() - 1) }
    }
}

/// The input of one node in another type, until the graph ends or another input is converted.
#[derive(Default)]
pub(crate) struct Converted {
    /// The tensor that was converted, and into what.
    pub(super) of: Option<(usize, sys::ggml_type)>,
    /// Its rows, one after the other. Blocks of these types are made of whole words of four bytes.
    pub(super) words: Vec<f32>,
    pub(super) form: RowForm,
}

/// How one row looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowForm {
    pub ty: sys::ggml_type,
    /// Words of four bytes in a row.
    pub words: usize,
}

impl Converted {
    /// What was converted is of a graph that is over.
    pub fn forget(&mut self) {
        self.of = None;
    }
}

/// Results that wait for the others of their layer.
#[derive(Default)]
pub(super) struct ChainScratch {
    /// The pair at each position, in the order of computing.
    pub order: Vec<u32>,
    /// The position of each pair, `usize::MAX` while it has none.
    pub position: Vec<usize>,
    /// For each step its result rows by position.
    pub results: Vec<Vec<f32>>,
    /// Slots, then expert numbers, then slots of the last product: the ids operands of one call.
    pub ids: Vec<i32>,
    pub experts: Vec<i32>,
}

/// Ids that the kernels of a device read, by the operand that they replace, as its address: a layer finds its
/// own at the same place in each step.
pub(super) type DeviceIds = HashMap<usize, LayerIds>;

/// The ids of a layer.
pub(super) struct LayerIds {
    pub buffer: DeviceBuffer,
    /// What is in it, or on its way there: copied from here.
    pub content: Vec<i32>,
    /// [`Scratch::waits`] when it was written.
    pub written: u64,
}
