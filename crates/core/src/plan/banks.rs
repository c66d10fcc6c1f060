//! Slots whose parts lie apart, for a device that computes with slices where they are in the host's memory.
//!
//! Each part has a bank of its own: slices of one part, slot by slot. Kernels of most devices count from one
//! slice to the next in whole blocks of its type, and bind so much memory as one operand and no more. Direct
//! I/O wants pages; so a distance is whole pages and whole blocks at once where that wastes little, and
//! otherwise whole blocks with room for the pages around a slice, which is then moved after each read.
//!
//! A class whose bank of all experts would be larger than an operand becomes several, of some layers each.

use super::PAGE;
use super::layout::{Bank, ClassLayout, ExpertLayout, LayerLayout, PartLayout};
use crate::model::ModelShape;

/// Distances of whole pages and whole blocks may waste one part in so many of a slice.
const WASTE: usize = 16;

/// What a device asks of slices that its kernels compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankRules {
    /// The first slice begins at a multiple of this.
    pub alignment: usize,
    /// Whether kernels count from slice to slice in whole blocks.
    pub whole_blocks: bool,
    /// Most bytes of an operand.
    pub largest_bytes: usize,
}

impl ExpertLayout {
    /// Lays out every expert layer of a model for a device that computes with the slices where they are.
    #[must_use]
    pub fn in_banks(shape: &ModelShape, rules: BankRules) -> Self {
        into_banks(Self::new(shape), rules)
    }
}

/// Divides the classes of a layout as `rules` ask, and gives each part its bank.
fn into_banks(layout: ExpertLayout, rules: BankRules) -> ExpertLayout {
    let mut banked = ExpertLayout { cell_bytes: layout.cell_bytes, ..ExpertLayout::default() };
    for class in 0..layout.classes.len() {
        let mut layers: Vec<LayerLayout> =
            layout.layers.iter().filter(|layer| layer.class == class).cloned().collect();
        let banks = place(&mut layers, rules);
        let stride = banks.iter().map(|bank| bank.stride).max().unwrap_or(0).max(1);
        let most_slots = (rules.largest_bytes / stride) as u64;
        let all: u64 = layers.iter().map(|layer| u64::from(layer.experts)).sum();
        let groups = usize::try_from(all.div_ceil(most_slots.max(1))).unwrap_or(usize::MAX);
        let count = layers.len().div_ceil(groups.clamp(1, layers.len().max(1))).max(1);
        for group in layers.chunks_mut(count) {
            group.iter_mut().for_each(|layer| layer.class = banked.classes.len());
            banked.classes.push(class_of(group, banks.clone(), most_slots));
        }
        banked.layers.append(&mut layers);
    }
    banked.layers.sort_by_key(|layer| layer.layer);
    banked
}

fn class_of(layers: &[LayerLayout], banks: Vec<Bank>, most_slots: u64) -> ClassLayout {
    let experts = layers.iter().map(|layer| u64::from(layer.experts)).sum();
    ClassLayout {
        slot_bytes: banks.iter().map(|bank| rounded(bank.stride, PAGE)).fold(0, usize::saturating_add),
        experts,
        used: layers.iter().map(|layer| layer.used).max().unwrap_or(0),
        most_slots: most_slots.min(experts),
        banks,
    }
}

/// Gives each part of a class its bank, the same in every layer.
fn place(layers: &mut [LayerLayout], rules: BankRules) -> Vec<Bank> {
    let parts = layers.iter().map(|layer| layer.parts.len()).max().unwrap_or(0);
    let mut banks = Vec::with_capacity(parts);
    let mut at = 0;
    for part in 0..parts {
        let mut of_layers: Vec<&mut PartLayout> =
            layers.iter_mut().filter_map(|layer| layer.parts.get_mut(part)).collect();
        let stride = stride_of(&mut of_layers, rules);
        for layout in of_layers {
            (layout.at, layout.stride) = (at, stride);
        }
        banks.push(Bank { at, stride });
        at = at.saturating_add(rounded(stride, PAGE));
    }
    banks
}

/// Bytes from slot to slot of one part, which is as long in every layer; where slices cannot stay where they
/// land, they are moved.
fn stride_of(parts: &mut [&mut PartLayout], rules: BankRules) -> usize {
    for part in parts.iter_mut() {
        part.shift = part.shift.filter(|shift| shift.is_multiple_of(rules.alignment.max(1)));
    }
    let slice = parts.iter().map(|part| part.slice_bytes).max().unwrap_or(0);
    let blocks = parts.iter().filter(|_| rules.whole_blocks).map(|part| part.block_bytes.max(1));
    let block = blocks.fold(1, least_common_multiple);
    let room = parts.iter().map(|part| part.room()).max().unwrap_or(0);
    let whole = rounded(room, least_common_multiple(PAGE, block));
    // Up to a page before the first whole one, and one at each end of what is read.
    let moved = rounded(slice.saturating_add(3 * PAGE), block);
    if whole <= moved.saturating_add(slice / WASTE) {
        return whole;
    }
    parts.iter_mut().for_each(|part| part.shift = None);
    moved
}

