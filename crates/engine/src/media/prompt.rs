//! A prompt with pictures and sounds: tokens, of which the negative ones stand for rows that a projector
//! makes.

use hypura_ggml::{MediaChunk, MediaError, Medium, PromptPart as Uncut, PromptPiece, Token, Vocab};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::picture::{self, MOST_PICTURES, PictureError};
use super::sound::{self, SoundError};
use super::table::{Extent, Known};
use super::{MediaKind, MediaTools};
use crate::hex::hex;
use crate::prompt::begins_twice;
use crate::request::{MediaFile, PromptPart};

/// What stands in the name of a [`marker`].
pub const MARKER_NAME: &str = "media";

static MARKER: OnceLock<String> = OnceLock::new();

/// Takes over the [`marker`] of the process that makes the messages. Call it before anything asks for one.
pub fn adopt_marker(text: String) {
    // A process that has one already made its messages itself.
    let _ = MARKER.set(text);
}

/// The text that stands for a medium in messages and prompts until they are cut into tokens. Different in
/// every process, so that nobody writes one by accident or on purpose.
#[must_use]
pub fn marker() -> &'static str {
    MARKER.get_or_init(|| {
        // The standard library's source of random keys.
        let random = || RandomState::new().build_hasher().finish();
        format!("<__{MARKER_NAME}_{:016x}{:016x}__>", random(), random())
    })
}

/// A part of a message's content, in OpenAI's shape, where a medium is: chat templates put a [`marker`]
/// there.
#[must_use]
pub fn marker_part() -> Value {
    json!({"type": "media_marker", "text": marker()})
}

/// A text for which no template says where its media are, with [`marker`]s: at the tags that it has
/// (`[img-0]`, `[img-1]` …), in front where it has none. Returns the media in the order of the markers; those
/// without a tag are left out, as in Ollama.
#[must_use]
pub fn tagged(text: &str, media: &[MediaFile]) -> (String, Vec<MediaFile>) {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut placed) = (text, Vec::new());
    while let Some(at) = rest.find("[img-") {
        let (before, tag) = rest.split_at(at);
        let number = tag.strip_prefix("[img-").and_then(|tag| tag.split_once(']'));
        let medium =
            number.and_then(|(number, after)| Some((media.get(number.parse::<usize>().ok()?)?, after)));
        out.push_str(before);
        match medium {
            Some((medium, after)) => {
                out.push_str(marker());
                placed.push(Arc::clone(medium));
                rest = after;
            }
            None => {
                out.push_str(&tag[..1]);
                rest = &tag[1..];
            }
        }
    }
    out.push_str(rest);
    if placed.is_empty() {
        placed = media.to_vec();
        out.insert_str(0, &marker().repeat(placed.len()));
    }
    (out, placed)
}

/// Why a prompt with media cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaPromptError {
    /// There is no projector, or it takes no pictures.
    #[error("this model does not support images")]
    Blind,
    /// There is no projector, or it takes no sounds.
    #[error("this model does not support audio")]
    Deaf,
    /// More pictures than a prompt may have.
    #[error("the prompt has {pictures} images, and may have {MOST_PICTURES}")]
    TooMany {
        /// Pictures.
        pictures: usize,
    },
    /// A picture that cannot be used.
    #[error("image {number}: {error}")]
    Picture {
        /// Which of the media, counted from 1.
        number: usize,
        /// Why.
        error: PictureError,
    },
    /// A sound that cannot be used.
    #[error("audio {number}: {error}")]
    Sound {
        /// Which of the media, counted from 1.
        number: usize,
        /// Why.
        error: SoundError,
    },
    /// The template left media out, or shows them twice.
    #[error("the chat template shows {shown} of {media} images and sounds")]
    Template {
        /// Places of media in the prompt.
        shown: usize,
        /// Media.
        media: usize,
    },
    /// The projector refuses.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The model is gone, or it has seen more media than there are numbers.
    #[error("the model was unloaded")]
    Unloaded,
}

