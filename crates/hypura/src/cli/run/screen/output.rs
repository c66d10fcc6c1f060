//! Standard output, flushed piece by piece.

use std::io::{self, IsTerminal as _, Write as _};

use super::markdown::Markdown;
use crate::cli::style::Style;

/// How answers look on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::run) struct View {
    /// Break lines between words.
    pub wrap: bool,
    /// Show Markdown as what it means.
    pub markdown: bool,
}

impl Default for View {
    fn default() -> Self {
        Self { wrap: true, markdown: true }
    }
}

/// Where an answer goes.
enum Screen {
    /// As it is.
    Pipe,
    /// Without what steers terminals.
    Plain,
    Rendered(Box<Markdown>),
}

/// An answer on its way to standard output.
pub(in crate::cli::run) struct Output {
    /// The answer so far.
    pub text: String,
    screen: Screen,
}

impl Output {
    /// For whatever standard output is.
    pub fn new(view: View) -> Self {
        let out = io::stdout();
        let screen = match view {
            _ if !out.is_terminal() => Screen::Pipe,
            View { wrap: false, markdown: false } => Screen::Plain,
            View { wrap, markdown } => {
                let width = if wrap { columns() } else { 0 };
                let styled = markdown && Style::of_stdout().has_colours();
                Screen::Rendered(Box::new(Markdown::new(width, styled)))
            }
        };
        Self { text: String::new(), screen }
    }

    /// Shows more of the answer.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn show(&mut self, piece: &str) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.text.push_str(piece);
        let shown = match &mut self.screen {
            Screen::Pipe => piece.to_owned(),
            Screen::Plain => harmless(piece),
            Screen::Rendered(markdown) => markdown.push(&harmless(piece)),
        };
        write(&shown)
    }

    /// Shows what was held back; whatever comes next begins on a new line.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn end_line(&mut self) -> io::Result<()> {
        let mut rest = match &mut self.screen {
            Screen::Rendered(markdown) => markdown.end(),
            Screen::Pipe | Screen::Plain => String::new(),
        };
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            rest.push('\n');
        }
        write(&rest)
    }
}

fn write(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The width of the terminal; 0 where it is not known.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col))
}

/// What a model wrote must not steer the terminal: no control characters but line ends and tabs.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{7}\u{9b}1m🦀"), "a[2Jb\n\tc1m🦀");
    }
}
