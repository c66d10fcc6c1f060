//! The gate on the CPU: see [`exact`].

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "common/exact.rs"]
mod exact;

use common::{demo_path, forced_run, session, streaming};
use exact::At;
use hypura_engine::stream::Prefetch;

exactness!(|part: fn(&At)| part(&At::default()));

#[test]
fn the_next_router_names_most_of_the_next_experts() {
    let mut opened = session(&demo_path(), streaming(40.0).with_prefetch(Prefetch::Router));
    let stats = forced_run(&mut opened, 40, 30).unwrap().decode_stats;
    assert!(stats.prefetches > 0, "{stats:?}");
    // Chance would be 4 of 24. Counted, not timed: what was prefetched and then used.
    assert!(stats.decode.prefetched * 3 > stats.prefetches, "{stats:?}");
}
