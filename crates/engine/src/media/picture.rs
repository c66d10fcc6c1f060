//! From the bytes of a picture file to its pixels, in Rust, within bounds that are known before anything is
//! decoded.
//!
//! Not by mtmd's helper: what that cannot read it hands to an ffmpeg of the system, and it inflates a PNG
//! before it looks how large the picture is.

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::sync::{Mutex, PoisonError};

/// Bytes that decoding a picture may take: 64 megapixels of a JPEG. One picture is decoded at a time, and the
/// plan of a model with a projector counts them.
pub const WORK_BYTES: u64 = 192 << 20;

/// Larger pictures are made smaller before the projector sees them: it keeps several copies, and scales them
/// down further.
const MOST_PIXELS: u64 = 16 << 20;
/// Pixels that all pictures of a prompt keep together: a prompt is cut when all of them are decoded, and a
/// file of a few kilobytes may have as many pixels as one of megabytes.
const MOST_PIXELS_TOGETHER: u64 = 8 * MOST_PIXELS;
/// Most pictures of a prompt. Each keeps half a megapixel at least, which is what projectors look at.
pub const MOST_PICTURES: usize = 256;

/// Decoded pictures exist one at a time.
static DECODING: Mutex<()> = Mutex::new(());

/// Pixels, three bytes each: red, green, blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// All pixels, row by row.
    pub rgb: Vec<u8>,
}

/// Why a picture cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// None of the formats that are known.
    #[error("this is no image that can be read: jpeg, png, gif, bmp or webp is wanted")]
    Format,
    /// Damaged, cut off, or of a kind that is not supported.
    #[error("the image cannot be decoded: {0}")]
    Damaged(String),
    /// Larger than may be decoded.
    #[error(
        "the image has {width} x {height} pixels, which take more than the {} MiB that decoding may use: scale it down",
        WORK_BYTES >> 20
    )]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Without any pixel.
    #[error("the image is empty")]
    Empty,
}

/// Whether bytes begin like a picture that can be used: its format and size, without its pixels.
///
/// # Errors
/// [`PictureError`].
pub fn probe(bytes: &[u8]) -> Result<(), PictureError> {
    decoder(bytes).map(drop)
}

