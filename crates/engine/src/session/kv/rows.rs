//! Which tokens each sequence of the context has in memory, and which of them a new prompt can use.
//!
//! Pure bookkeeping: it decides, the batcher acts. Invariant: `cached` of a cell row is what llama.cpp holds
//! for that sequence id, position by position, also after a failure.

use hypura_ggml::Token;

/// One sequence id of the context.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// Tokens in memory, position by position.
    pub cached: Vec<Token>,
    /// The request that uses it.
    pub owner: Option<u64>,
    /// When it was last used, in requests.
    used: u64,
}

/// All sequence ids of a context.
#[derive(Debug)]
pub(crate) struct RowTable {
    rows: Vec<Row>,
    clock: u64,
}

/// How a new prompt gets its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowChoice {
    /// The row it gets.
    pub row: usize,
    /// Tokens that can be used.
    pub common: usize,
    /// Copy them from this row, which keeps its own; `None`: they are in the row already.
    pub from: Option<usize>,
}

impl RowTable {
    /// `count` empty rows.
    pub fn new(count: usize) -> Self {
        Self { rows: (0..count.max(1)).map(|_| Row::default()).collect(), clock: 0 }
    }

    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    pub fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    pub fn cached_mut(&mut self, row: usize) -> &mut Vec<Token> {
        &mut self.rows[row].cached
    }

    /// Chooses a row for a prompt among those that nobody uses; `None` when there is none. `rewinds` says
    /// that tokens can be dropped from the end of a row and given to others; without that only a row that the
    /// prompt continues is of use.
    ///
    /// A row is taken over when most of it is of use; otherwise its conversation may come back, and the
    /// beginning is copied to the row that nobody missed for longest. `whole` shortens a number of tokens so
    /// that it cuts no medium in two.
    pub fn choose(
        &self,
        prompt: &[Token],
        rewinds: bool,
        whole: impl Fn(usize) -> usize,
    ) -> Option<RowChoice> {
        let most = prompt.len().saturating_sub(1);
        let common = |row: &Row| {
            let equal = row.cached.iter().zip(prompt).take_while(|(cached, wanted)| cached == wanted).count();
            let common = whole(equal.min(most));
            let usable = rewinds || common == row.cached.len();
            if usable { common } else { 0 }
        };
        let all = || self.rows.iter().enumerate();
        let idle = || all().filter(|(_, row)| row.owner.is_none());
        // An empty row first, then the one unused for longest.
        let spare = |except: Option<usize>| {
            idle()
                .filter(|(at, _)| Some(*at) != except)
                .min_by_key(|(at, row)| (!row.cached.is_empty(), row.used, *at))
                .map(|(at, _)| at)
        };
        let longest = |(at, row): (usize, &Row)| (common(row), usize::MAX - at);
        let (best, best_row) = idle().max_by_key(|entry| longest(*entry))?;
        let (source, source_row) = all().max_by_key(|entry| longest(*entry))?;
        let (kept, shared) = (common(best_row), common(source_row));
        if shared == 0 {
            return spare(None).map(|row| RowChoice { row, common: 0, from: None });
        }
        if kept == shared && kept * 2 >= best_row.cached.len() {
            return Some(RowChoice { row: best, common: kept, from: None });
        }
        let source = if kept == shared { best } else { source };
        match spare(Some(source)) {
            Some(row) if rewinds => Some(RowChoice { row, common: shared, from: Some(source) }),
            _ if kept > 0 => Some(RowChoice { row: best, common: kept, from: None }),
            _ => spare(None).map(|row| RowChoice { row, common: 0, from: None }),
        }
    }

    /// The request takes the row.
    pub fn take(&mut self, row: usize, owner: u64) {
        self.rows[row].owner = Some(owner);
        self.touch(row);
    }

    /// The request is done; its tokens stay for the next one.
    pub fn release(&mut self, row: usize) {
        self.rows[row].owner = None;
        self.touch(row);
    }

