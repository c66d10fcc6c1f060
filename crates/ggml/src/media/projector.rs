//! A loaded projector: from media to rows of embeddings.

use crate::model::Model;
use std::ffi::{c_float, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::border::{c_path, c_threads, init};
use super::chunk::{Chunks, MediaChunk};
use super::error::{MediaError, Reason};
use super::ffi;
use super::prompt::{PromptPart, PromptPiece};

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
