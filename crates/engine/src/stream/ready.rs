//! What of a layer can be computed now, node by node.

use hypura_ggml::{ExecError, GraphRun, RowGroup, StreamedOp};

use super::expert_slots::ExpertSlots;
use super::lookups::DECODE_TOKENS;
use super::slots::ScratchRing;
use super::step::{Place, Step};

/// Most rows computed in one call, unless one expert alone has more. Bounds the memory of gathered rows, and
/// ggml's work memory, which grows with slots × rows.
pub(super) const MOST_ROWS: usize = 512;

impl ExpertSlots {
    /// Divides experts into those to compute now and the others. Of the experts in cells at most half the
    /// cells are taken at once, so that the disk has cells to read into meanwhile; and no more rows than fit
    /// the scratch memory that the plan accounts for.
    pub(super) fn split_ready(&self, step: &Step, todo: Vec<usize>, part: usize) -> (Vec<usize>, Vec<usize>) {
        let most_cells = (self.cells.count() / 2).max(1);
        let (mut cells, mut rows) = (0, 0);
        todo.into_iter().partition(|want| {
            let ready = self.is_ready(step, *want, part);
            let want = &step.wanted[*want];
            let in_cell = matches!(want.place, Place::Cells(_));
            let room = rows == 0 || rows + want.pairs.len() <= MOST_ROWS;
            if !ready || !room || (in_cell && cells == most_cells) {
                return false;
            }
            cells += usize::from(in_cell);
            rows += want.pairs.len();
            true
        })
    }

    pub(super) fn is_ready(&self, step: &Step, want: usize, part: usize) -> bool {
        let class = self.layout.layers[step.layer].class;
        match &step.wanted[want].place {
            Place::Slot(slot) => self.pools[class].ready(*slot, part),
            Place::Cells(cells) => cells[part].is_some_and(|cell| self.cells.ready(cell)),
            Place::OnDevice => true,
        }
    }

    pub(super) fn run_ready(
        &self,
        run: &mut GraphRun<'_>,
        op: StreamedOp,
        part: usize,
        step: &Step,
        ready: &[usize],
    ) -> Result<(), ExecError> {
        let layer = &self.layout.layers[step.layer];
        let (layout, pool) = (&layer.parts[part], &self.pools[layer.class]);
        let lost = || ExecError::Misuse("an expert without memory".to_owned());
        let most = ready.iter().map(|want| step.wanted[*want].pairs.len()).max().unwrap_or(0);
        let zeros = vec![0i32; most];
        let mut groups: Vec<RowGroup<'_>> = Vec::with_capacity(ready.len());
        // A few rows in slots go as one node over all slots; many rows go expert by expert, because ggml's
        // work memory grows with slots × rows.
        let together = step.tokens <= DECODE_TOKENS;
        let (mut pairs, mut slots) = (Vec::new(), Vec::new());
        for want in ready {
            let want = &step.wanted[*want];
            let binding = match &want.place {
                Place::Slot(slot) if together => {
                    pairs.extend_from_slice(&want.pairs);
                    slots.resize(pairs.len(), i32::try_from(slot.0).unwrap_or(i32::MAX));
                    continue;
                }
                Place::Slot(slot) => pool.slice(*slot, layout),
                Place::Cells(cells) => {
                    cells[part].and_then(|cell| self.cells.slice(cell, layout.slice_bytes))
                }
                Place::OnDevice => None,
            };
            let binding = binding.ok_or_else(lost)?;
            groups.push(RowGroup { binding, pairs: &want.pairs, slots: &zeros[..want.pairs.len()] });
        }
        if !pairs.is_empty() {
            let binding = pool.binding(layout).ok_or_else(lost)?;
            groups.push(RowGroup { binding, pairs: &pairs, slots: &slots });
        }
        run.run_rows(op, &groups)
    }
}

/// Gives back the cells of what was computed.
pub(super) fn free_cells(cells: &mut ScratchRing, step: &mut Step, part: usize, done: &[usize]) {
    for want in done {
        if let Place::Cells(taken) = &mut step.wanted[*want].place
            && let Some(cell) = taken[part].take()
        {
            cells.free(cell);
        }
    }
}
