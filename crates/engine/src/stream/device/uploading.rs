//! Experts from the host's memory to a device: parts of those that a layer needs, and guesses.

use hypura_core::cache::{ExpertKey, Residency, SlotId};
use hypura_ggml::{DeviceBuffer, ExecError};
use std::sync::Arc;
use std::time::Instant;

use super::side::{DeviceSide, pool_of};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::prefetcher::Guess;
use crate::stream::step::{Place, Step};
use crate::stream::target::no_slots;

impl DeviceSide {
    /// Brings a part of an expert, which has landed, to `at` of `buffer`.
    pub(super) fn upload(
        &mut self,
        slots: &mut ExpertSlots,
        step: &Step,
        want: usize,
        part: usize,
        buffer: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        match &step.wanted[want].place {
            Place::Slot(slot) => self.upload_slot(slots, step.layer, *slot, part, buffer, at),
            Place::Cells(cells) => {
                let begun = Instant::now();
                let layout = &slots.layout.layers[step.layer].parts[part];
                let cell = cells[part].ok_or_else(no_slots)?;
                let from = slots.cells.place(cell, layout.slice_bytes).ok_or_else(no_slots)?;
                self.uploads.lock().upload(&self.cells, from, buffer, at)?;
                self.counts.note_upload(layout.slice_bytes, begun.elapsed());
                Ok(())
            }
            Place::OnDevice => Err(no_slots()),
        }
    }

    /// Brings a part of an expert in a slot of the host to `at` of `buffer`.
    fn upload_slot(
        &mut self,
        slots: &mut ExpertSlots,
        layer: usize,
        slot: SlotId,
        part: usize,
        buffer: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        let begun = Instant::now();
        let of = &slots.layout.layers[layer];
        let layout = &of.parts[part];
        let from = slots.pool(layer).place(slot, layout).ok_or_else(no_slots)?;
        let source = self.slots.as_ref().ok_or_else(no_slots)?;
        self.uploads.lock().upload(source, from, buffer, at)?;
        if let Some(lent) = &mut slots.lent {
            lent.lend(of.class, slot);
        }
        self.counts.note_upload(layout.slice_bytes, begun.elapsed());
        Ok(())
    }

    /// Uploads what a later layer will probably use and the host has, while the device computes; returns what
    /// has to be read first.
    pub(in crate::stream) fn upload_guesses(
        &mut self,
        slots: &mut ExpertSlots,
        guesses: Vec<Guess>,
    ) -> Result<Vec<Guess>, ExecError> {
        let mut absent = Vec::new();
        for guess in guesses {
            let layer = &slots.layout.layers[guess.layer];
            let key = ExpertKey::new(layer.layer, guess.expert);
            let Some(pool) = pool_of(&mut self.pools, layer) else { continue };
            if pool.cache.peek(key) != Residency::Absent {
                continue;
            }
            let Some(from) = slots.pool(guess.layer).cache.slot_of(key) else {
                absent.push(guess);
                continue;
            };
            let Some(slot) = pool.cache.prefetch(key, slots.clock) else { continue };
            pool.start(slot);
            let rooms = (0..layer.parts.len()).map(|part| pool.hand(slot, part)).collect::<Option<Vec<_>>>();
            self.note_guess(guess.layer, slot);
            for (part, (buffer, at)) in rooms.ok_or_else(no_slots)?.iter().enumerate() {
                self.upload_slot(slots, guess.layer, from, part, buffer, *at)?;
            }
        }
        Ok(absent)
    }
}
