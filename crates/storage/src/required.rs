//! What a machine must have for some tests. They are skipped where it is missing, unless `HYPURA_REQUIRE`
//! lists it (`io_uring`, `tmpfs`, separated by commas): then that is a failure, so that a continuous
//! integration which lost one of them says so.

use std::fmt::Display;

/// Passes over the test that asks, because `what` is missing.
#[track_caller]
pub fn skip_without(what: &str, why: impl Display) {
    let required = std::env::var("HYPURA_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name.trim() == what);
    assert!(!is_required, "{what} is missing ({why}), and HYPURA_REQUIRE={required} wants it");
    eprintln!("skipped, because {what} is missing: {why}");
}
