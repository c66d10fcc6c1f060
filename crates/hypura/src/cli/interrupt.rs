//! Ctrl-C: the first one asks for an end, the second one is the end.
//!
//! While nothing can be asked to end (loading, waiting for input) the first one ends the program at once; it
//! is *armed*. The handlers only set flags or exit, which is all that a signal handler may do.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program that Ctrl-C ended: 128 + SIGINT, as shells report it.
const EXIT_CODE: u8 = 130;

/// The state of Ctrl-C.
#[derive(Debug)]
pub struct Interrupt {
    armed: Arc<AtomicBool>,
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT, armed; call it once. Also SIGXFSZ, so that a write beyond a size limit fails with
    /// an error that can be asked to stop instead of killing the program.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> anyhow::Result<Self> {
        let armed = Arc::new(AtomicBool::new(true));
        let raised = Arc::new(AtomicBool::new(false));
        let ignored = Arc::new(AtomicBool::new(false));
        // Order matters: the exit looks at what the flag was before this signal.
        flag::register_conditional_shutdown(SIGINT, i32::from(EXIT_CODE), Arc::clone(&armed))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&armed)))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&raised)))
            .and_then(|_| flag::register(SIGXFSZ, ignored))
            .context("cannot listen to signals")?;
        Ok(Self { armed, raised })
    }

    /// Takes over SIGTERM in the same way, for work that must leave nothing unfinished behind.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn heed_termination(&self) -> anyhow::Result<()> {
        flag::register_conditional_shutdown(SIGTERM, i32::from(EXIT_CODE), Arc::clone(&self.armed))
            .and_then(|_| flag::register(SIGTERM, Arc::clone(&self.armed)))
            .and_then(|_| flag::register(SIGTERM, Arc::clone(&self.raised)))
            .context("cannot listen to signals")?;
        Ok(())
    }

    /// From now on the first Ctrl-C raises `abort`, too, and the second one ends the program. For as long as
    /// the program runs: call it once for each flag.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn also_raise(&self, abort: &Arc<AtomicBool>) -> anyhow::Result<()> {
        flag::register(SIGINT, Arc::clone(abort)).context("cannot listen to signals")?;
        Ok(())
    }

    /// Does `work`, which watches [`Self::raised`] or a flag given to [`Self::also_raise`], with Ctrl-C
    /// disarmed.
    pub fn disarmed<T>(&self, work: impl FnOnce() -> T) -> T {
        self.raised.store(false, Ordering::SeqCst);
        self.armed.store(false, Ordering::SeqCst);
        let done = work();
        self.armed.store(true, Ordering::SeqCst);
        done
    }

    /// Whether Ctrl-C was pressed since the last [`Self::disarmed`] began.
    #[must_use]
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// The exit code after a polite end.
    #[must_use]
    pub fn exit_code() -> ExitCode {
        ExitCode::from(EXIT_CODE)
    }
}
