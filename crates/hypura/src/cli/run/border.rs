//! What a file may do to a run of it: end it, with one line and an exit code.
//!
//! A server gives each model a process for that. Here the process is the model's own, so its last words are
//! enough: assertions, exceptions and signals have them by [`crash`], and a thread watches what takes too
//! long, or takes more memory than it may.

use hypura_engine::crash;
use hypura_server::runner::{Limits, own_bytes};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::failure;

/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

/// Work that the file's contents could make endless.
struct Work {
    /// What is said when it takes longer.
    what: &'static str,
    begun: Instant,
    limit: Duration,
}

/// The border of one run.
#[derive(Clone)]
pub(super) struct Border {
    limits: Limits,
    work: Arc<Mutex<Option<Work>>>,
}

impl Border {
    /// From here on whatever C++ makes of the file is one line that names it.
    pub fn of(path: &Path) -> Self {
        crash::install(&format!("hypura: cannot run {}: ", path.display()), failure::RUNTIME);
        Self { limits: Limits::default(), work: Arc::default() }
    }

    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches how long work takes, and that the process stays within the budget.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(&self, budget_bytes: u64) -> std::io::Result<()> {
        let border = self.clone();
        let most_bytes = budget_bytes.saturating_add(self.limits.slack_bytes);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(LOOK);
                if let Some(work) = border.work().as_ref().filter(|work| work.begun.elapsed() > work.limit) {
                    crash::end(&format!("{} within {} s", work.what, work.limit.as_secs()));
                }
                if own_bytes().is_some_and(|bytes| bytes > most_bytes) {
                    crash::end("it takes far more memory than the budget");
                }
            }
        })?;
        Ok(())
    }

    /// Plans within a deadline.
    pub fn planning<T>(&self, plan: impl FnOnce() -> T) -> T {
        self.within("its file could not be read", self.limits.plan, plan)
    }

    /// Renders the chat template within a deadline: templates can loop.
    pub fn rendering<T>(&self, render: impl FnOnce() -> T) -> T {
        self.within("its chat template did not end", self.limits.template, render)
    }

    /// Cuts a text into tokens within a deadline, longer where media are decoded for it.
    pub fn tokenizing<T>(&self, has_media: bool, cut: impl FnOnce() -> T) -> T {
        let limit = if has_media { self.limits.media } else { self.limits.text };
        self.within("the prompt was not cut into tokens", limit, cut)
    }

    fn within<T>(&self, what: &'static str, limit: Duration, work: impl FnOnce() -> T) -> T {
        *self.work() = Some(Work { what, begun: Instant::now(), limit });
        let done = work();
        *self.work() = None;
        done
    }
}
