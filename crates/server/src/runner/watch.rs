//! Watching a runner: one that says nothing for too long, does not get on with what it was asked, or takes
//! more memory than it was given, is ended.

use std::sync::Arc;
use std::time::Duration;

use super::link::Link;

/// How often to look.
const LOOK: Duration = Duration::from_millis(100);

/// Watches until the runner has ended. Runs on a thread of its own.
pub(super) fn watch(link: &Arc<Link>) {
    while !link.wait_for_end(LOOK) {
        link.give_up_late();
        let limits = link.limits();
        let silent = link.silent_for();
        if silent > limits.silence {
            link.condemn(&format!("its process hung: nothing was heard of it for {} s", silent.as_secs()));
        }
        if let Some(still) = link.stuck_for() {
            let seconds = still.as_secs();
            link.condemn(&format!("its process hung: nothing was computed or read for {seconds} s"));
        }
        link.limit_memory();
        let allowed = link.granted_bytes().saturating_add(limits.slack_bytes);
        if let Some(bytes) = link.own_bytes().filter(|bytes| *bytes > allowed) {
            link.condemn(&format!(
                "its process took {} MiB of memory, and {} MiB were given to it",
                bytes >> 20,
                link.granted_bytes() >> 20
            ));
        }
    }
}
