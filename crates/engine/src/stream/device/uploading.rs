//! Experts from the host's memory to a device: parts of those that a layer needs, and guesses.

use hypura_core::cache::{ExpertKey, Residency, SlotId};
use hypura_ggml::{DeviceBuffer, ExecError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::side::DeviceSide;
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::prefetcher::Guess;
use crate::stream::slots::device::pool_of;
use crate::stream::step::{DeviceSlot, Place, Step};
use crate::stream::target::no_slots;

impl DeviceSide {
    /// Brings a part of an expert, which has landed or is in a slot of the device, to `at` of `buffer`.
    pub(super) fn upload(
        &mut self,
        slots: &mut ExpertSlots,
        step: &Step,
        want: usize,
        part: usize,
        buffer: &Arc<DeviceBuffer>,
        at: usize,
    ) -> Result<(), ExecError> {
        let begun = Instant::now();
        let of = (step.layer, part);
        let slice_bytes = slots.layout.layers[step.layer].parts[part].slice_bytes;
        let bytes = match &step.wanted[want].place {
            Place::Slot(slot) => self.link.upload_slot(slots, of, *slot, (buffer, at))?,
            Place::Cells(cells) => {
                let cell = cells[part].ok_or_else(no_slots)?;
                self.link.upload_cell(slots, cell, slice_bytes, (buffer, at))?
            }
            Place::OnDevice => {
                let pool = pool_of(&mut self.pools, &slots.layout.layers[step.layer]).ok_or_else(no_slots)?;
                let DeviceSlot { slot, .. } = step.wanted[want].on_device.ok_or_else(no_slots)?;
                let (from, from_at) = pool.room(slot, part).ok_or_else(no_slots)?;
                self.link.copy((&from, from_at), (buffer, at), slice_bytes)?;
                0
            }
        };
        self.counts.note_upload(bytes, begun.elapsed());
        Ok(())
    }

    /// Uploads what a later layer will probably use and the host has, while the device computes; returns what
    /// has to be read first.
    pub(in crate::stream) fn upload_guesses(
        &mut self,
        slots: &mut ExpertSlots,
        guesses: Vec<Guess>,
    ) -> Result<Vec<Guess>, ExecError> {
        let (mut absent, mut present) = (Vec::new(), Vec::new());
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
            let Some(to) = pool.cache.prefetch(key, slots.clock) else { continue };
            pool.start(to);
            // Nobody who comes back may take its place.
            slots.pool_mut(guess.layer).cache.pin(from);
            present.push((guess.layer, from, to));
        }
        let uploaded = self.upload_present(slots, &present);
        if uploaded.is_err() {
            self.wait_for_uploads();
        }
        for (layer, from, to) in present {
            if uploaded.is_ok() {
                self.guessed.push(layer, to);
            } else if let Some(pool) = pool_of(&mut self.pools, &slots.layout.layers[layer]) {
                pool.cache.complete(to, false);
            }
            let cache = &mut slots.pool_mut(layer).cache;
            cache.unpin(from);
            if uploaded.is_ok() && self.demotions.is_some() {
                cache.set_spare(from);
            }
        }
        uploaded.map(|()| absent)
    }

    /// Uploads all parts of experts (index of the layer, slot of the host, slot of the device), once whoever
    /// was there before is on its way back.
    fn upload_present(
        &mut self,
        slots: &mut ExpertSlots,
        present: &[(usize, SlotId, SlotId)],
    ) -> Result<(), ExecError> {
        let layers: BTreeSet<usize> = present.iter().map(|(layer, ..)| *layer).collect();
        layers.into_iter().try_for_each(|layer| self.demote(slots, layer))?;
        let begun = Instant::now();
        let mut bytes = 0;
        for (layer, from, to) in present {
            for part in 0..slots.layout.layers[*layer].parts.len() {
                let pool = pool_of(&mut self.pools, &slots.layout.layers[*layer]).ok_or_else(no_slots)?;
                let (buffer, at) = pool.hand(*to, part).ok_or_else(no_slots)?;
                bytes += self.link.upload_slot(slots, (*layer, part), *from, (&buffer, at))?;
            }
        }
        self.counts.note_upload(bytes, begun.elapsed());
        Ok(())
    }
}
