//! Which of the weights that every token passes may stream, and which of them do.
//!
//! A forward pass uses them all, in the same order every time, so each byte of them that is in memory saves
//! one byte of reading for each token, whichever it is. They go through a ring of cells that are as large as
//! the largest of them: a weight so large that cells for it would take more memory than it gives back stays
//! resident.

use super::homes::Homes;
use super::{PAGE, PoolId};
use crate::model::{ModelShape, Streaming, TensorRole};

/// Cells of the ring, whose weights are large: one being computed, one landed, one at the disk.
const CELLS: usize = 3;
/// Smaller weights stay resident, in bytes: a streamed one is a call of its own and a read of its own.
const SMALLEST: u64 = 4 * PAGE as u64;

/// What may stream of a model's dense weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DenseWeights {
    /// Indices into [`ModelShape::tensors`], in file order, which is the order of use.
    pub weights: Vec<usize>,
    /// Bytes of them together.
    pub bytes: u64,
    /// Bytes of a cell of the ring.
    pub cell_bytes: usize,
    /// Cells of the ring.
    pub cells: usize,
}

impl DenseWeights {
    /// Chooses the weights at home on the host whose streaming leaves the least in its memory.
    pub fn of(shape: &ModelShape, homes: &Homes) -> Self {
        Self::in_pool(shape, homes, PoolId::HOST, CELLS)
    }

    /// The same of a memory, for a ring of so many cells.
    pub fn in_pool(shape: &ModelShape, homes: &Homes, pool: PoolId, cells: usize) -> Self {
        let at_home = |index: &usize| homes.of(&shape.tensors[*index]) == pool;
        let in_model = |index: &usize| shape.tensors[*index].layer.is_none_or(|layer| layer < shape.layers);
        let streamable = |index: &usize| {
            shape.tensors[*index].streaming == Streaming::Whole && bytes_of(shape, *index) >= SMALLEST
        };
        let all: Vec<usize> =
            (0..shape.tensors.len()).filter(streamable).filter(in_model).filter(at_home).collect();
        let mut sizes: Vec<u64> = all.iter().map(|index| bytes_of(shape, *index)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        // What is in memory when the weights up to a size stream: the larger ones, and the ring.
        let held = |most: u64| {
            let larger = all.iter().map(|index| bytes_of(shape, *index)).filter(|bytes| *bytes > most);
            larger.fold(ring_bytes(cells, cell_room(most)), u64::saturating_add)
        };
        let Some(most) = sizes.into_iter().min_by_key(|most| held(*most)) else { return Self::default() };
        let weights: Vec<usize> = all.into_iter().filter(|index| bytes_of(shape, *index) <= most).collect();
        let bytes = weights.iter().map(|index| bytes_of(shape, *index)).fold(0, u64::saturating_add);
        Self { weights, bytes, cell_bytes: cell_room(most), cells }
    }

    /// Bytes of the ring.
    pub fn ring_bytes(&self) -> u64 {
        ring_bytes(self.cells, self.cell_bytes)
    }

    /// Chooses weights of at least `stream_bytes` together, feed-forward ones first, evenly over the layers,
    /// so that the disk has the same work in each of them.
    pub fn stream(&self, shape: &ModelShape, stream_bytes: u64) -> Vec<usize> {
        let is_ffn = |index: &usize| {
            matches!(shape.tensors[*index].role, TensorRole::DenseFfn(_) | TensorRole::SharedExpert)
        };
        let (ffn, rest): (Vec<usize>, Vec<usize>) = self.weights.iter().copied().partition(is_ffn);
        let ffn_bytes = ffn.iter().map(|index| bytes_of(shape, *index)).fold(0, u64::saturating_add);
        let mut chosen = evenly(shape, &ffn, stream_bytes.min(ffn_bytes));
        chosen.extend(evenly(shape, &rest, stream_bytes.saturating_sub(ffn_bytes)));
        chosen.sort_unstable();
        chosen
    }
}

/// Takes weights of at least `stream_bytes` together, spread over the list, and such that a larger
/// `stream_bytes` takes the same ones and more: so more memory never streams more.
///
/// The order of taking is that of the multiples of the golden ratio, modulo 1: any prefix of it is spread
/// over the list with at most three different gaps (V. T. Sós, "On the distribution mod 1 of the sequence
/// nα", 1958).
pub(super) fn evenly(shape: &ModelShape, weights: &[usize], stream_bytes: u64) -> Vec<usize> {
    /// The golden ratio's fraction in units of 2⁻⁶⁴.
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut order: Vec<(u64, usize)> =
        (1u64..).zip(weights).map(|(number, index)| (number.wrapping_mul(GOLDEN), *index)).collect();
    order.sort_unstable();
    let mut taken = 0_u64;
    let mut chosen = Vec::new();
    for (_, index) in order {
        if taken >= stream_bytes {
            break;
        }
        taken = taken.saturating_add(bytes_of(shape, index));
        chosen.push(index);
    }
    chosen
}

/// Bytes of a tensor of the model.
pub(super) fn bytes_of(shape: &ModelShape, index: usize) -> u64 {
    shape.tensors.get(index).map_or(0, |tensor| tensor.info.bytes)
}

/// Bytes of a ring of so many cells of so many.
fn ring_bytes(cells: usize, cell_bytes: usize) -> u64 {
    (cells as u64).saturating_mul(cell_bytes as u64)
}

/// Room for a weight that begins anywhere in a page.
pub(super) fn cell_room(bytes: u64) -> usize {
    let room = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(PAGE - 1);
    room.checked_next_multiple_of(PAGE).unwrap_or(usize::MAX)
}