    /// Rows that nobody uses: empty ones first, then those unused for longest.
    pub fn idle_rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> =
            (0..self.rows.len()).filter(|row| self.rows[*row].owner.is_none()).collect();
        rows.sort_by_key(|row| (!self.rows[*row].cached.is_empty(), self.rows[*row].used));
        rows
    }

    /// The idle row with tokens that nobody used for longest.
    pub fn oldest_idle(&self) -> Option<usize> {
        self.rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.owner.is_none() && !row.cached.is_empty())
            .min_by_key(|(_, row)| row.used)
            .map(|(at, _)| at)
    }

    fn touch(&mut self, row: usize) {
        self.clock += 1;
        self.rows[row].used = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are no pictures.
    fn all(length: usize) -> usize {
        length
    }

    fn memory(rows: &[(&[Token], bool)]) -> RowTable {
        let mut memory = RowTable::new(rows.len());
        for (at, (tokens, busy)) in rows.iter().enumerate() {
            memory.rows[at].cached = tokens.to_vec();
            memory.rows[at].owner = busy.then_some(at as u64);
            memory.touch(at);
        }
        memory
    }

    #[test]
    fn the_longest_common_beginning_wins_and_the_last_token_is_computed_again() {
        let memory = memory(&[(&[1, 2, 9], false), (&[1, 2, 3, 4], false)]);
        let choice = memory.choose(&[1, 2, 3, 4], true, all);
        assert_eq!(choice, Some(RowChoice { row: 1, common: 3, from: None }));
    }

    #[test]
    fn a_beginning_is_copied_from_a_busy_row() {
        let memory = memory(&[(&[1, 2, 3, 4], true), (&[], false)]);
        let choice = memory.choose(&[1, 2, 3, 7, 8], true, all);
        assert_eq!(choice, Some(RowChoice { row: 1, common: 3, from: Some(0) }));
        assert_eq!(
            memory.choose(&[1, 2, 3, 7], false, all),
            Some(RowChoice { row: 1, common: 0, from: None })
        );
    }

    #[test]
    fn another_conversation_with_the_same_system_prompt_is_kept_while_there_is_room() {
        let long: Vec<Token> = (0..40).collect();
        let prompt = [0, 1, 2, 90, 91];
        let with_room = memory(&[(&long, false), (&[], false)]);
        assert_eq!(
            with_room.choose(&prompt, true, all),
            Some(RowChoice { row: 1, common: 3, from: Some(0) })
        );
        let without = memory(&[(&long, false), (&[5], true)]);
        assert_eq!(without.choose(&prompt, true, all), Some(RowChoice { row: 0, common: 3, from: None }));
    }

    #[test]
    fn a_foreign_prompt_takes_an_empty_row_and_then_the_oldest() {
        let with_empty = memory(&[(&[1, 2], false), (&[], false), (&[3], false)]);
        assert_eq!(with_empty.choose(&[7, 8], true, all).map(|choice| choice.row), Some(1));
        let full = memory(&[(&[1, 2], true), (&[3, 4], false), (&[5, 6], false)]);
        assert_eq!(full.choose(&[7, 8], true, all).map(|choice| choice.row), Some(1));
        let busy = memory(&[(&[1, 2], true)]);
        assert_eq!(busy.choose(&[1, 2, 3], true, all), None);
    }

    #[test]
    fn a_picture_is_reused_as_a_whole_or_not_at_all() {
        // Three rows of a picture, which begin at 1.
        let whole = |length: usize| if (2..4).contains(&length) { 1 } else { length };
        let memory = memory(&[(&[5, -2, -2, -2, 6], false), (&[5, -3, -3, -3, 6], false)]);
        let common = |prompt: &[Token]| memory.choose(prompt, true, whole).map(|choice| choice.common);
        assert_eq!(common(&[5, -2, -2, -2, 6, 7]), Some(5));
        assert_eq!(common(&[5, -3, -3, -3, 6, 7]), Some(5));
        assert_eq!(common(&[5, -4, -4, -4, 6, 7]), Some(1), "another picture");
        assert_eq!(
            common(&[5, -2, -2, -2]),
            Some(1),
            "the last row is computed again, and with it the picture"
        );
    }
}
