//! Experts on their way into the host's memory: taking in what has landed, giving the disk more, and handing
//! what is there to whoever computes.

use hypura_ggml::{DeviceBuffer, ExecError, GraphRun, StreamedOp};

use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::ready::free_cells;
use super::step::Step;
use super::target::{Target, no_slots};

/// Where experts are, what the disk reads when it has time, and its reads.
pub(super) struct Landing<'a> {
    pub slots: &'a mut ExpertSlots,
    pub guesses: &'a mut GuessQueue,
    pub io: &'a mut Io<Target>,
}

impl Landing<'_> {
    /// Takes in what has landed and gives the disk more.
    pub fn poll(&mut self) {
        let landed = self.io.poll();
        self.slots.absorb(landed);
        self.guesses.issue(self.slots, self.io);
    }

    /// Waits for something to land, of experts that may still come.
    ///
    /// # Errors
    /// Why one of them cannot.
    pub fn wait(&mut self, step: &mut Step, waiting: &[usize]) -> Result<(), ExecError> {
        self.slots.check(step, waiting)?;
        let landed = self.io.wait()?;
        self.slots.absorb(landed);
        // A stopped step may have left cells behind that are free only now.
        self.slots.fill_ring(self.io, step);
        self.guesses.issue(self.slots, self.io);
        Ok(())
    }

    /// A part of these experts is not needed any more: cells are read into again.
    pub fn free(&mut self, step: &mut Step, part: usize, done: &[usize]) {
        free_cells(&mut self.slots.cells, step, part, done);
        self.slots.fill_ring(self.io, step);
    }

    /// Hands a part of all experts of a step to `take`, as they land, which is done with them when it
    /// returns.
    ///
    /// # Errors
    /// That of `take`, and as [`Self::wait`].
    pub fn hand_out(
        &mut self,
        step: &mut Step,
        part: usize,
        mut take: impl FnMut(&mut Self, &Step, &[usize]) -> Result<(), ExecError>,
    ) -> Result<(), ExecError> {
        let mut todo: Vec<usize> = (0..step.wanted.len()).collect();
        while !todo.is_empty() {
            let (ready, rest) = self.slots.split_ready(step, todo, part);
            todo = rest;
            if ready.is_empty() {
                self.wait(step, &todo)?;
            } else {
                take(self, step, &ready)?;
                self.free(step, part, &ready);
                self.poll();
            }
        }
        Ok(())
    }

    /// Has a device compute a node over a whole stack of its experts at the start of `frame`.
    ///
    /// # Errors
    /// As [`GraphRun::run_elsewhere`].
    pub fn run_stack(
        &mut self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        frame: &DeviceBuffer,
        stack_bytes: usize,
    ) -> Result<(), ExecError> {
        let region = frame.region(0..stack_bytes).ok_or_else(no_slots)?;
        run.meanwhile(&mut || self.poll(), |run| run.run_elsewhere(op, region.into()))
    }
}
