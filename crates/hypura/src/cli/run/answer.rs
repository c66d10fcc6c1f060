//! One generation: from a prompt to text on standard output, token by token, and the reports after it.

use anyhow::Context as _;
use hypura_engine::machine;
use hypura_engine::media::{MediaFile, MediaPrompt, MediaPromptError, Modalities, tagged};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::{ChatPrompt, ChatRequest};
use serde_json::{Map, Value};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::about::About;
use super::audit;
use super::border::Border;
use super::chat::{ChatSettings, Loaded, Part, Speaker};
use super::conversation::{Message, Prompt};
use super::report;
use super::screen::{Output, Said, Thinking, Thoughts};
use super::stats::{Start, Stats};
use super::stats_file::StatsFile;
use crate::cli::failure::complain;
use crate::cli::flags::NamedModel;
use crate::cli::interrupt::Interrupt;
use crate::cli::style::Style;

/// A finished answer.
pub(super) struct Answer {
    pub outcome: Outcome,
    pub text: String,
}

/// How options of answers follow from what a conversation has set.
pub(super) type OptionsOf = Box<dyn Fn(&Map<String, Value>) -> GenerateOptions>;

/// Everything that answers need.
pub(super) struct Answerer {
    pub session: Session,
    pub interrupt: Interrupt,
    pub options: OptionsOf,
    pub start: Start,
    pub stats_file: Option<StatsFile>,
    pub about: About,
    /// Messages that come before every conversation.
    pub beginning: Vec<Message>,
    pub border: Border,
}

impl Answerer {
    /// Answers on standard output. Ctrl-C ends the answer, not the program; a second one does.
    ///
    /// # Errors
    /// When the prompt does not fit, decoding fails or the output is closed; the session can go on.
    pub fn answer(&mut self, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<Answer> {
        let (tokens, stops, thoughts) =
            self.tokens(prompt, settings).map_err(|error| match error.downcast::<MediaPromptError>() {
                Ok(error) => {
                    anyhow::Error::new(error).context("the images and sounds cannot be shown to the model")
                }
                Err(error) => error,
            })?;
        let mut options = (self.options)(&settings.parameters);
        options.stops.extend(stops);
        let abort = Arc::clone(&self.session.loaded().abort);
        let (session, interrupt) = (&mut self.session, &self.interrupt);
        let mut out = Shown { out: Output::new(settings.view), thinking: Thinking::default(), thoughts };
        let result = interrupt.disarmed(|| {
            session.generate_after(tokens, &options, &mut |piece| {
                // The session lowers the flag when it begins; a Ctrl-C just before that must not be lost.
                if interrupt.raised() {
                    abort.store(true, Ordering::Relaxed);
                }
                out.show(piece)
            })
        });
        let ended = out.end();
        let outcome = result?;
        ended.context("cannot write the answer")?;
        Ok(Answer { outcome, text: out.out.text })
    }

    fn tokens(
        &mut self,
        prompt: &Prompt,
        settings: &ChatSettings,
    ) -> anyhow::Result<(MediaPrompt, Vec<String>, Thoughts)> {
        Ok(match prompt {
            Prompt::Chat(messages) => {
                let all = self.with_beginning(messages);
                let json: Vec<Value> = all.iter().map(Message::to_json).collect();
                let media: Vec<MediaFile> = all.iter().flat_map(|message| message.media.clone()).collect();
                let rendered = self.rendered(&serde_json::to_string(&json)?, settings)?;
                let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
                let session = &self.session;
                let cut = || session.tokenize_with_media(&rendered, &media);
                let tokens = self.border.tokenizing(!media.is_empty(), cut)?;
                let thoughts = Thoughts::after(&rendered.text, rendered.supports_thinking);
                (tokens, rendered.stops, thoughts)
            }
            Prompt::Raw(text, media) => {
                let (text, media) = tagged(text, media);
                let media: Vec<&[u8]> = media.iter().map(|file| file.as_slice()).collect();
                let session = &self.session;
                let cut = || session.tokenize_text_with_media(&text, &media);
                let tokens = self.border.tokenizing(!media.is_empty(), cut)?;
                (tokens, Vec::new(), Thoughts::after("", false))
            }
        })
    }

    fn rendered(&mut self, messages: &str, settings: &ChatSettings) -> anyhow::Result<ChatPrompt> {
        let request = ChatRequest {
            enable_thinking: settings.think.as_ref().map(|think| *think != Value::Bool(false)),
            reasoning_effort: settings.think.as_ref().and_then(Value::as_str).map(ToOwned::to_owned),
            ..ChatRequest::new(messages)
        };
        let session = &mut self.session;
        let rendered = self.border.rendering(|| session.render_as(&request))?;
        if let Some(note) = session.take_template_note() {
            complain(&format!("warning: {note}"));
        }
        Ok(rendered)
    }

    /// What the model was made with, then what was said. A system prompt that was set replaces its own.
    fn with_beginning(&self, messages: &[Message]) -> Vec<Message> {
        let has_own = messages.first().is_some_and(|message| message.role == "system");
        let beginning = self.beginning.iter().filter(|message| !(has_own && message.role == "system"));
        let (system, said) = messages.split_at(usize::from(has_own));
        system.iter().chain(beginning).chain(said).cloned().collect()
    }

    /// The summary on stderr, and the statistics file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn report(&mut self, answer: &Answer, verbose: bool) -> anyhow::Result<()> {
        let stats = self.stats(answer);
        let mut text = report::summary(&stats);
        if verbose {
            text.push('\n');
            text.push_str(&report::details(&stats));
        }
        self.tell(&text, &stats)
    }