impl MediaPromptError {
    /// The sense that is missing for a medium.
    const fn without(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Picture => Self::Blind,
            MediaKind::Sound => Self::Deaf,
        }
    }
}

/// A picture or a sound, or a part of one that is encoded by itself.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub known: Arc<Known>,
    pub raw: MediaChunk,
}

/// Where one begins in a prompt.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub start: usize,
    pub chunk: Arc<Chunk>,
}

impl Placed {
    pub fn rows(&self) -> usize {
        self.chunk.known.extent.rows
    }
}

/// The media of a prompt. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PromptMedia(Vec<Placed>);

impl PromptMedia {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows that media take.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.iter().map(Placed::rows).sum()
    }

    /// The medium that row `at` is of.
    pub(crate) fn at(&self, at: usize) -> Option<&Placed> {
        self.0.iter().find(|placed| (placed.start..placed.start + placed.rows()).contains(&at))
    }

    /// Whether these are the media of a prompt, where it has them.
    pub(crate) fn fits(&self, prompt: &[Token]) -> bool {
        let mut at = 0;
        for placed in &self.0 {
            let Some(before) = prompt.get(at..placed.start) else { return false };
            let Some(rows) = prompt.get(placed.start..placed.start + placed.rows()) else { return false };
            let is_its = |token: &Token| *token == placed.chunk.known.token;
            if before.iter().any(|token| *token < 0) || rows.is_empty() || !rows.iter().all(is_its) {
                return false;
            }
            at = placed.start + placed.rows();
        }
        prompt.get(at..).is_some_and(|rest| rest.iter().all(|token| *token >= 0))
    }
}

/// A prompt ready for a sequence.
#[derive(Clone, Debug, Default)]
pub struct MediaPrompt {
    /// Its tokens; a negative one is a row of a medium.
    pub tokens: Vec<Token>,
    /// Its media.
    pub media: PromptMedia,
}

impl MediaPrompt {
    /// Its tokens without its media.
    pub(crate) fn words(&self) -> impl Iterator<Item = Token> {
        self.tokens.iter().copied().filter(|token| *token >= 0)
    }
}

impl From<Vec<Token>> for MediaPrompt {
    fn from(tokens: Vec<Token>) -> Self {
        Self { tokens, media: PromptMedia::default() }
    }
}

/// Decoded sounds exist in one prompt at a time: the plan counts them once.
static SOUND_TOKENIZATION: Mutex<()> = Mutex::new(());

/// Media that were decoded, for prompts that show all of them or some.
pub struct DecodedMedia {
    media: Vec<Medium>,
    /// As long as there are sounds among them, nobody else decodes any.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Decodes the bytes of picture and sound files: not for a thread that others wait for.
///
/// # Errors
/// [`MediaPromptError`].
pub(crate) fn decode(tools: Option<&MediaTools>, media: &[&[u8]]) -> Result<DecodedMedia, MediaPromptError> {
    if media.is_empty() {
        return Ok(DecodedMedia { media: Vec::new(), _turn: None });
    }
    let (tools, kinds) = with_senses(tools, media)?;
    let turn = turn_to_hear(&kinds);
    Ok(DecodedMedia { media: decoded(tools, &kinds, media)?, _turn: turn })
}

/// Cuts a rendered prompt into tokens and rows of media. `parts` are texts and whether they came from
/// outside, so that control tokens are not read in them; each [`marker`] in them is the next of `which` of
/// the media.
///
/// # Errors
/// [`MediaPromptError`].
pub(crate) fn see_decoded(
    tools: Option<&MediaTools>,
    vocab: &Vocab,
    parts: &[(String, bool)],
    media: &DecodedMedia,
    which: &[usize],
) -> Result<MediaPrompt, MediaPromptError> {
    let tools = tools.ok_or(MediaPromptError::without(MediaKind::Picture))?;
    let texts: Vec<(Vec<&str>, bool)> =
        parts.iter().map(|(text, input)| (text.split(marker()).collect(), *input)).collect();
    let shown: usize = texts.iter().map(|(texts, _)| texts.len() - 1).sum();
    if shown != which.len() {
        return Err(MediaPromptError::Template { shown, media: which.len() });
    }
    let mut left = which.iter().filter_map(|at| media.media.get(*at));
    let mut uncut = Vec::new();
    for (texts, input) in &texts {
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                uncut.extend(left.next().map(Uncut::Medium));
            }
            uncut.push(Uncut::Text { text, control: !input });
        }
    }
    cut_decoded(tools, vocab, uncut)
}

