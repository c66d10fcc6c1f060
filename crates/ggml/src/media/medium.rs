//! Decoded pictures and sounds, as mtmd takes them.

use super::error::{MediaError, Reason};
use super::ffi;
use std::ffi::CString;
use std::ptr::NonNull;

/// A decoded picture or sound.
pub struct Medium(NonNull<ffi::Bitmap>);
// SAFETY: a block of numbers that nobody changes.
unsafe impl Send for Medium {}
// SAFETY: as above.
unsafe impl Sync for Medium {}

impl Medium {
    /// A picture of `width` × `height` pixels, three bytes each: red, green, blue. `id` tells it from others.
    ///
    /// # Errors
    /// [`MediaError::Medium`] when the bytes are not as many.
    pub fn picture(width: u32, height: u32, rgb: &[u8], id: &str) -> Result<Self, MediaError> {
        if width == 0 || height == 0 || rgb.len() as u128 != u128::from(width) * u128::from(height) * 3 {
            return Err(MediaError::Medium("its size is not that of its pixels".to_owned()));
        }
        let id = c_id(id)?;
        let mut reason = Reason::new();
        // SAFETY: the bytes are as many as the picture has; mtmd copies them and the name; the shim catches
        // exceptions.
        let bitmap = unsafe {
            ffi::hypura_media_picture(
                width,
                height,
                rgb.as_ptr(),
                id.as_ptr(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        NonNull::new(bitmap).map(Self).ok_or_else(|| MediaError::Medium(reason.text(None)))
    }

    /// A sound of one channel, of as many samples a second as the projector wants
    /// (`ProjectorFacts::sample_rate`). `id` tells it from others.
    ///
    /// # Errors
    /// [`MediaError::Medium`] where there are no samples, or where one is no number.
    pub fn sound(samples: &[f32], id: &str) -> Result<Self, MediaError> {
        // mtmd asserts that there is more than one.
        if samples.len() < 2 || samples.len() > i32::MAX as usize {
            return Err(MediaError::Medium("it has too few or too many samples".to_owned()));
        }
        if !samples.iter().all(|sample| sample.is_finite()) {
            return Err(MediaError::Medium("one of its samples is no number".to_owned()));
        }
        let id = c_id(id)?;
        let mut reason = Reason::new();
        // SAFETY: mtmd copies the samples, which are as many as it is told, and the name; the shim catches
        // exceptions.
        let bitmap = unsafe {
            ffi::hypura_media_sound(
                samples.as_ptr(),
                samples.len(),
                id.as_ptr(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        NonNull::new(bitmap).map(Self).ok_or_else(|| MediaError::Medium(reason.text(None)))
    }

    pub(super) fn raw(&self) -> *const ffi::Bitmap {
        self.0.as_ptr()
    }
}

fn c_id(id: &str) -> Result<CString, MediaError> {
    CString::new(id).map_err(|_| MediaError::Medium("a NUL byte in its name".to_owned()))
}

impl Drop for Medium {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::hypura_media_bitmap_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_as_many_bytes_as_pixels() {
        assert!(Medium::picture(2, 2, &[0; 12], "a").is_ok());
        for (width, height, bytes) in [(2, 2, 11), (0, 2, 0), (u32::MAX, u32::MAX, 3)] {
            assert!(Medium::picture(width, height, &vec![0; bytes], "a").is_err());
        }
    }

    #[test]
    fn a_sound_has_samples_and_all_are_numbers() {
        assert!(Medium::sound(&[0.0, 0.5], "a").is_ok());
        for bad in [&[][..], &[0.0], &[0.0, f32::NAN], &[f32::INFINITY, 0.0]] {
            assert!(Medium::sound(bad, "a").is_err());
        }
    }
}