    /// The same in one line, for chats.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn report_briefly(&mut self, answer: &Answer, verbose: bool) -> anyhow::Result<()> {
        let stats = self.stats(answer);
        let mut text = report::brief(&stats);
        if verbose {
            text.push('\n');
            text.push_str(&report::tiers(&stats));
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
        audit::remember(self.session.loaded(), stats);
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

    fn say(&mut self, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<String> {
        if settings.format.is_some() {
            anyhow::bail!(
                "answers in a format need a server: start `hypura serve`, then `hypura run` goes through it (/set \
                 noformat goes on here)"
            );
        }
        let answer = self.answer(prompt, settings)?;
        self.report_briefly(&answer, settings.verbose)?;
        Ok(answer.text)
    }

    fn forget(&mut self) {
        self.session.clear();
    }

    fn modalities(&self) -> Modalities {
        self.session.modalities()
    }

    fn show(&mut self, part: Part) -> anyhow::Result<String> {
        self.about.shown(part)
    }

    fn save(&mut self, name: &str, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<()> {
        let before = self.beginning.iter().filter(|message| message.role != "system").cloned().collect();
        let mut messages = Prompt::Chat(before).messages();
        messages.extend(prompt.messages());
        self.about.save(name, messages, settings)
    }

    /// Two models do not fit where one of them streams: this process ends, and another begins.
    fn load(&mut self, name: &str) -> anyhow::Result<Loaded> {
        NamedModel::find(Path::new(name))?;
        Ok(Loaded::AfterThis)
    }
}

/// An answer as it is shown.
struct Shown {
    out: Output,
    thinking: Thinking,
    thoughts: Thoughts,
}

impl Shown {
    fn show(&mut self, piece: &str) -> io::Result<()> {
        let said = self.thoughts.push(piece);
        said.into_iter().try_for_each(|said| self.part(said))
    }

    fn part(&mut self, said: Said) -> io::Result<()> {
        match said {
            Said::Thought(text) => {
                self.thinking.show(&text);
                Ok(())
            }
            Said::Answer(text) => {
                if !text.is_empty() {
                    self.thinking.end();
                }
                self.out.show(&text)
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let rest = self.thoughts.end().map_or(Ok(()), |said| self.part(said));
        self.thinking.end();
        rest.and(self.out.end_line())
    }
}