/// Decodes media and cuts a rendered prompt that shows all of them.
///
/// # Errors
/// [`MediaPromptError`].
pub(crate) fn tokenize_with_media(
    tools: Option<&MediaTools>,
    vocab: &Vocab,
    parts: &[(String, bool)],
    media: &[&[u8]],
) -> Result<MediaPrompt, MediaPromptError> {
    let decoded = decode(tools, media)?;
    see_decoded(tools, vocab, parts, &decoded, &(0..media.len()).collect::<Vec<_>>())
}

/// Cuts a prompt of parts, some of which are media, as [`tokenize_with_media`] does.
///
/// # Errors
/// [`MediaPromptError`].
pub(crate) fn cut(
    tools: Option<&MediaTools>,
    vocab: &Vocab,
    parts: &[PromptPart],
) -> Result<MediaPrompt, MediaPromptError> {
    let files = parts.iter().filter_map(|part| match part {
        PromptPart::Media(file) => Some(file.as_slice()),
        PromptPart::Text { .. } => None,
    });
    let media: Vec<&[u8]> = files.collect();
    let (tools, kinds) = with_senses(tools, &media)?;
    let _turn = turn_to_hear(&kinds);
    let decoded = decoded(tools, &kinds, &media)?;
    let mut left = decoded.iter();
    let uncut = parts.iter().filter_map(|part| match part {
        PromptPart::Text { text, control } => Some(Uncut::Text { text, control: *control }),
        PromptPart::Media(_) => left.next().map(Uncut::Medium),
    });
    cut_decoded(tools, vocab, uncut.collect())
}

/// What media are, and the tools for them, where the model takes them all.
fn with_senses<'a>(
    tools: Option<&'a MediaTools>,
    media: &[&[u8]],
) -> Result<(&'a MediaTools, Vec<MediaKind>), MediaPromptError> {
    let kinds: Vec<MediaKind> = media.iter().map(|bytes| MediaKind::of(bytes)).collect();
    let Some(tools) = tools else {
        return Err(MediaPromptError::without(kinds.first().copied().unwrap_or(MediaKind::Picture)));
    };
    if let Some(kind) = kinds.iter().find(|kind| !tools.modalities.has(**kind)) {
        return Err(MediaPromptError::without(*kind));
    }
    let pictures = kinds.iter().filter(|kind| **kind == MediaKind::Picture).count();
    if pictures > MOST_PICTURES { Err(MediaPromptError::TooMany { pictures }) } else { Ok((tools, kinds)) }
}

fn turn_to_hear(kinds: &[MediaKind]) -> Option<MutexGuard<'static, ()>> {
    let hears = kinds.contains(&MediaKind::Sound);
    hears.then(|| SOUND_TOKENIZATION.lock().unwrap_or_else(PoisonError::into_inner))
}

fn cut_decoded(
    tools: &MediaTools,
    vocab: &Vocab,
    mut parts: Vec<Uncut<'_>>,
) -> Result<MediaPrompt, MediaPromptError> {
    parts.retain(|part| !matches!(part, Uncut::Text { text, .. } if text.is_empty()));
    let pieces = tools.projector.tokenize(&parts)?;
    placed(tools, vocab, pieces)
}