/// Decodes one of `count` pictures of a prompt; of an animation the first frame. Transparent pixels are shown
/// on white.
///
/// # Errors
/// [`PictureError`].
pub fn decode(bytes: &[u8], count: usize) -> Result<Picture, PictureError> {
    let most_pixels = MOST_PIXELS.min(MOST_PIXELS_TOGETHER / count.clamp(1, MOST_PICTURES) as u64);
    let decoder = decoder(bytes)?;
    let _one_at_a_time = DECODING.lock().unwrap_or_else(PoisonError::into_inner);
    let decoded = DynamicImage::from_decoder(decoder);
    let mut picture = rgb(decoded.map_err(|error| PictureError::Damaged(error.to_string()))?);
    while u64::from(picture.width) * u64::from(picture.height) > most_pixels {
        halve(&mut picture);
    }
    Ok(picture)
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder, PictureError> {
    let format = image::guess_format(bytes).map_err(|_| PictureError::Format)?;
    let known = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP];
    if !known.contains(&format) {
        return Err(PictureError::Format);
    }
    let damaged = |error: image::ImageError| PictureError::Damaged(error.to_string());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(WORK_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(PictureError::Empty);
    }
    // What is decoded, what its decoder needs, and, where that is not red, green and blue already, those
    // beside it.
    let decoded = decoder.total_bytes();
    let plain = decoder.color_type() == image::ColorType::Rgb8;
    let beside = working_bytes(format, bytes) + if plain { 0 } else { 3 };
    let needed = decoded.saturating_add(pixels.saturating_mul(beside));
    if needed > WORK_BYTES {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(decoder)
}

fn rgb(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return Picture { width, height, rgb: image.into_rgb8().into_raw() };
    }
    let on_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        u8::try_from((value * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
    };
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    match image {
        DynamicImage::ImageRgba8(image) => {
            for [red, green, blue, alpha] in image.into_raw().as_chunks().0 {
                rgb.extend([red, green, blue].map(|value| on_white(*value, *alpha)));
            }
        }
        DynamicImage::ImageLumaA8(image) => {
            for [grey, alpha] in image.into_raw().as_chunks().0 {
                rgb.extend([on_white(*grey, *alpha); 3]);
            }
        }
        // Of 16 bits a channel: one pixel after the other, so that no further copy is needed.
        image => {
            use image::GenericImageView as _;
            for (_, _, image::Rgba([red, green, blue, alpha])) in image.pixels() {
                rgb.extend([red, green, blue].map(|value| on_white(value, alpha)));
            }
        }
    }
    Picture { width, height, rgb }
}

/// Half as wide and as high: each pixel the mean of four. A last odd row or column is left out. In place:
/// what is written lies before what is still to be read, and a copy would be memory that the plan does not
/// know.
fn halve(picture: &mut Picture) {
    let (width, height) = ((picture.width / 2).max(1), (picture.height / 2).max(1));
    let row = picture.width as usize * 3;
    let right = if picture.width > 1 { 3 } else { 0 };
    let below = if picture.height > 1 { row } else { 0 };
    let mut to = 0;
    for y in 0..height as usize {
        for x in 0..width as usize {
            for channel in 0..3 {
                let at = y * 2 * row + x * 6 + channel;
                let value = |offset: usize| u32::from(picture.rgb.get(at + offset).copied().unwrap_or(0));
                let sum = value(0) + value(right) + value(below) + value(right + below);
                picture.rgb[to] = u8::try_from((sum + 2) / 4).unwrap_or(u8::MAX);
                to += 1;
            }
        }
    }
    picture.rgb.truncate(to);
    picture.rgb.shrink_to_fit();
    (picture.width, picture.height) = (width, height);
}

/// Bytes for each pixel that a decoder takes beside the pixels themselves.
fn working_bytes(format: ImageFormat, bytes: &[u8]) -> u64 {
    match format {
        // The coefficients of all components, in 16 bits each.
        ImageFormat::Jpeg if is_progressive(bytes) => 6,
        // Planes of another kind of pixels, or a frame to draw on.
        ImageFormat::WebP | ImageFormat::Gif => 4,
        _ => 0,
    }
}

/// Whether a JPEG comes in several scans, which are all kept until the last one.
fn is_progressive(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Segments: 0xff, what it is, and its length.
    while let Some([0xff, kind, high, low]) = bytes.get(at..at + 4) {
        match kind {
            0xc2 | 0xc6 | 0xca | 0xce => return true,
            0xc0 | 0xc1 | 0xda => return false,
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder};

    fn encoded(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
        let mut image = image::RgbImage::new(width, height);
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            *pixel = image::Rgb([(x * 7) as u8, (y * 11) as u8, 90]);
        }
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    #[test]
    fn every_format_is_decoded_and_lossless_ones_exactly() {
        let formats =
            [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Jpeg];
        for format in formats {
            let picture = decode(&encoded(format, 21, 13), 1).unwrap();
            assert_eq!((picture.width, picture.height, picture.rgb.len()), (21, 13, 21 * 13 * 3));
            if matches!(format, ImageFormat::Png | ImageFormat::Bmp | ImageFormat::WebP) {
                assert_eq!(picture.rgb[..6], [0, 0, 90, 7, 0, 90], "{format:?}");
            }
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        assert_eq!(decode(b"", 1), Err(PictureError::Format));
        assert_eq!(decode(b"hello, this is no picture", 1), Err(PictureError::Format));
        assert_eq!(decode(b"RIFF\0\0\0\0WAVEfmt ", 1), Err(PictureError::Format));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif] {
            let good = encoded(format, 40, 40);
            assert!(
                matches!(decode(&good[..good.len() / 3], 1), Err(PictureError::Damaged(_))),
                "{format:?}"
            );
            for at in 0..good.len().min(120) {
                let mut bad = good.clone();
                bad[at] ^= 0xff;
                // Whatever becomes of it, it ends.
                let _ = decode(&bad, 1);
            }
        }
    }

    #[test]
    fn a_picture_that_would_take_too_much_is_refused_before_it_is_decoded() {
        // A PNG header of 100000 × 100000 pixels, and one of few pixels that inflates to a gigabyte of
        // nothing.
        let mut huge = encoded(ImageFormat::Png, 8, 8);
        huge[16..20].copy_from_slice(&100_000u32.to_be_bytes());
        huge[20..24].copy_from_slice(&100_000u32.to_be_bytes());
        let crc = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        let refused = decode(&huge, 1).unwrap_err();
        assert!(
            matches!(refused, PictureError::TooLarge { width: 100_000, .. } | PictureError::Damaged(_)),
            "{refused}"
        );
        let bmp = {
            let mut bmp = encoded(ImageFormat::Bmp, 8, 8);
            bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
            bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
            bmp
        };
        assert!(decode(&bmp, 1).is_err());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn the_working_memory_of_a_decoder_counts() {
        let jpeg = encoded(ImageFormat::Jpeg, 16, 16);
        assert!(!is_progressive(&jpeg));
        let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut progressive = jpeg.clone();
        progressive[at + 1] = 0xc2;
        assert!(is_progressive(&progressive));
        assert_eq!(working_bytes(ImageFormat::Jpeg, &progressive), 6);
        // As large as a picture of one scan may be, three times too large for one of several.
        for (file, fits) in [(&jpeg, true), (&progressive, false)] {
            let mut file = file.clone();
            file[at + 5..at + 7].copy_from_slice(&8000u16.to_be_bytes());
            file[at + 7..at + 9].copy_from_slice(&8000u16.to_be_bytes());
            assert_eq!(probe(&file).is_ok(), fits);
        }
        for text in [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\xd8\xff\xe0\xff\xff"] {
            assert!(!is_progressive(text));
        }
    }

    #[test]
    fn transparent_pixels_are_white() {
        let mut out = Vec::new();
        image::codecs::png::PngEncoder::new(&mut out)
            .write_image(&[10, 20, 30, 0, 10, 20, 30, 255], 2, 1, ExtendedColorType::Rgba8)
            .unwrap();
        assert_eq!(decode(&out, 1).unwrap().rgb, [255, 255, 255, 10, 20, 30]);
    }

    #[test]
    fn large_pictures_are_halved_until_they_are_small_enough() {
        let halved = |width, height, rgb| {
            let mut picture = Picture { width, height, rgb };
            halve(&mut picture);
            picture
        };
        let picture = halved(4, 2, (0..24).collect());
        assert_eq!(picture, Picture { width: 2, height: 1, rgb: vec![8, 9, 10, 14, 15, 16] });
        assert_eq!(halved(5, 1, vec![8; 15]), Picture { width: 2, height: 1, rgb: vec![8; 6] });
        assert_eq!(halved(1, 4, (0..12).collect()).rgb, [2, 3, 4, 8, 9, 10]);
        let photo = decode(&encoded(ImageFormat::Jpeg, 5200, 3400), 1).unwrap();
        assert_eq!((photo.width, photo.height), (2600, 1700));
    }

    /// A body of some megabytes held pictures of a hundred gigabytes, all decoded at once.
    #[test]
    fn many_pictures_of_a_prompt_are_smaller_each() {
        let small = encoded(ImageFormat::Png, 2000, 1000);
        let decoded = |count: usize| decode(&small, count).unwrap();
        assert_eq!((decoded(1).width, decoded(60).width), (2000, 2000));
        assert_eq!((decoded(100).width, decoded(MOST_PICTURES).width), (1000, 1000));
        let largest = (MOST_PIXELS_TOGETHER / MOST_PICTURES as u64) as usize * 3;
        assert!(largest * MOST_PICTURES <= 384 << 20 && decoded(usize::MAX).rgb.len() <= largest);
    }
}
