//! What a loaded model came to beside what was predicted of it, for the plans to come.

use hypura_core::audit::{Expected, Tiers};
use hypura_core::plan::Mode;
use hypura_engine::profile::{add_record, cache_folder, unix_now_s};
use hypura_engine::serve::{RunnerInfo, RunnerStatus, Totals};

/// Remembers what a model did since it was loaded.
pub(super) fn remember(expected: Expected, info: &RunnerInfo, status: &RunnerStatus) {
    let totals = &status.totals;
    let Some((measured, tokens)) = measured(info.mode, info.parallel, totals) else { return };
    let disturbed = totals.stream.threads.was_disturbed();
    let record = expected.record(measured, tokens, disturbed, unix_now_s());
    if let (Some(folder), Some(record)) = (cache_folder(), record)
        && let Err(error) = add_record(&folder, record)
    {
        tracing::debug!(%error, "what a model came to cannot be remembered");
    }
}

/// Its answers, and how many tokens they say something of; `None` where steps were shared or drafted.
fn measured(mode: Mode, parallel: usize, totals: &Totals) -> Option<(Tiers, u64)> {
    // The first token of an answer is that of its prompt.
    let tokens = totals.generated_tokens.checked_sub(totals.requests).filter(|tokens| *tokens > 0)?;
    if parallel != 1 || totals.speculation.proposed > 0 {
        return None;
    }
    let stream = &totals.stream;
    let token_s = totals.decode.as_secs_f64() / tokens as f64;
    let (bytes, busy_s) = (stream.bytes_read as f64, stream.disk_busy.as_secs_f64());
    let lookups = (stream.decode.hits + stream.decode.misses) as f64;
    let tiers = Tiers {
        tokens_per_s: 1.0 / token_s,
        // Where something streams, waits and prompts are in the same sums.
        compute_s: (mode == Mode::FullResident).then_some(token_s),
        read_bytes: None,
        disk_bytes_per_s: (bytes > 0.0 && busy_s > 0.0).then(|| bytes / busy_s),
        hit_rate: (lookups > 0.0).then(|| stream.decode.hits as f64 / lookups),
    };
    Some((tiers, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn totals() -> Totals {
        let mut totals = Totals {
            requests: 4,
            generated_tokens: 104,
            decode: Duration::from_secs(10),
            ..Totals::default()
        };
        totals.stream.bytes_read = 4_000_000_000;
        totals.stream.disk_busy = Duration::from_secs(2);
        (totals.stream.decode.hits, totals.stream.decode.misses) = (75, 25);
        totals
    }

    #[test]
    fn answers_of_one_user_are_measured_by_tier() {
        let (tiers, tokens) = measured(Mode::ExpertStreaming, 1, &totals()).unwrap();
        assert_eq!((tokens, tiers.compute_s, tiers.hit_rate), (100, None, Some(0.75)));
        assert!((tiers.tokens_per_s - 10.0).abs() < 1e-9);
        assert_eq!(tiers.disk_bytes_per_s, Some(2e9));
        let (resident, _) = measured(Mode::FullResident, 1, &totals()).unwrap();
        assert_eq!(resident.compute_s, Some(0.1));
    }

    #[test]
    fn shared_steps_and_idle_models_say_nothing() {
        assert!(measured(Mode::FullResident, 4, &totals()).is_none());
        assert!(measured(Mode::FullResident, 1, &Totals::default()).is_none());
    }
}
