//! Pictures and sounds: a projector turns them into rows of embeddings that a model reads in place of tokens.
//!
//! Everything is llama.cpp's own `mtmd` library behind a C border of ours (`shim.cpp`), which lets no C++
//! exception through and turns ggml's abort into an error wherever nothing computes. Its choice of a device
//! is made for it: the CPU's backend, which is the decorated one where it was installed, without an executor:
//! a plain pass-through.
//!
//! - [`measure()`]: what a projector file would take, without its weights being read
//! - [`Projector`]: a loaded one: [`Projector::tokenize`] from any thread, [`Projector::encode`] one at a
//!   time
//! - [`Medium`]: a decoded picture or sound; [`MediaChunk`]: its place in a prompt

mod ffi;
mod measure;
mod medium;

pub use measure::{PIECE_SECONDS, ProjectorUse, measure};
pub use medium::Medium;

use crate::log;
use crate::model::Model;
use crate::vocab::Token;
use std::ffi::{CStr, CString, c_char, c_float, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Once, PoisonError};

/// What is wrong with a projector, a picture or a sound. The texts name no files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The projector cannot be used.
    #[error("the projector cannot be used: {0}")]
    Projector(String),
    /// The load was cancelled.
    #[error("loading was stopped")]
    Stopped,
    /// A picture or a sound cannot be used.
    #[error("the image or audio cannot be used: {0}")]
    Medium(String),
    /// The projector failed.
    #[error("the image or audio could not be encoded: {0}")]
    Encode(String),
}

/// What a loaded projector can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectorFacts {
    /// Takes pictures.
    pub vision: bool,
    /// The samples a second that sounds must have, where it has an encoder for them.
    pub sample_rate: Option<u32>,
    /// The model gives each row four positions (M-RoPE), and a picture fewer positions than rows.
    pub mrope: bool,
}

/// Routes mtmd's log to ours (once).
fn init() {
    static LOG: Once = Once::new();
    crate::system::init();
    LOG.call_once(|| {
        // SAFETY: the callback lives for ever and ignores its user data.
        unsafe { ffi::hypura_media_log(Some(log::on_log)) };
    });
}

/// A buffer for a reason.
struct Reason([u8; Self::ROOM]);

impl Reason {
    const ROOM: usize = 1024;

    fn new() -> Self {
        log::clear();
        Self([0; Self::ROOM])
    }

    fn pointer(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    /// What the shim wrote, or else what mtmd logged, without `path`.
    fn text(self, path: Option<&Path>) -> String {
        let thrown = CStr::from_bytes_until_nul(&self.0).map(|text| text.to_string_lossy().trim().to_owned());
        let text = thrown.ok().filter(|text| !text.is_empty()).unwrap_or_else(log::take);
        let text = text.lines().next().unwrap_or_default().trim();
        match path {
            Some(path) => text.replace(&*path.to_string_lossy(), "the file"),
            None => text.to_owned(),
        }
    }
}

fn c_path(path: &Path) -> Result<CString, MediaError> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| MediaError::Projector("its path contains a NUL byte".to_owned()))
}

fn c_threads(threads: u32) -> i32 {
    i32::try_from(threads.max(1)).unwrap_or(i32::MAX)
}

struct Handle {
    context: NonNull<ffi::Context>,
    /// mtmd keeps a pointer to it.
    model: Model,
    /// Encoding uses buffers of the context.
    encoding: Mutex<()>,
}
// SAFETY: mtmd documents tokenizing as thread-safe on a shared context; encoding is behind the mutex.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by hypura_media_load, freed once, before the model.
        unsafe { ffi::hypura_media_free(self.context.as_ptr()) };
    }
}

/// A loaded projector of a model. Cheap to clone.
#[derive(Clone)]
pub struct Projector(Arc<Handle>);

/// What [`on_progress`] calls.
struct Watching<'a> {
    watch: &'a mut dyn FnMut(f32) -> bool,
    stopped: bool,
}

