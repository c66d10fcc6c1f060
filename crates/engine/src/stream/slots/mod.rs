//! Memory for weights that come and go.
//!
//! - `pool`: slots of a size class: who is in them, which reads are out
//! - `cells`: throwaway memory for one slice each
//! - `host`: slots in the host's memory: a read lands where it is computed with
//! - `device`: slots in a device's memory: a read lands in the host's, and is used after an upload
//!
//! What is *landed* has been read; what is *usable* can be computed with. [`SlotMemory`] is the difference.

pub(crate) mod cells;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod pool;

use hypura_core::plan::{PartLayout, PartRead};
use hypura_ggml::{ExecError, GraphRun, SlotBinding};
use hypura_storage::Arena;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use cells::ScratchRing;
pub(crate) use pool::{SlotBank, SlotPool, make_pools};

/// A byte pattern that decodes to NaN or huge values in every quantisation, so that stale bytes cannot go
/// unnoticed.
pub(crate) const POISON: u8 = 0xff;

/// The memory behind the slots of one size class. `part` is the index of a part in its layer, `layout` the
/// part itself.
pub(crate) trait SlotMemory: Send + Sync {
    /// The host memory that reads land in.
    fn arena(&self) -> &Arc<Arena>;

    /// Where the read of a part of a slot lands.
    fn destination(&self, slot: usize, layout: &PartLayout) -> usize;

    /// Nothing of the slot is of use any more, and reads into it are about to start. With `poison` it is
    /// overwritten.
    fn prepare(&self, slot: usize, poison: bool);

    /// A part was read.
    ///
    /// # Errors
    /// What keeps it from being used, when that is known.
    fn landed(&self, slot: usize, part: usize, layout: &PartLayout, read: PartRead) -> Result<(), ExecError>;

    /// Whether kernels that are launched after [`Self::fence`] find the part of a slot.
    fn usable(&self, slot: usize, part: usize) -> bool;

    /// What is launched from now on finds all that is usable.
    fn fence(&self, run: &mut GraphRun<'_>);

    /// The first `slots` slots as kernels see one part of them; `None` without slots.
    fn binding(&self, slots: usize, part: usize, layout: &PartLayout) -> Option<SlotBinding<'_>>;

    /// The bytes of one part of one slot in the host's memory, where they landed.
    fn host_slice(&self, slot: usize, layout: &PartLayout) -> Range<usize>;

    /// Gives the memory of some slots back to the system, as far as there is a way to.
    fn discard(&self, slots: Range<usize>);
}
