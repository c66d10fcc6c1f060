//! A node of a layer that the host computes: what is there, and the rest as it lands.

use hypura_ggml::{ExecError, GraphRun};

use super::device::PartOp;
use super::landing::Landing;
use super::ready::MOST_ROWS;
use super::step::Step;
use super::target::no_slots;

impl Landing<'_> {
    /// Has the host compute one node.
    ///
    /// # Errors
    /// As [`Self::wait`], and that of the backend.
    pub fn compute_node(
        &mut self,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        (op, part): PartOp,
    ) -> Result<(), ExecError> {
        self.poll();
        let wanted = step.wanted.len();
        // A ubatch without outputs has no tokens left in its last layer.
        if let Some(of_pairs) = &step.slots
            && wanted > 0
            && of_pairs.len() <= MOST_ROWS
            && (0..wanted).all(|want| self.slots.is_ready(step, want, part))
        {
            let layout = &self.slots.layout.layers[step.layer].parts[part];
            let pool = self.slots.pool(step.layer).binding(layout).ok_or_else(no_slots)?;
            let io = &mut *self.io;
            return run.meanwhile(&mut || io.resubmit(), |run| run.run_bound(op, pool, of_pairs));
        }
        run.zero_rows(op, &step.none)?;
        self.hand_out(step, part, |landing, step, ready| {
            let Landing { slots, io, .. } = landing;
            run.meanwhile(&mut || io.resubmit(), |run| slots.run_ready(run, op, part, step, ready))
        })
    }
}
