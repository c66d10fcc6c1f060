//! One generation: from a prompt to text on standard output, token by token, and the reports after it.

use anyhow::Context as _;
use hypura_engine::machine;
use hypura_engine::media::{MediaFile, MediaPrompt, MediaPromptError, Modalities, tagged};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::border::Border;
use super::chat::Speaker;
use super::conversation::{Message, Prompt};
use super::report;
use super::stats::{Start, Stats};
use super::stats_file::StatsFile;
use crate::cli::interrupt::Interrupt;
use crate::cli::style::Style;

/// A finished answer.
pub(super) struct Answer {
    pub outcome: Outcome,
    pub text: String,
}

/// Everything that answers need.
pub(super) struct Answerer {
    pub session: Session,
    pub interrupt: Interrupt,
    pub options: GenerateOptions,
    pub start: Start,
    pub verbose: bool,
    pub stats_file: Option<StatsFile>,
    /// Messages that come before every conversation.
    pub beginning: Vec<Message>,
    pub border: Border,
}

impl Answerer {
    /// Answers on standard output. Ctrl-C ends the answer, not the program; a second one does.
    ///
    /// # Errors
    /// When the prompt does not fit, decoding fails or the output is closed; the session can go on.
    pub fn answer(&mut self, prompt: &Prompt) -> anyhow::Result<Answer> {
        let (tokens, stops) =
            self.tokens(prompt).map_err(|error| match error.downcast::<MediaPromptError>() {
                Ok(error) => {
                    anyhow::Error::new(error).context("the images and sounds cannot be shown to the model")
                }
                Err(error) => error,
            })?;
        let stops = self.options.stops.iter().cloned().chain(stops).collect();
        let options = GenerateOptions { stops, ..self.options.clone() };
        let abort = Arc::clone(&self.session.loaded().abort);
        let (session, interrupt) = (&mut self.session, &self.interrupt);
        let mut out = Output::default();
        let result = interrupt.disarmed(|| {
            session.generate_after(tokens, &options, &mut |piece| {
                // The session lowers the flag when it begins; a Ctrl-C just before that must not be lost.
                if interrupt.raised() {
                    abort.store(true, Ordering::Relaxed);
                }
                out.show(piece)
            })
        });
        let ended = out.end_line();
        let outcome = result?;
        ended.context("cannot write the answer")?;
        Ok(Answer { outcome, text: out.text })
    }

    fn tokens(&mut self, prompt: &Prompt) -> anyhow::Result<(MediaPrompt, Vec<String>)> {
        Ok(match prompt {
            Prompt::Chat(messages) => {
                let all = || self.beginning.iter().chain(messages);
                let json: Vec<Value> = all().map(Message::to_json).collect();
                let media: Vec<MediaFile> = all().flat_map(|message| message.media.clone()).collect();
                let json = serde_json::to_string(&json)?;
                let rendered = self.border.rendering(|| self.session.render(&json))?;
                let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
                (self.session.tokenize_with_media(&rendered, &media)?, rendered.stops)
            }
            Prompt::Raw(text, media) => {
                let (text, media) = tagged(text, media);
                let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
                (self.session.tokenize_text_with_media(&text, &media)?, Vec::new())
            }
        })
    }

    /// The summary on stderr, and the statistics file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn report(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let stats = self.stats(answer);
        let mut text = report::summary(&stats);
        if self.verbose {
            text.push('\n');
            text.push_str(&report::details(&stats));
        }
        self.tell(&text, &stats)
    }

    /// The same in one line, for chats.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn report_briefly(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let stats = self.stats(answer);
        let mut text = report::brief(&stats);
        if self.verbose {
            text.push('\n');
            text.push_str(&report::details(&stats));
        }
        self.tell(&text, &stats)
    }

    fn stats(&self, answer: &Answer) -> Stats {
        let peak = machine::peak_rss_bytes().ok();
        let kernel = machine::storage_read_bytes().ok();
        Stats::new(self.session.loaded(), &answer.outcome, &self.start, peak, kernel)
    }

    fn tell(&mut self, text: &str, stats: &Stats) -> anyhow::Result<()> {
        let _ = writeln!(io::stderr(), "\n{}", Style::of_stderr().dim(text));
        match &mut self.stats_file {
            Some(file) => file.write(stats),
            None => Ok(()),
        }
    }
}

impl Speaker for Answerer {
    fn greeting(&self) -> String {
        report::greeting(&self.session)
    }

    fn say(&mut self, prompt: &Prompt) -> anyhow::Result<String> {
        let answer = self.answer(prompt)?;
        self.report_briefly(&answer)?;
        Ok(answer.text)
    }

    fn forget(&mut self) {
        self.session.clear();
    }

    fn modalities(&self) -> Modalities {
        self.session.modalities()
    }
}

/// Standard output, flushed piece by piece.
pub(super) struct Output {
    pub text: String,
    terminal: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self { text: String::new(), terminal: io::stdout().is_terminal() }
    }
}

impl Output {
    pub fn show(&mut self, piece: &str) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.text.push_str(piece);
        let mut out = io::stdout().lock();
        if self.terminal {
            out.write_all(harmless(piece).as_bytes())?;
        } else {
            out.write_all(piece.as_bytes())?;
        }
        out.flush()
    }

    /// Whatever comes next begins on a new line.
    pub fn end_line(&self) -> io::Result<()> {
        if self.text.is_empty() || self.text.ends_with('\n') {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(b"\n")?;
        out.flush()
    }
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
