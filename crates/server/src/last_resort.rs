//! The end of the program that nothing holds up: at the second signal at once, and otherwise when the time is
//! over that a shutdown may take.
//!
//! Tasks, handlers and C++ may be busy for as long as they like: the second signal ends the process in its
//! handler, and a thread of its own watches the time. The processes of models end with this one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How long freeing the models may take, once nobody uses them any more.
pub const UNLOAD_LIMIT: Duration = Duration::from_secs(30);

/// Exit code of a program that a second signal ended.
const STOPPED_AT_ONCE: i32 = 130;
/// Exit code where the time was over.
const LATE: i32 = 1;
/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

/// Installs it: a second SIGINT or SIGTERM ends the program at once, and the first one after `limit`.
///
/// # Errors
/// When the system refuses a handler or a thread.
pub fn end_by_force(limit: Duration) -> io::Result<()> {
    let stopping = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(signal, STOPPED_AT_ONCE, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    std::thread::Builder::new().name("last-resort".to_owned()).spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(limit);
        // Nothing of the program is waited for, least of all its destructors.
        eprintln!("hypura: stopping took longer than {} s", limit.as_secs());
        signal_hook::low_level::exit(LATE);
    })?;
    Ok(())
}
