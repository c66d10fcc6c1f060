//! Where the bytes of an expert go: slots, their parts, and what to read to fill them.
//!
//! Pure arithmetic over the model's shape. A slot holds every part of one expert. Direct I/O reads whole
//! pages, so a part lands `shift` bytes into its room. Where slices are whole pages long, the shift is the
//! same for every expert of a tensor, and the tensor is simply addressed `shift` bytes further on; otherwise
//! the bytes are moved to the start of the room after the read.
//!
//! The parts of a slot lie together, or, where a device computes with them in the host's memory, each in a
//! bank of its own (`banks`).

use std::collections::BTreeMap;

use super::PAGE;
use super::homes::Homes;
use super::pool::PoolId;
use crate::model::{ExpertLayer, ExpertPart, ModelShape, Window};

/// One part of the experts of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartLayout {
    /// Which matrix.
    pub part: ExpertPart,
    /// Name of the stacked tensor.
    pub tensor: String,
    /// Which shard's file.
    pub shard: usize,
    /// Where expert 0 begins in the shard's file.
    pub file_offset: u64,
    /// Bytes of one expert.
    pub slice_bytes: usize,
    /// Bytes of a block of its type.
    pub block_bytes: usize,
    /// Where the part's room begins in a slot; in banks, in as many bytes for each slot before the bank
    /// begins.
    pub at: usize,
    /// Bytes from slot to slot.
    pub stride: usize,
    /// Constant distance from the start of the room to the slice; `None` when slices are moved to the start.
    pub shift: Option<usize>,
}

/// What to read for one part of one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRead {
    /// First byte in the file, a multiple of the page.
    pub offset: u64,
    /// Bytes to ask for, a multiple of the page.
    pub len: usize,
    /// Bytes that must be there; the last page may reach beyond the end of the file.
    pub required: usize,
    /// Where the slice begins in what was read, when it has to be moved.
    pub move_from: Option<usize>,
}

/// One expert layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerLayout {
    /// Layer (`N` of `blk.N`).
    pub layer: u32,
    /// Index into [`ExpertLayout::classes`].
    pub class: usize,
    /// How many experts there are.
    pub experts: u32,
    /// How many of them a token uses.
    pub used: u32,
    /// Their parts, in the order of the model's shape.
    pub parts: Vec<PartLayout>,
}

/// One part of all slots of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank {
    /// It begins this many bytes for each slot behind the beginning of the class.
    pub at: usize,
    /// Bytes from slot to slot.
    pub stride: usize,
}

/// Slots of one size class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassLayout {
    /// Bytes from one slot to the next, a multiple of the page.
    pub slot_bytes: usize,
    /// Experts that compete for its slots.
    pub experts: u64,
    /// Most experts a token uses in one of its layers.
    pub used: u32,
    /// Most slots that one operand of a device's kernels can be; where the host computes, all there are.
    pub most_slots: u64,
    /// Of each part, where parts lie in banks; empty where they lie together.
    pub banks: Vec<Bank>,
}

/// All expert layers of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpertLayout {
    /// Ascending by layer.
    pub layers: Vec<LayerLayout>,
    /// Size classes of slots.
    pub classes: Vec<ClassLayout>,
    /// Room for the largest part of any layer: the size of a throwaway cell.
    pub cell_bytes: usize,
}

impl ClassLayout {
    /// Bytes of slots if every expert of the class had one.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.experts.saturating_mul(self.slot_bytes as u64)
    }
}

impl PartRead {
    /// The whole pages around `bytes` of a file, used where they land.
    #[must_use]
    pub fn around(offset: u64, bytes: usize) -> Self {
        let window = Window::around(offset, bytes as u64, PAGE as u64);
        // Less than a page, and a page more than a size in memory: both fit.
        let shift = window.shift as usize;
        Self { offset: window.offset, len: window.bytes as usize, required: shift + bytes, move_from: None }
    }
}

impl PartLayout {
    /// The whole pages around the slice of `expert`.
    pub fn read(&self, expert: u32) -> PartRead {
        let start = self.file_offset + u64::from(expert) * self.slice_bytes as u64;
        let read = PartRead::around(start, self.slice_bytes);
        let shift = read.required - self.slice_bytes;
        // Slots that are not whole pages do not begin where reads land.
        let moves = self.shift.is_none() && (shift != 0 || !self.stride.is_multiple_of(PAGE));
        PartRead { move_from: moves.then_some(shift), ..read }
    }

    /// Room for any slice of this tensor, in whole pages.
    pub(super) fn room(&self) -> usize {
        let shift = self.shift.unwrap_or(PAGE - 1);
        shift.saturating_add(self.slice_bytes).checked_next_multiple_of(PAGE).unwrap_or(usize::MAX)
    }
}

impl LayerLayout {
    /// Bytes of one part of all experts, one behind the other.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    pub fn stack_bytes(&self, part: usize) -> usize {
        self.parts[part].slice_bytes.saturating_mul(self.experts as usize)
    }
}

impl ExpertLayout {
    /// Lays out every expert layer of a model.
    pub fn new(shape: &ModelShape) -> Self {
        let mut layout = Self::default();
        for (class, size_class) in shape.size_classes().iter().enumerate() {
            let mut layers: Vec<LayerLayout> = size_class
                .layers
                .iter()
                .filter_map(|layer| shape.expert_layer(*layer))
                .map(|layer| layer_of(shape, layer, class))
                .collect();
            let slot_bytes = place_parts(&mut layers);
            layout.cell_bytes = layers
                .iter()
                .flat_map(|layer| layer.parts.iter().map(PartLayout::room))
                .fold(layout.cell_bytes, usize::max);
            let used = layers.iter().map(|layer| layer.used).max().unwrap_or(0);
            let experts = size_class.experts;
            layout.classes.push(ClassLayout {
                slot_bytes,
                experts,
                used,
                most_slots: experts,
                banks: Vec::new(),
            });
            layout.layers.append(&mut layers);
        }
        layout.layers.sort_by_key(|layer| layer.layer);
        layout
    }

