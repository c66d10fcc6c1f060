//! Reads of what a layer needs and no slot has.

use hypura_core::cache::SlotId;
use hypura_storage::Priority;

use super::expert_slots::ExpertSlots;
use super::io::Io;
use super::layer_reads::slot_reads;
use super::target::Target;

/// Starts reads of parts into slots.
pub(super) fn submit(
    slots: &ExpertSlots,
    io: &mut Io<Target>,
    index: usize,
    loads: &[(u32, SlotId)],
    parts: &[usize],
) {
    let layer = &slots.layout().layers[index];
    io.submit(slot_reads(layer, index, slots.pool(index), loads, parts, Priority::Demand));
}

/// Reads a part of all misses, waits for it, then the next part. A failed read is found when the expert is
/// used.
pub(super) fn read_in_turn(
    slots: &mut ExpertSlots,
    io: &mut Io<Target>,
    index: usize,
    loads: &[(u32, SlotId)],
    parts: &[usize],
) {
    for part in parts {
        submit(slots, io, index, loads, &[*part]);
        // An error says that nothing is out any more.
        while let Ok(landed) = io.wait() {
            slots.absorb(landed);
        }
    }
}
