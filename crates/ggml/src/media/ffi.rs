//! The functions of `shim.cpp`. Every one that can fail writes its reason into a buffer.

use crate::sys;
use std::ffi::{c_char, c_float, c_int, c_void};

/// mtmd's context: a loaded projector.
#[repr(C)]
pub(super) struct Context(c_void);
/// A picture or a sound as numbers.
#[repr(C)]
pub(super) struct Bitmap(c_void);
/// A prompt cut into texts and media.
#[repr(C)]
pub(super) struct Chunks(c_void);
/// One medium of a prompt.
#[repr(C)]
pub(super) struct Chunk(c_void);

/// `hypura_media_facts`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub vision: bool,
    pub audio: bool,
    pub mrope: bool,
    pub sample_rate: i32,
}

/// `hypura_media_use`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Use {
    pub vision_bytes: u64,
    pub audio_bytes: u64,
    pub other_bytes: u64,
    pub width: u64,
    pub probe_pixels: u64,
    pub most_pixels: u64,
    pub most_rows: i32,
    pub probe_steps: u64,
    pub most_steps: u64,
    pub sound_numbers: u64,
    pub sound_rows: i32,
    pub image_non_causal: bool,
    pub vision: bool,
    pub audio: bool,
    pub audio_any_length: bool,
}

/// `hypura_media_part`
#[repr(C)]
pub(super) struct Part {
    pub text: *const c_char,
    pub length: usize,
    pub control: bool,
    pub bitmap: *const Bitmap,
}

/// mtmd's progress callback: false ends the load.
pub(super) type Watch = unsafe extern "C" fn(c_float, *mut c_void) -> bool;

unsafe extern "C" {
    pub(super) fn hypura_media_log(callback: sys::ggml_log_callback);
    pub(super) fn hypura_media_load(
        path: *const c_char,
        model: *const sys::llama_model,
        threads: c_int,
        watch: Watch,
        data: *mut c_void,
        error: *mut c_char,
        room: usize,
    ) -> *mut Context;
    pub(super) fn hypura_media_free(context: *mut Context);
    pub(super) fn hypura_media_facts_of(context: *const Context) -> Facts;
    pub(super) fn hypura_media_measure(
        path: *const c_char,
        found: *mut Use,
        error: *mut c_char,
        room: usize,
    ) -> bool;
    pub(super) fn hypura_media_picture(
        width: u32,
        height: u32,
        rgb: *const u8,
        id: *const c_char,
        error: *mut c_char,
        room: usize,
    ) -> *mut Bitmap;
    pub(super) fn hypura_media_sound(
        samples: *const c_float,
        count: usize,
        id: *const c_char,
        error: *mut c_char,
        room: usize,
    ) -> *mut Bitmap;
    pub(super) fn hypura_media_bitmap_free(bitmap: *mut Bitmap);
    pub(super) fn hypura_media_tokenize(
        context: *const Context,
        parts: *const Part,
        count: usize,
        error: *mut c_char,
        room: usize,
    ) -> *mut Chunks;
    pub(super) fn hypura_media_chunk_count(chunks: *const Chunks) -> usize;
    pub(super) fn hypura_media_chunks_free(chunks: *mut Chunks);
    pub(super) fn hypura_media_chunk_tokens(
        chunks: *const Chunks,
        at: usize,
        count: *mut usize,
    ) -> *const sys::llama_token;
    pub(super) fn hypura_media_chunk_take(chunks: *const Chunks, at: usize) -> *mut Chunk;
    pub(super) fn hypura_media_chunk_free(chunk: *mut Chunk);
    pub(super) fn hypura_media_chunk_non_causal(context: *const Context, chunk: *const Chunk) -> bool;
    pub(super) fn hypura_media_chunk_id(chunk: *const Chunk) -> *const c_char;
    pub(super) fn hypura_media_chunk_rows(chunk: *const Chunk) -> usize;
    pub(super) fn hypura_media_chunk_positions(chunk: *const Chunk) -> i32;
    pub(super) fn hypura_media_chunk_places(
        chunk: *const Chunk,
        first: i32,
        out: *mut i32,
        error: *mut c_char,
        room: usize,
    ) -> bool;
    pub(super) fn hypura_media_encode(
        context: *mut Context,
        chunk: *const Chunk,
        out: *mut c_float,
        count: usize,
        error: *mut c_char,
        room: usize,
    ) -> bool;
}
