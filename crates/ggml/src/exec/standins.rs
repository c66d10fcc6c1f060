//! Tensors that stand in for operands of nodes, where backends find them for as long as they look.
//!
//! Backends look at the tensors of earlier calls until they are waited for, and some keep what they made of a
//! graph for as long as the next one is the same, operands included. So a stand-in stays at its address: the
//! next call that needs the same one gets it, and one that is replaced stays until the backend was waited
//! for.

use crate::sys;
use std::collections::HashMap;

/// More than any model has nodes with streamed weights, in all the shapes that its graphs take.
const MOST: usize = 1 << 16;

/// Stand-ins of one backend.
#[derive(Default)]
pub(super) struct StandIns {
    /// By the node, as its address, and the number of its operand.
    current: HashMap<(usize, usize), Box<sys::ggml_tensor>>,
    #[expect(clippy::vec_box, reason = "a backend may still look at them, where they are")]
    replaced: Vec<Box<sys::ggml_tensor>>,
}

impl StandIns {
    /// The address of a stand-in like `tensor`.
    pub fn place(
        &mut self,
        node: *const sys::ggml_tensor,
        operand: usize,
        tensor: sys::ggml_tensor,
    ) -> *mut sys::ggml_tensor {
        let key = (node as usize, operand);
        if self.current.get(&key).is_none_or(|known| !is_same(known, &tensor)) {
            self.replaced.extend(self.current.insert(key, Box::new(tensor)));
        }
        self.current.get_mut(&key).map_or(std::ptr::null_mut(), |known| &raw mut **known)
    }

    /// The backend was waited for.
    pub fn settle(&mut self) {
        self.replaced.clear();
        if self.current.len() > MOST {
            self.current.clear();
        }
    }
}

/// Whether kernels see no difference.
fn is_same(one: &sys::ggml_tensor, other: &sys::ggml_tensor) -> bool {
    (one.type_, one.op, one.flags, one.ne, one.nb) == (other.type_, other.op, other.flags, other.ne, other.nb)
        && (one.data, one.buffer, one.extra) == (other.data, other.buffer, other.extra)
        && (one.src, one.view_src, one.view_offs) == (other.src, other.view_src, other.view_offs)
        && (one.op_params, one.name) == (other.op_params, other.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(columns: i64) -> sys::ggml_tensor {
        // SAFETY: zeroes are a valid tensor.
        let mut tensor: sys::ggml_tensor = unsafe { std::mem::zeroed() };
        tensor.ne[0] = columns;
        tensor
    }

    #[test]
    fn a_stand_in_that_has_not_changed_keeps_its_address_and_another_does_not_overwrite_it() {
        let (mut standins, node) = (StandIns::default(), tensor(0));
        let first = standins.place(&raw const node, 0, tensor(1));
        assert_eq!(standins.place(&raw const node, 0, tensor(1)), first);
        let weight = standins.place(&raw const node, 2, tensor(1));
        assert_ne!(weight, first);
        let second = standins.place(&raw const node, 0, tensor(2));
        assert_ne!(second, first);
        // SAFETY: what was replaced stays until `settle`.
        assert_eq!(unsafe { ((*first).ne[0], (*second).ne[0]) }, (1, 2));
        standins.settle();
        assert_eq!(standins.place(&raw const node, 0, tensor(2)), second);
        assert!(standins.replaced.is_empty());
    }
}
