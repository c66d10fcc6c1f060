//! How text looks: colours only for people who watch a terminal, progress bars only when there is something
//! to wait for.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Whether to use colours on an output.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// Colours when stderr is a terminal that can show them and nobody asked for none
    /// (<https://no-color.org>).
    #[must_use]
    pub fn of_stderr() -> Self {
        Self { colours: std::io::stderr().is_terminal() && !refused() }
    }

    /// The same for stdout.
    #[must_use]
    pub fn of_stdout() -> Self {
        Self { colours: std::io::stdout().is_terminal() && !refused() }
    }

    /// Whether there are colours.
    #[must_use]
    pub const fn has_colours(self) -> bool {
        self.colours
    }

    /// Text of second rank.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        if self.colours { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn refused() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// A progress bar over bytes on stderr that appears after half a second, and only on a terminal.
#[derive(Debug)]
pub struct ByteProgress {
    bar: ProgressBar,
    start: Instant,
}

/// What takes less is not worth a bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Starts a progress bar for `what`.
#[must_use]
pub fn progress_bar(what: &str) -> ByteProgress {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    let template = "{msg} {wide_bar:.dim} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(what.to_owned());
    ByteProgress { bar, start: Instant::now() }
}

/// Starts a progress bar for a download, with the time that is left.
#[must_use]
pub fn download_bar() -> ByteProgress {
    let progress = progress_bar("pulling");
    let template = "{msg} {wide_bar:.dim} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.bar.set_style(style.progress_chars("━╸ "));
    }
    progress
}

impl ByteProgress {
    /// A line above the bar.
    pub fn line(&self, text: &str) {
        // Nowhere is left to report that stderr is closed.
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
    }

    /// `done` of `total` bytes.
    pub fn set(&self, done: u64, total: u64) {
        if self.bar.is_hidden() && self.start.elapsed() > PATIENCE {
            // indicatif itself stays hidden where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.bar.position() == 0 && done > 0 {
            // What was there before is no speed.
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for ByteProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