/// Up to a multiple; sizes come from files, which may lie.
fn rounded(bytes: usize, multiple: usize) -> usize {
    bytes.checked_next_multiple_of(multiple).unwrap_or(usize::MAX)
}

fn least_common_multiple(one: usize, other: usize) -> usize {
    let (mut a, mut b) = (one, other);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    one / a.max(1) * other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExpertPart;

    const RULES: BankRules = BankRules { alignment: 64, whole_blocks: true, largest_bytes: 1 << 30 };

    fn part(file_offset: u64, slice_bytes: usize, block_bytes: usize) -> PartLayout {
        PartLayout {
            part: ExpertPart::Down,
            tensor: "t".to_owned(),
            shard: 0,
            file_offset,
            slice_bytes,
            block_bytes,
            at: 0,
            stride: 0,
            shift: slice_bytes.is_multiple_of(PAGE).then_some((file_offset % PAGE as u64) as usize),
        }
    }

    fn layout(layers: u32, parts: &[PartLayout]) -> ExpertLayout {
        let layer = |layer| LayerLayout { layer, class: 0, experts: 100, used: 8, parts: parts.to_vec() };
        let experts = u64::from(layers) * 100;
        let class = ClassLayout { slot_bytes: 0, experts, used: 8, most_slots: experts, banks: Vec::new() };
        let layers = (0..layers).map(layer).collect();
        ExpertLayout { layers, classes: vec![class], cell_bytes: 1 }
    }

    /// Every slot's slice is inside its own room, wherever its file's pages put it.
    fn check(layout: &ExpertLayout, rules: BankRules) {
        for layer in &layout.layers {
            for part in &layer.parts {
                assert!(!rules.whole_blocks || part.stride.is_multiple_of(part.block_bytes), "{part:?}");
                for (slot, expert) in [(0, 3), (1, 99), (7, 0)] {
                    let (start, read) = (slot * part.stride, part.read(expert));
                    let lands = start.next_multiple_of(PAGE);
                    assert!(lands + read.len <= start + part.stride, "{part:?}");
                    match (part.shift, read.move_from) {
                        (Some(shift), None) => {
                            assert_eq!(lands + read.required - part.slice_bytes, start + shift);
                            assert!(shift.is_multiple_of(rules.alignment));
                        }
                        (None, Some(_)) => {}
                        (None, None) => assert_eq!((lands, read.required), (start, part.slice_bytes)),
                        (Some(_), Some(_)) => panic!("{part:?} is moved and not"),
                    }
                }
            }
        }
    }

    #[test]
    fn distances_are_whole_pages_and_whole_blocks_where_that_wastes_little() {
        // Experts of Qwen3-30B-A3B in Q4_K and Q6_K: the pages of the second are not its blocks.
        let parts = [part(64, 884_736, 144), part(128, 1_290_240, 210), part(32, 884_736, 144)];
        let banked = into_banks(layout(2, &parts), RULES);
        check(&banked, RULES);
        let [gate, down, unaligned] = &banked.layers[0].parts[..] else { panic!() };
        assert_eq!((gate.shift, gate.stride), (Some(64), 884_736 + 36_864));
        assert_eq!(down.shift, None);
        assert!(down.stride - down.slice_bytes < 4 * PAGE, "{}", down.stride);
        assert_eq!(unaligned.shift, None, "32 bytes are no alignment");
        let class = &banked.classes[0];
        assert_eq!(class.banks[1].at, gate.stride);
        assert!(class.slot_bytes >= class.banks.iter().map(|bank| bank.stride).sum());
    }

    #[test]
    fn kernels_that_count_in_bytes_get_the_pages_that_reads_need() {
        let rules = BankRules { alignment: 32, whole_blocks: false, largest_bytes: usize::MAX };
        let banked = into_banks(layout(1, &[part(32, 1_290_240, 210)]), rules);
        check(&banked, rules);
        assert_eq!(banked.layers[0].parts[0].stride, 1_290_240 + PAGE);
    }

    #[test]
    fn a_class_that_is_larger_than_an_operand_becomes_several() {
        let rules = BankRules { largest_bytes: 128 << 20, ..RULES };
        // 92 MB of a part in each layer: one layer an operand.
        let banked = into_banks(layout(3, &[part(64, 884_736, 144)]), rules);
        assert_eq!(banked.classes.len(), 3);
        let classes: Vec<usize> = banked.layers.iter().map(|layer| layer.class).collect();
        assert_eq!(classes, [0, 1, 2]);
        // Not even one layer: fewer slots than experts.
        let banked = into_banks(layout(1, &[part(64, 2 << 20, 1)]), rules);
        assert!(banked.classes[0].most_slots < 64, "{:?}", banked.classes);
        check(&banked, rules);
    }
}