unsafe extern "C" fn on_progress(share: c_float, data: *mut c_void) -> bool {
    // SAFETY: the pointer is the `Watching` of the call in progress, which nobody else uses meanwhile.
    let watching = unsafe { &mut *data.cast::<Watching<'_>>() };
    // A panic of the watcher ends the load.
    let goes_on = crate::guard::catch(|| (watching.watch)(share)).unwrap_or(false);
    watching.stopped |= !goes_on;
    goes_on
}

impl Projector {
    /// Loads a projector for this model, whose rows of embeddings must be as wide. `watch` gets the share
    /// that is there, 0 to 1, and stops the load by answering false.
    ///
    /// # Errors
    /// [`MediaError::Projector`], [`MediaError::Stopped`].
    pub fn load(
        path: &Path,
        model: &Model,
        threads: u32,
        watch: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self, MediaError> {
        init();
        let c_path = c_path(path)?;
        let mut reason = Reason::new();
        let mut watching = Watching { watch, stopped: false };
        // SAFETY: the path is NUL-terminated, the model alive and kept alive; the watch is called during the
        // call alone, on this thread; the shim catches exceptions.
        let context = unsafe {
            ffi::hypura_media_load(
                c_path.as_ptr(),
                model.raw(),
                c_threads(threads),
                on_progress,
                (&raw mut watching).cast::<c_void>(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        match NonNull::new(context) {
            Some(context) => {
                Ok(Self(Arc::new(Handle { context, model: model.clone(), encoding: Mutex::new(()) })))
            }
            None if watching.stopped => Err(MediaError::Stopped),
            None => Err(MediaError::Projector(reason.text(Some(path)))),
        }
    }

    fn raw(&self) -> *mut ffi::Context {
        self.0.context.as_ptr()
    }

    /// What it can do.
    #[must_use]
    pub fn facts(&self) -> ProjectorFacts {
        // SAFETY: the context is alive.
        let facts = unsafe { ffi::hypura_media_facts_of(self.raw()) };
        let sample_rate = u32::try_from(facts.sample_rate).ok().filter(|rate| facts.audio && *rate > 0);
        ProjectorFacts { vision: facts.vision, sample_rate, mrope: facts.mrope }
    }

    /// Cuts a prompt into tokens and media, with the tokens that the model wants around a medium, and those
    /// that begin a text.
    ///
    /// # Errors
    /// [`MediaError::Medium`] for a medium that this projector cannot take.
    pub fn tokenize(&self, parts: &[PromptPart<'_>]) -> Result<Vec<PromptPiece>, MediaError> {
        let raw: Vec<ffi::Part> = parts.iter().map(PromptPart::raw).collect();
        let mut reason = Reason::new();
        // SAFETY: the context is alive; texts and media of the parts outlive the call; the shim catches
        // exceptions.
        let chunks = unsafe {
            ffi::hypura_media_tokenize(self.raw(), raw.as_ptr(), raw.len(), reason.pointer(), Reason::ROOM)
        };
        let chunks = NonNull::new(chunks).ok_or_else(|| MediaError::Medium(reason.text(None)))?;
        let chunks = Chunks(chunks);
        (0..chunks.len()).map(|at| self.piece(&chunks, at)).collect()
    }

    fn piece(&self, chunks: &Chunks, at: usize) -> Result<PromptPiece, MediaError> {
        if let Some(tokens) = chunks.tokens(at) {
            return Ok(PromptPiece::Tokens(tokens));
        }
        // SAFETY: the chunk is alive; the copy is owned.
        let chunk = unsafe { ffi::hypura_media_chunk_take(chunks.0.as_ptr(), at) };
        let chunk = NonNull::new(chunk).ok_or_else(|| MediaError::Medium("out of memory".to_owned()))?;
        // SAFETY: context and chunk are alive.
        let non_causal = unsafe { ffi::hypura_media_chunk_non_causal(self.raw(), chunk.as_ptr()) };
        Ok(PromptPiece::Media(MediaChunk { raw: chunk, non_causal, mrope: self.facts().mrope }))
    }

    /// The rows of embeddings of a chunk. Blocks for as long as the projector computes.
    ///
    /// # Errors
    /// [`MediaError::Encode`].
    pub fn encode(&self, chunk: &MediaChunk) -> Result<Vec<f32>, MediaError> {
        let mut rows = vec![0.0f32; chunk.rows().saturating_mul(self.width())];
        let mut reason = Reason::new();
        let _one_at_a_time = self.0.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: context and chunk are alive; mtmd leaves as many numbers as the model's input width times
        // the rows, which is the length of the buffer; the shim catches exceptions.
        let ok = unsafe {
            ffi::hypura_media_encode(
                self.raw(),
                chunk.raw.as_ptr(),
                rows.as_mut_ptr(),
                rows.len(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        if ok { Ok(rows) } else { Err(MediaError::Encode(reason.text(None))) }
    }

    /// Numbers in a row: as many as the model takes for a token.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.model.input_width()
    }
}

/// A part of a prompt.
pub enum PromptPart<'a> {
    /// A text; `control` reads control tokens in it (never do that with what a user typed).
    Text {
        /// The text.
        text: &'a str,
        /// Whether control tokens are read.
        control: bool,
    },
    /// A picture or a sound.
    Medium(&'a Medium),
}

impl PromptPart<'_> {
    fn raw(&self) -> ffi::Part {
        match self {
            Self::Text { text, control } => ffi::Part {
                text: text.as_ptr().cast(),
                length: text.len(),
                control: *control,
                bitmap: std::ptr::null(),
            },
            Self::Medium(medium) => {
                ffi::Part { text: std::ptr::null(), length: 0, control: false, bitmap: medium.raw() }
            }
        }
    }
}

/// A piece of a tokenized prompt.
#[derive(Debug)]
pub enum PromptPiece {
    /// Tokens.
    Tokens(Vec<Token>),
    /// A picture or a sound, or a part of one.
    Media(MediaChunk),
}

struct Chunks(NonNull<ffi::Chunks>);

impl Chunks {
    fn len(&self) -> usize {
        // SAFETY: the chunks are alive.
        unsafe { ffi::hypura_media_chunk_count(self.0.as_ptr()) }
    }

    fn tokens(&self, at: usize) -> Option<Vec<Token>> {
        let mut count = 0;
        // SAFETY: the chunks are alive and have a chunk `at`.
        let tokens = unsafe { ffi::hypura_media_chunk_tokens(self.0.as_ptr(), at, &raw mut count) };
        // SAFETY: the shim says how many tokens there are; they live as long as the chunks.
        (!tokens.is_null()).then(|| unsafe { std::slice::from_raw_parts(tokens, count) }.to_vec())
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::hypura_media_chunks_free(self.0.as_ptr()) };
    }
}

/// A picture or a piece of a sound in a prompt, ready to be encoded: so many rows of the KV cache.
#[derive(Debug)]
pub struct MediaChunk {
    raw: NonNull<ffi::Chunk>,
    non_causal: bool,
    mrope: bool,
}
// SAFETY: mtmd only reads a chunk once it is made.
unsafe impl Send for MediaChunk {}
// SAFETY: as above.
unsafe impl Sync for MediaChunk {}

impl MediaChunk {
    /// The `id` of the medium that it is, or is a part of.
    #[must_use]
    pub fn id(&self) -> String {
        // SAFETY: the chunk is alive, and with it its name.
        let id = unsafe { ffi::hypura_media_chunk_id(self.raw.as_ptr()) };
        if id.is_null() {
            return String::new();
        }
        // SAFETY: as above; it is NUL-terminated.
        unsafe { CStr::from_ptr(id) }.to_string_lossy().into_owned()
    }

    /// Rows of the KV cache that it takes.
    #[must_use]
    pub fn rows(&self) -> usize {
        // SAFETY: the chunk is alive.
        unsafe { ffi::hypura_media_chunk_rows(self.raw.as_ptr()) }
    }

    /// Positions that what follows is further on: as many as rows, fewer for pictures of M-RoPE models.
    #[must_use]
    pub fn positions(&self) -> usize {
        // SAFETY: the chunk is alive.
        usize::try_from(unsafe { ffi::hypura_media_chunk_positions(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Whether its rows see each other, and must therefore be in one graph.
    #[must_use]
    pub fn non_causal(&self) -> bool {
        self.non_causal
    }

    /// The positions of its rows when it begins at `first`: one, or four (time, height, width, and one more)
    /// for M-RoPE.
    ///
    /// # Errors
    /// [`MediaError::Medium`] when mtmd cannot tell.
    pub fn places(&self, first: i32) -> Result<RowPlaces, MediaError> {
        let rows = self.rows();
        if !self.mrope {
            return Ok(RowPlaces::One((first..).take(rows).collect()));
        }
        let mut places = vec![[0; 4]; rows];
        let mut reason = Reason::new();
        // SAFETY: the chunk is alive; the buffer has room for four numbers a row; the shim catches
        // exceptions.
        let ok = unsafe {
            ffi::hypura_media_chunk_places(
                self.raw.as_ptr(),
                first,
                places.as_mut_ptr().cast::<i32>(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        if ok { Ok(RowPlaces::Four(places)) } else { Err(MediaError::Medium(reason.text(None))) }
    }
}

/// Positions of rows of embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowPlaces {
    /// One position each.
    One(Vec<i32>),
    /// Four positions each: time, height, width, and one more.
    Four(Vec<[i32; 4]>),
}

impl RowPlaces {
    /// The largest position that the KV cache knows a row by; rows that do not exist have −1.
    #[must_use]
    pub fn last(&self) -> i32 {
        match self {
            Self::One(places) => places.iter().copied().max().unwrap_or(-1),
            Self::Four(places) => places.iter().map(|place| place[0]).max().unwrap_or(-1),
        }
    }
}

impl Drop for MediaChunk {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::hypura_media_chunk_free(self.raw.as_ptr()) };
    }
}
