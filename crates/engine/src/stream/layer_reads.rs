//! Which reads a layer asks for, and in which order.

use hypura_core::cache::SlotId;
use hypura_core::plan::{ExpertLayout, LayerLayout};
use hypura_storage::Priority;

use super::io::{Io, TargetedRead};
use super::slots::{ScratchRing, SlotPool};
use super::step::{Place, Step};
use super::target::Target;

/// Reads of all misses that have slots: the parts needed first, of all of them, come first.
pub(super) fn slot_reads(
    layer: &LayerLayout,
    index: usize,
    pool: &SlotPool,
    loads: &[(u32, SlotId)],
    parts: &[usize],
    priority: Priority,
) -> Vec<TargetedRead<Target>> {
    let mut reads = Vec::with_capacity(loads.len() * parts.len());
    for part in parts {
        let layout = &layer.parts[*part];
        for (expert, slot) in loads {
            if let Some((memory, at)) = pool.destination(*slot, layout) {
                let target = Target::Slot { layer: index, expert: *expert, slot: *slot, part: *part };
                let read = layout.read(*expert);
                reads.push(TargetedRead { target, shard: layout.shard, read, memory, at, priority });
            }
        }
    }
    reads
}

/// Starts reads into free cells, as many as there are.
pub(super) fn fill_scratch_ring(
    io: &mut Io<Target>,
    layout: &ExpertLayout,
    cells: &mut ScratchRing,
    step: &mut Step,
) {
    let layer = &layout.layers[step.layer];
    let mut reads = Vec::new();
    while let Some((part, want)) = step.queue.front().copied() {
        let Some((cell, memory, at)) = cells.take() else { break };
        step.queue.pop_front();
        let want = &mut step.wanted[want];
        let part_layout = &layer.parts[part];
        let mut read = part_layout.read(want.expert);
        // In a cell the slice is used where it landed.
        let shift = read.required - part_layout.slice_bytes;
        read.move_from = None;
        if let Place::Cells(list) = &mut want.place {
            list[part] = Some(cell);
        }
        let target = Target::Cell { cell, shift };
        reads.push(TargetedRead {
            target,
            shard: part_layout.shard,
            read,
            memory,
            at,
            priority: Priority::Demand,
        });
    }
    io.submit(reads);
}
