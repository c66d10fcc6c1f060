//! Taking in what has landed, and giving the disk more.

use hypura_ggml::ExecError;

use super::expert_slots::ExpertSlots;
use super::guesses::GuessQueue;
use super::io::Io;
use super::step::Step;
use super::target::Target;

/// Takes in what has landed and gives the disk more.
pub(super) fn poll_reads(slots: &mut ExpertSlots, guesses: &mut GuessQueue, io: &mut Io<Target>) {
    let landed = io.poll();
    slots.absorb(landed);
    guesses.issue(slots, io);
}

/// Waits for something to land, of experts that may still come.
pub(super) fn wait_for(
    slots: &mut ExpertSlots,
    guesses: &mut GuessQueue,
    io: &mut Io<Target>,
    step: &mut Step,
    waiting: &[usize],
) -> Result<(), ExecError> {
    slots.check(step, waiting)?;
    let landed = io.wait()?;
    slots.absorb(landed);
    // A stopped step may have left cells behind that are free only now.
    slots.fill_ring(io, step);
    guesses.issue(slots, io);
    Ok(())
}