fn decoded(
    tools: &MediaTools,
    kinds: &[MediaKind],
    media: &[&[u8]],
) -> Result<Vec<Medium>, MediaPromptError> {
    let mut left_seconds = sound::MOST_SECONDS;
    let pictures = kinds.iter().filter(|kind| **kind == MediaKind::Picture).count();
    let decode = |(at, (kind, bytes)): (usize, (&MediaKind, &&[u8]))| {
        let (number, id) = (at + 1, hex(&Sha256::digest(bytes)));
        match kind {
            MediaKind::Picture => {
                let decoded = picture::decode(bytes, pictures)
                    .map_err(|error| MediaPromptError::Picture { number, error })?;
                Ok(Medium::picture(decoded.width, decoded.height, &decoded.rgb, &id)?)
            }
            MediaKind::Sound => {
                let (rate, most) = (tools.sample_rate, tools.most_sound_seconds.min(left_seconds));
                let samples = sound::decode(bytes, rate, most)
                    .map_err(|error| MediaPromptError::Sound { number, error })?;
                let seconds = samples.len().div_ceil(rate.max(1) as usize);
                left_seconds = left_seconds.saturating_sub(u32::try_from(seconds).unwrap_or(u32::MAX));
                Ok(Medium::sound(&samples, &id)?)
            }
        }
    };
    kinds.iter().zip(media).enumerate().map(decode).collect()
}

fn placed(
    tools: &MediaTools,
    vocab: &Vocab,
    pieces: Vec<PromptPiece>,
) -> Result<MediaPrompt, MediaPromptError> {
    let mut prompt = MediaPrompt::default();
    for (part, piece) in pieces.into_iter().enumerate() {
        match piece {
            PromptPiece::Tokens(tokens) => prompt.tokens.extend(tokens),
            PromptPiece::Media(raw) => {
                let last = usize::try_from(raw.places(0)?.last()).unwrap_or(0);
                let extent = Extent { rows: raw.rows(), positions: raw.positions(), last };
                // Which piece of the prompt it is tells the parts of one medium apart.
                let mut key = Sha256::new();
                key.update(raw.id());
                for number in [part, extent.rows, extent.positions, last] {
                    key.update((number as u64).to_le_bytes());
                }
                let known =
                    tools.table.number(key.finalize().into(), extent).ok_or(MediaPromptError::Unloaded)?;
                let start = prompt.tokens.len();
                prompt.tokens.extend(std::iter::repeat_n(known.token, extent.rows));
                prompt.media.0.push(Placed { start, chunk: Arc::new(Chunk { known, raw }) });
            }
        }
    }
    if begins_twice(vocab, &prompt.tokens) {
        prompt.tokens.remove(0);
        prompt.media.0.iter_mut().for_each(|placed| placed.start -= 1);
    }
    Ok(prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_long_and_always_the_same() {
        assert_eq!(marker(), marker());
        assert!(marker().len() > 40 && marker().starts_with("<__"));
    }

    #[test]
    fn gen_raw_prompts_have_their_images_at_their_tags_or_in_front() {
        let images = [vec![1], vec![2]].map(Arc::new);
        let told = |text: &str| {
            let (text, placed) = tagged(text, &images);
            (text.replace(marker(), "#"), placed.iter().map(|image| image[0]).collect::<Vec<_>>())
        };
        assert_eq!(told("a [img-1] b [img-0][img-1]"), ("a # b ##".to_owned(), vec![2, 1, 2]));
        assert_eq!(told("plain"), ("##plain".to_owned(), vec![1, 2]));
        assert_eq!(told("[img-7] [img-x] [img-1"), ("##[img-7] [img-x] [img-1".to_owned(), vec![1, 2]));
        assert_eq!(tagged("no [img-0]", &[]).1.len(), 0);
    }

    #[test]
    fn without_pictures_every_token_must_be_one() {
        let none = PromptMedia::default();
        assert!(none.fits(&[1, 2, 3]) && none.fits(&[]));
        assert!(!none.fits(&[1, -2, 3]));
        assert_eq!((none.rows(), none.is_empty()), (0, true));
    }
}
