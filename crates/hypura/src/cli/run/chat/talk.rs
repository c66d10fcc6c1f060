//! The conversation: what was typed, done in turn.
//!
//! Ctrl-C stops the answer and comes back to the prompt; an error of one answer does not end the conversation
//! either.

use hypura_engine::media::{MediaFile, Modalities};
use std::io::{self, Write as _};

use super::command::{Part, Setting, Typed};
use super::help;
use super::lines::Lines;
use super::settings::ChatSettings;
use crate::cli::failure::{complain, is_closed_pipe, one_line};
use crate::cli::run::conversation::Prompt;
use crate::cli::run::media;
use crate::cli::style::Style;

/// The prompt that a text alone makes, with its media: those that were named beside it, and those that it
/// names itself, as far as the model takes their modality.
///
/// # Errors
/// When a file that it names is not what its name says.
pub(in crate::cli::run) fn first(
    raw: bool,
    text: String,
    media: Vec<MediaFile>,
    modalities: Modalities,
) -> anyhow::Result<Prompt> {
    let (text, media) = with_named(text, media, modalities)?;
    Ok(Prompt::empty(raw).with(text, media))
}

/// A text without the names of media in it, and the media.
fn with_named(
    text: String,
    mut media: Vec<MediaFile>,
    modalities: Modalities,
) -> anyhow::Result<(String, Vec<MediaFile>)> {
    let (text, paths) = media::named_in(&text, modalities);
    for (path, kind) in paths {
        media.push(media::read(&path, kind)?);
        eprintln!("{}", Style::of_stderr().dim(&format!("Added {} {}", kind.name(), path.display())));
    }
    Ok((text, media))
}

/// What answers: a model loaded in this process, or a server.
pub(in crate::cli::run) trait Speaker {
    /// The greeting.
    fn greeting(&self) -> String;

    /// Answers on standard output, tells what that cost, and gives the text.
    ///
    /// # Errors
    /// Whatever stands in the way; the conversation can go on.
    fn say(&mut self, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<String>;

    /// Forgets what was said.
    fn forget(&mut self);

    /// Which media can be shown.
    fn modalities(&self) -> Modalities;

    /// What is known of the model.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn show(&mut self, part: Part) -> anyhow::Result<String>;

    /// Keeps the model with these settings and what was said, under a name.
    ///
    /// # Errors
    /// What is wrong with the name, or with the store.
    fn save(&mut self, name: &str, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<()>;

    /// Goes on with another model.
    ///
    /// # Errors
    /// When there is none of that name; this one stays.
    fn load(&mut self, name: &str) -> anyhow::Result<Loaded>;
}

/// How another model is gone on with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::run) enum Loaded {
    /// It answers from now on.
    Here,
    /// This one must be gone first.
    AfterThis,
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::run) enum Ended {
    /// The person left.
    Bye,
    /// The person wants to talk to this model.
    Load(String),
}

/// A conversation as it goes on.
struct Talk<'a> {
    speaker: &'a mut dyn Speaker,
    settings: ChatSettings,
    conversation: Prompt,
    raw: bool,
    /// Shown with whatever is said next.
    media: Vec<MediaFile>,
}

/// Talks until the person leaves. `media` are shown with the first thing that is said.
///
/// # Errors
/// When the terminal cannot be used.
pub(in crate::cli::run) fn talk(
    speaker: &mut dyn Speaker,
    raw: bool,
    media: Vec<MediaFile>,
    settings: ChatSettings,
) -> anyhow::Result<Ended> {
    let mut lines = Lines::open()?;
    tell(&speaker.greeting());
    let mut talk = Talk { speaker, settings, conversation: Prompt::empty(raw), raw, media };
    loop {
        match lines.next()? {
            Typed::Bye => return Ok(Ended::Bye),
            Typed::Load(name) => match talk.speaker.load(&name) {
                Ok(Loaded::AfterThis) => return Ok(Ended::Load(name)),
                Ok(Loaded::Here) => talk.begin_with_another(),
                Err(error) => complain(&one_line(&error)),
            },
            Typed::Set(setting) => {
                if let Setting::History(remember) = setting {
                    lines.remember(remember);
                }
                tell(&talk.settings.set(setting));
            }
            Typed::Text(text) => talk.say(text)?,
            typed => talk.act(typed),
        }
    }
}

/// Says something of second rank.
fn tell(text: &str) {
    eprintln!("{}", Style::of_stderr().dim(text));
}

impl Talk<'_> {
    fn say(&mut self, text: String) -> anyhow::Result<()> {
        let said =
            with_named(text, self.media.clone(), self.speaker.modalities()).and_then(|(text, media)| {
                let next = self.conversation.with(text, media);
                let prompt = next.with_system(self.settings.system.as_deref());
                Ok((self.speaker.say(&prompt, &self.settings)?, next))
            });
        match said {
            Ok((text, next)) => {
                self.conversation = next.answered(&text);
                self.media.clear();
                eprintln!();
            }
            Err(error) if is_closed_pipe(&error) => return Err(error),
            // The prompt that failed is forgotten, so that the next one has a chance.
            Err(error) => complain(&one_line(&error)),
        }
        Ok(())
    }

    fn act(&mut self, typed: Typed) {
        match typed {
            Typed::Help(topic) => tell(&help::about(&topic)),
            Typed::Wrong(why) => tell(&why),
            Typed::Clear => {
                self.forget();
                tell("A new conversation.");
            }
            Typed::Show(part) => match self.shown(part) {
                Ok(text) => drop(writeln!(io::stdout(), "{}", text.trim_end())),
                Err(error) => complain(&one_line(&error)),
            },
            Typed::Save(name) => match self.speaker.save(&name, &self.conversation, &self.settings) {
                Ok(()) => tell(&format!("Saved as {name}: `hypura run {name}` goes on with it.")),
                Err(error) => complain(&one_line(&error)),
            },
            // These are done where the conversation can end.
            Typed::Nothing | Typed::Bye | Typed::Load(_) | Typed::Set(_) | Typed::Text(_) => {}
        }
    }

    /// What is known of the model, and what this conversation has set instead.
    fn shown(&mut self, part: Part) -> anyhow::Result<String> {
        if let (Part::System, Some(system)) = (part, &self.settings.system) {
            return Ok(system.clone());
        }
        let text = self.speaker.show(part)?;
        if part == Part::Parameters && !self.settings.parameters.is_empty() {
            return Ok(format!(
                "Of the model:\n{}\n\nOf this conversation:\n{}",
                text.trim_end(),
                self.settings.parameter_lines()
            ));
        }
        Ok(if text.trim().is_empty() { "There is none.".to_owned() } else { text })
    }

    fn forget(&mut self) {
        self.conversation = Prompt::empty(self.raw);
        self.speaker.forget();
    }

    fn begin_with_another(&mut self) {
        self.forget();
        let fresh = ChatSettings::new(self.settings.verbose, self.settings.view);
        self.settings = fresh;
        tell(&self.speaker.greeting());
    }
}