    /// What of it is at home on the host. Classes keep their places, also without experts.
    #[must_use]
    pub fn on_host(&self, homes: &Homes) -> Self {
        let here = |layer: &&LayerLayout| {
            homes.layers.get(layer.layer as usize).is_none_or(|home| home.experts == PoolId::HOST)
        };
        let layers: Vec<LayerLayout> = self.layers.iter().filter(here).cloned().collect();
        let mut classes = self.classes.clone();
        for (index, class) in classes.iter_mut().enumerate() {
            let experts = layers.iter().filter(|layer| layer.class == index);
            class.experts = experts.map(|layer| u64::from(layer.experts)).sum();
        }
        Self { layers, classes, ..self.clone() }
    }

    /// The layer and part of a stacked tensor.
    pub fn by_tensor(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut map = BTreeMap::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for (part, layout) in layer.parts.iter().enumerate() {
                map.insert(layout.tensor.as_str(), (index, part));
            }
        }
        map
    }

    /// Bytes of the largest stack: one part of all experts of a layer.
    pub fn largest_stack_bytes(&self) -> usize {
        let stacks = |layer: &LayerLayout| {
            (0..layer.parts.len()).map(|part| layer.stack_bytes(part)).max().unwrap_or(0)
        };
        self.layers.iter().map(stacks).max().unwrap_or(0)
    }

    /// Bytes of slots if every expert had one.
    pub fn total_bytes(&self) -> u64 {
        self.classes.iter().fold(0, |sum, class| sum.saturating_add(class.total_bytes()))
    }
}

fn layer_of(shape: &ModelShape, layer: &ExpertLayer, class: usize) -> LayerLayout {
    let parts = layer
        .parts
        .iter()
        .map(|stack| {
            let info = &shape.tensors[stack.tensor].info;
            // A slice is a part of a tensor that fits the file, and files fit the address space of a 64-bit
            // machine.
            let slice_bytes = usize::try_from(stack.slice_bytes).unwrap_or(usize::MAX);
            PartLayout {
                part: stack.part,
                tensor: info.name.clone(),
                shard: info.shard,
                file_offset: info.offset,
                slice_bytes,
                block_bytes: info.ty.block_bytes() as usize,
                at: 0,
                stride: 0,
                shift: slice_bytes.is_multiple_of(PAGE).then_some((info.offset % PAGE as u64) as usize),
            }
        })
        .collect();
    LayerLayout { layer: layer.layer, class, experts: layer.experts, used: layer.used, parts }
}

/// Gives each part of a class its room, the same in every layer; returns the size of a slot.
fn place_parts(layers: &mut [LayerLayout]) -> usize {
    let parts = layers.iter().map(|layer| layer.parts.len()).max().unwrap_or(0);
    let mut at = 0_usize;
    for part in 0..parts {
        let room = layers.iter().filter_map(|layer| layer.parts.get(part)).map(PartLayout::room).max();
        for layer in layers.iter_mut() {
            if let Some(layout) = layer.parts.get_mut(part) {
                layout.at = at;
            }
        }
        at = at.saturating_add(room.unwrap_or(0));
    }
    for layout in layers.iter_mut().flat_map(|layer| &mut layer.parts) {
        layout.stride = at;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(file_offset: u64, slice_bytes: usize) -> PartLayout {
        PartLayout {
            part: ExpertPart::Up,
            tensor: "t".to_owned(),
            shard: 0,
            file_offset,
            slice_bytes,
            block_bytes: 1,
            at: 0,
            stride: 0,
            shift: slice_bytes.is_multiple_of(PAGE).then_some((file_offset % PAGE as u64) as usize),
        }
    }

    #[test]
    fn page_sized_slices_share_one_shift_and_are_never_moved() {
        let layout = part(4096 * 10 + 160, 8192);
        for expert in 0..5 {
            let read = layout.read(expert);
            assert_eq!(read.offset, 4096 * 10 + u64::from(expert) * 8192);
            assert_eq!((read.len, read.required, read.move_from), (12288, 8192 + 160, None));
        }
        assert_eq!(layout.shift, Some(160));
        assert_eq!(layout.room(), 12288);
    }

    #[test]
    fn other_slices_are_moved_and_fit_their_room_wherever_they_start() {
        let layout = part(96, 107_520);
        for expert in 0..100 {
            let read = layout.read(expert);
            let start = 96 + u64::from(expert) * 107_520;
            assert_eq!(read.offset % 4096, 0);
            assert_eq!(read.offset + read.move_from.unwrap_or(0) as u64, start);
            assert!(read.required <= read.len && read.len <= layout.room());
        }
        assert_eq!(layout.shift, None);
    }

    #[test]
    fn parts_have_the_same_place_in_every_layer_of_a_class() {
        let layer = |first: u64| LayerLayout {
            layer: 0,
            class: 0,
            experts: 4,
            used: 2,
            parts: vec![part(first, 8192), part(first + 4096 * 100, 4096)],
        };
        let mut layers = vec![layer(0), layer(32)];
        assert_eq!(place_parts(&mut layers), 12288 + 8192);
        assert_eq!(layers[0].parts[1].at, 12288);
        assert_eq!(layers[1].parts[1].at, 12288);
    }
}
