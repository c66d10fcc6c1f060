//! Which experts are in memory, and which of them were used lately, for whoever watches.

use hypura_core::cache::{ExpertCache, TokenClock};
use hypura_core::plan::ExpertLayout;
use serde::{Deserialize, Serialize};

/// Decode steps that count as lately.
const LATELY: u64 = 32;

/// What is known of one expert, from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExpertState {
    /// It is on the disk only.
    #[default]
    OnDisk,
    /// It is in memory.
    InMemory,
    /// It is in memory and one of the last 32 decode steps used it.
    UsedLately,
    /// The last step used it.
    UsedNow,
}

/// The routed experts of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertRow {
    /// Layer (`N` of `blk.N`).
    pub layer: u32,
    /// Its experts, in the order of the file.
    pub experts: Vec<ExpertState>,
}

/// All routed experts of a model that streams them: layers × experts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertMap {
    /// Tokens computed until then: maps of the same number are the same.
    pub clock: u64,
    /// Layers that have routed experts, in order.
    pub layers: Vec<ExpertRow>,
}

impl ExpertMap {
    /// What these caches, of the host and of devices, hold at `now`. Of an expert that is in two of them the
    /// later use counts.
    pub(crate) fn new<'a>(
        layout: &ExpertLayout,
        caches: impl Iterator<Item = &'a ExpertCache>,
        now: TokenClock,
    ) -> Self {
        let row = |layer: u32, experts: u32| ExpertRow {
            layer,
            experts: vec![ExpertState::OnDisk; experts as usize],
        };
        let mut layers: Vec<ExpertRow> =
            layout.layers.iter().map(|layer| row(layer.layer, layer.experts)).collect();
        for cache in caches {
            for (key, slot) in cache.table().residents() {
                let found = layers.binary_search_by_key(&key.layer, |row| row.layer);
                let row = found.ok().and_then(|index| layers.get_mut(index));
                let Some(state) = row.and_then(|row| row.experts.get_mut(key.expert as usize)) else {
                    continue;
                };
                *state = (*state).max(state_of(cache.table().used_at(slot), now));
            }
        }
        Self { clock: now.0, layers }
    }
}

fn state_of(used: Option<TokenClock>, now: TokenClock) -> ExpertState {
    match used.map(|used| now.since(used)) {
        Some(0) => ExpertState::UsedNow,
        Some(age) if age <= LATELY => ExpertState::UsedLately,
        Some(_) | None => ExpertState::InMemory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_is_as_warm_as_its_last_use() {
        let at = |clock| Some(TokenClock(clock));
        for (used, state) in [
            (None, ExpertState::InMemory),
            (at(100), ExpertState::UsedNow),
            (at(99), ExpertState::UsedLately),
            (at(68), ExpertState::UsedLately),
            (at(67), ExpertState::InMemory),
        ] {
            assert_eq!(state_of(used, TokenClock(100)), state, "{used:?}");
        }
    }
}
