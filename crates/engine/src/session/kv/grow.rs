//! A larger context for a model that is loaded: only llama.cpp's context is made anew, and what its sequences
//! had in memory is put back.
//!
//! Nothing is taken that was not promised first: memory is shared with other models, which may have come
//! since this one was planned. What a larger context takes is measured, not estimated, and the states that
//! are kept meanwhile count too. A model that streams experts has filled its budget with slots: what is not
//! free comes from them.

use hypura_core::plan::{ContextFacts, ContextShape, Growing, Growth, Homes, Ledger, PoolId, Purpose};

use super::share::{KvRows, index};
use crate::budget::Reserved;
use crate::load::{NeedsMeter, Planned};
use crate::workers::{WorkerShare, shares};

/// What a context would need of memory.
type Needs<'a> = &'a mut dyn FnMut(&ContextShape, &Homes) -> Option<Ledger>;

impl KvRows {
    /// Bytes of the host's memory that the model holds now, all in all.
    pub fn held_bytes(&self) -> u64 {
        self.loaded.ledger.pool_bytes(PoolId::HOST)
    }

    /// Bytes of memory of this machine's devices that it holds.
    pub fn device_bytes(&self) -> u64 {
        let elsewhere = self.loaded.ledger.total_bytes().saturating_sub(self.held_bytes());
        if self.loaded.planned.workers.is_empty() { elsewhere } else { 0 }
    }

    /// What other machines have of the model.
    pub fn workers(&self) -> Vec<WorkerShare> {
        let Planned { workers, plan, .. } = &self.loaded.planned;
        shares(workers, &plan.homes, &self.loaded.ledger)
    }

    /// Bytes that the model may still take.
    fn free_bytes(&self) -> u64 {
        match &self.shared_memory {
            Some(memory) => memory.free_bytes(),
            None => self.loaded.planned.plan.budget_bytes().saturating_sub(self.held_bytes()),
        }
    }

    /// What the context is now.
    pub fn context_facts(&self) -> ContextFacts {
        let loaded = &self.loaded;
        ContextFacts {
            tokens: u32::try_from(self.context_tokens()).unwrap_or(u32::MAX),
            cells: loaded.context.capacity(),
            sequences: loaded.planned.plan.context.sequences,
            kv_bytes: loaded.ledger.bytes_for(Purpose::Kv),
            trained: u32::try_from(loaded.planned.source.shape.context_train).unwrap_or(u32::MAX),
            spare_bytes: loaded.spare_bytes(),
        }
    }

    /// Gives every sequence a context of at least `wanted` tokens, as far as memory is free. When llama.cpp
    /// refuses, all stays as it is. Sequences whose state cannot be kept or put back are computed again. What
    /// was promised for it is to be dropped when [`Self::held_bytes`] was reported to the budget.
    pub fn grow(&mut self, wanted: usize) -> Option<Reserved> {
        let facts = self.context_facts();
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let tokens = facts.target(wanted, self.free_bytes());
        if wanted <= facts.tokens || tokens <= facts.tokens {
            return None;
        }
        let rows = self.rows.all().len();
        let states: u64 = (0..rows).map(|row| self.loaded.context.state_bytes(index(row))).sum();
        let growth = self.growing(|growing| growing.to(tokens))?;
        let free = self.free_bytes();
        let all = free.saturating_add(facts.spare_bytes);
        // Rather a context that is just large enough than one that its own conversation is not kept for.
        let beside_states = self.within(growth, all.saturating_sub(states));
        let growth =
            beside_states.filter(|growth| growth.tokens >= wanted).or_else(|| self.within(growth, all))?;
        let wanted_bytes = growth.more_bytes.saturating_add(states);
        // Experts are read again sooner than a conversation is computed again.
        let given = self.give_back(wanted_bytes.saturating_sub(free));
        // Where memory is shared, nobody else knows yet of what was given up.
        let own = if self.shared_memory.is_some() { given } else { 0 };
        let asked = wanted_bytes.saturating_sub(own);
        let reserved = Reserved::new(self.shared_memory.as_ref(), self.free_bytes(), asked);
        let room = reserved.bytes.saturating_add(own);
        let growth = self.within(growth, room)?;
        let kept = self.save_rows(room - growth.more_bytes);
        // Where llama.cpp refuses, the context is as large as before, and empty.
        let _ = self.loaded.context.rebuild(growth.tokens.saturating_mul(facts.sequences.max(1)));
        self.put_back(&kept);
        self.loaded.context_rebuilt();
        Some(reserved)
    }

    /// The largest context up to `growth` that fits `room`.
    fn within(&self, growth: Growth, room: u64) -> Option<Growth> {
        self.growing(|growing| growing.within(growth, room))
    }

    /// Asks how the context can grow.
    fn growing<R>(&self, ask: impl FnOnce(&mut Growing<'_, Needs<'_>>) -> Option<R>) -> Option<R> {
        let planned = &self.loaded.planned;
        let mut meter = None;
        let mut needs = |context: &ContextShape, homes: &Homes| {
            if meter.is_none() {
                let settings = &planned.settings;
                let (threads, devices) = (settings.tuning.threads, &settings.model.devices);
                meter = NeedsMeter::new(&planned.source, threads, devices, planned.gpu.as_ref())
                    .map(|meter| meter.with_workers(&planned.workers))
                    .ok();
            }
            meter.as_mut()?.needs(context, homes).ok()
        };
        let tokens = u32::try_from(self.context_tokens()).unwrap_or(u32::MAX);
        let context = ContextShape { context_tokens: tokens, ..planned.plan.context };
        let (homes, pools, held) = (&planned.plan.homes, &planned.plan.pools, &self.loaded.ledger);
        ask(&mut Growing { context, homes, pools, held, needs: &mut needs })
    }

    /// The states of as many rows as `room` bytes hold: the running ones first, then those used last.
    fn save_rows(&mut self, mut room: u64) -> Vec<(usize, Vec<u8>)> {
        let mut idle = self.rows.idle_rows();
        idle.reverse();
        let rows = 0..self.rows.all().len();
        let mut order: Vec<usize> = rows.filter(|row| !idle.contains(row)).collect();
        order.extend(idle);
        let mut kept = Vec::new();
        for row in order {
            let bytes = self.loaded.context.state_bytes(index(row));
            if bytes > 0 && bytes <= room {
                room -= bytes;
                kept.push((row, self.loaded.context.save(index(row))));
            }
        }
        kept
    }

    fn put_back(&mut self, kept: &[(usize, Vec<u8>)]) {
        for row in 0..self.rows.all().len() {
            if !kept.iter().any(|(kept, _)| *kept == row) {
                self.empty(row);
            }
        }
        for (row, state) in kept {
            let tokens = self.rows.row(*row).cached.clone();
            self.restore(*row, &tokens, state);
        }
    }

    /// Has the cache of experts give up at least so many bytes, as far as it can; returns how many.
    fn give_back(&mut self, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        self.loaded.give_back(bytes)
    }
}
