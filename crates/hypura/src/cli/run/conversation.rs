//! What was said so far, and the prompt that it makes.

use hypura_engine::media::{MediaFile, marker_part};
use hypura_store::Message as StoredMessage;
use serde_json::{Value, json};

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub role: &'static str,
    pub content: String,
    /// Media, which come before the text.
    pub media: Vec<MediaFile>,
}

impl Message {
    /// As chat templates want it.
    pub fn to_json(&self) -> Value {
        if self.media.is_empty() {
            return json!({"role": self.role, "content": self.content});
        }
        let places = self.media.iter().map(|_| marker_part());
        let parts: Vec<Value> = places.chain([json!({"type": "text", "text": self.content})]).collect();
        json!({"role": self.role, "content": parts})
    }
}

/// A conversation up to where an answer is wanted; without a message, one that begins.
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    /// Messages for the model's chat template.
    Chat(Vec<Message>),
    /// Text to continue, and its media at `[img-0]`, `[img-1]` …; control tokens in it are read as such,
    /// because whoever says `--raw` writes the template.
    Raw(String, Vec<MediaFile>),
}

impl Prompt {
    /// Nothing was said yet.
    pub fn empty(raw: bool) -> Self {
        if raw { Self::Raw(String::new(), Vec::new()) } else { Self::Chat(Vec::new()) }
    }

    /// The person says this, and shows these.
    pub fn with(&self, text: String, media: Vec<MediaFile>) -> Self {
        let mut next = self.clone();
        match &mut next {
            Self::Chat(messages) => messages.push(Message { role: "user", content: text, media }),
            Self::Raw(all, shown) => {
                // Where the text does not say itself where its media are, they come first.
                let tags = (0..media.len()).map(|at| format!("[img-{}]", shown.len() + at));
                let placed = media.is_empty() || text.contains("[img-");
                all.extend(tags.filter(|_| !placed));
                all.push_str(&text);
                shown.extend(media);
            }
        }
        next
    }

    /// The same with this system prompt before it. Raw text has none.
    pub fn with_system(&self, system: Option<&str>) -> Self {
        let mut next = self.clone();
        if let (Self::Chat(messages), Some(system)) = (&mut next, system) {
            let (role, content) = ("system", system.to_owned());
            messages.insert(0, Message { role, content, media: Vec::new() });
        }
        next
    }

    /// What was said, without media, as stores keep it.
    pub fn messages(&self) -> Vec<StoredMessage> {
        let Self::Chat(messages) = self else { return Vec::new() };
        let stored = |message: &Message| StoredMessage {
            role: message.role.to_owned(),
            content: message.content.clone(),
        };
        messages.iter().map(stored).collect()
    }

    /// The model answered this.
    pub fn answered(mut self, text: &str) -> Self {
        match &mut self {
            Self::Chat(messages) => {
                let (role, content) = ("assistant", text.to_owned());
                messages.push(Message { role, content, media: Vec::new() });
            }
            Self::Raw(all, _) => all.push_str(text),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_failed_leaves_no_trace() {
        let before = Prompt::empty(false).with("a".to_owned(), Vec::new()).answered("b");
        let failed = before.with("c".to_owned(), Vec::new());
        let (Prompt::Chat(before), Prompt::Chat(failed)) = (before, failed) else {
            panic!("a chat");
        };
        assert_eq!((before.len(), failed.len()), (2, 3));
    }

    #[test]
    fn pictures_stay_with_what_was_said_when_they_were_shown() {
        let image = |number: u8| MediaFile::new(vec![number]);
        let raw = Prompt::empty(true).with("a".to_owned(), vec![image(1)]).answered("b");
        let Prompt::Raw(text, media) = raw.with("c".to_owned(), vec![image(2)]) else {
            panic!("raw");
        };
        assert_eq!((text.as_str(), media.len()), ("[img-0]ab[img-1]c", 2));
        let Prompt::Chat(messages) = Prompt::empty(false).with("what?".to_owned(), vec![image(1)]) else {
            panic!("a chat");
        };
        assert_eq!((messages[0].content.as_str(), messages[0].media.len()), ("what?", 1));
    }
}
