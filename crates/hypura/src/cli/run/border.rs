//! What a file may do to a run of it: end it, with one line and an exit code.
//!
//! A server gives each model a process for that. Here the process is the model's own, so its last words are
//! enough: assertions, exceptions and signals have them by [`crash`], and a thread watches what takes too
//! long to be planned, or takes more memory than it may.

use hypura_engine::crash;
use hypura_server::runner::{Limits, own_bytes};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cli::failure;

/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

/// The border of one run.
pub(super) struct Border {
    planned: Arc<AtomicBool>,
}

impl Border {
    /// From here on whatever C++ makes of the file is one line that names it.
    pub fn of(path: &Path) -> Self {
        crash::install(&format!("hypura: cannot run {}: ", path.display()), failure::RUNTIME);
        Self { planned: Arc::default() }
    }

    /// Watches how long planning takes, and that the process stays within the budget.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(&self, budget_bytes: u64) -> std::io::Result<()> {
        let planned = Arc::clone(&self.planned);
        let (limits, start) = (Limits::default(), Instant::now());
        let most_bytes = budget_bytes.saturating_add(limits.slack_bytes);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(LOOK);
                if !planned.load(Ordering::Relaxed) && start.elapsed() > limits.plan {
                    crash::end(&format!("its file could not be read within {} s", limits.plan.as_secs()));
                }
                if own_bytes().is_some_and(|bytes| bytes > most_bytes) {
                    crash::end("it takes far more memory than the budget");
                }
            }
        })?;
        Ok(())
    }

    /// The plan was made.
    pub fn planned(&self) {
        self.planned.store(true, Ordering::Relaxed);
    }
}
