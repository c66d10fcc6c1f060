//! The machine: memory, processors, and what was measured of its disk.

use std::time::Instant;

use hypura_core::profile::{Pattern, Profile, ReadRate};
use hypura_engine::machine::{idle_time, memory_available};
use serde_json::{Value, json};

/// How busy the processors were, from one look to the next.
#[derive(Default)]
pub(super) struct Processors {
    before: Option<(Instant, f64)>,
}

impl Processors {
    /// Share of the processors' time since the last look that somebody used, 0 to 1; `None` at the first
    /// look, and where the system does not tell.
    pub fn busy(&mut self) -> Option<f64> {
        let (now, idle_s) = (Instant::now(), idle_time()?.as_secs_f64());
        let (then, before_s) = self.before.replace((now, idle_s))?;
        let all_s = now.duration_since(then).as_secs_f64() * count() as f64;
        (all_s > 0.0).then(|| (1.0 - (idle_s - before_s) / all_s).clamp(0.0, 1.0))
    }
}

fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The machine, of which models may use `budget_bytes`.
pub(super) fn document(profile: Option<&Profile>, budget_bytes: u64, processors: &mut Processors) -> Value {
    let memory = memory_available().ok();
    let limit = memory.as_ref().and_then(|memory| memory.limit.as_ref());
    json!({
        "memory": {
            "total_bytes": memory.as_ref().map(|memory| memory.total_bytes),
            "available_bytes": memory.as_ref().map(|memory| memory.available_bytes),
            "limit_bytes": limit.map(|limit| limit.limit_bytes),
            "budget_bytes": budget_bytes,
        },
        "processors": {
            "count": count(),
            "busy": processors.busy(),
            "model": profile.and_then(|profile| profile.cpu.model.as_deref()),
        },
        "disk": profile.and_then(disk),
        "others_share": profile.and_then(|profile| profile.others_share),
        "measured_at_s": profile.and_then(|profile| profile.measured_at_s),
    })
}

/// What reads were measured at; nothing where none was.
fn disk(profile: &Profile) -> Option<Value> {
    let storage = profile.storage.as_ref().filter(|storage| storage.is_measured())?;
    let best = |pattern| storage.best(pattern).and_then(|read: &ReadRate| read.bytes_per_s);
    Some(json!({
        "device": storage.device,
        "file_system": storage.file_system,
        "sequential_bytes_per_s": best(Pattern::Sequential),
        "random_bytes_per_s": best(Pattern::Random),
    }))
}
