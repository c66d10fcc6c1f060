//! A node of a layer that the host computes: what is there, and the rest as it lands.

use hypura_ggml::{ExecError, GraphRun};

use super::device::PartOp;
use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::polling::{poll_reads, wait_for};
use super::ready::{MOST_ROWS, free_cells};
use super::step::Step;
use super::target::{Target, no_slots};

/// Experts of the host, and a node that uses them.
pub(super) struct HostWork<'a> {
    pub slots: &'a mut ExpertSlots,
    pub guesses: &'a mut GuessQueue,
    pub io: &'a mut Io<Target>,
}

impl HostWork<'_> {
    /// Computes one node.
    pub fn run_node(
        self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        (op, part): PartOp,
    ) -> Result<(), ExecError> {
        let Self { slots, guesses, io } = self;
        poll_reads(slots, guesses, io);
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        // A ubatch without outputs has no tokens left in its last layer.
        if let Some(of_pairs) = &step.slots
            && !todo.is_empty()
            && of_pairs.len() <= MOST_ROWS
            && todo.iter().all(|want| slots.is_ready(step, *want, part))
        {
            let layout = &slots.layout.layers[step.layer].parts[part];
            let pool = slots.pool(step.layer).binding(layout).ok_or_else(no_slots)?;
            return run.meanwhile(&mut || io.resubmit(), |run| run.run_bound(op, pool, of_pairs));
        }
        run.zero_rows(op, &step.none)?;
        while !todo.is_empty() {
            let (ready, rest) = slots.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                wait_for(slots, guesses, io, step, &todo)?;
            } else {
                run.meanwhile(&mut || io.resubmit(), |run| slots.run_ready(run, op, part, step, &ready))?;
                free_cells(&mut slots.cells, step, part, &ready);
                slots.fill_ring(io, step);
                poll_reads(slots, guesses, io);
            }
        }
        Ok(())
    }
}
