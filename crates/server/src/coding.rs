//! Bodies that come compressed: gzip, deflate, zstd.

use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Failure;

/// Bytes that are decompressed at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The body without its compression. `count` is told of each piece: bytes so far, and bytes of the piece.
///
/// # Errors
/// 400 for what is not what its header says, 415 for another coding, and whatever `count` refuses.
pub(super) fn decompressed(
    headers: &HeaderMap,
    bytes: Bytes,
    count: impl Fn(usize, usize) -> Result<(), Failure>,
) -> Result<Bytes, Failure> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let coding = codings.next().map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    if codings.next().is_some() {
        return Err(unsupported("several"));
    }
    let from = bytes.as_ref();
    match coding.as_deref() {
        None | Some("" | "identity") => Ok(bytes),
        Some("zstd") => match ruzstd::decoding::StreamingDecoder::new(from) {
            Ok(decoder) => read("zstd", decoder, count),
            Err(_) => Err(broken("zstd")),
        },
        Some("gzip" | "x-gzip") => read("gzip", flate2::bufread::MultiGzDecoder::new(from), count),
        // With the header of zlib, as the standard says; some send it without.
        Some("deflate") if from.first().is_some_and(|first| first & 0x0f == 8) => {
            read("deflate", flate2::bufread::ZlibDecoder::new(from), count)
        }
        Some("deflate") => read("deflate", flate2::bufread::DeflateDecoder::new(from), count),
        Some(other) => Err(unsupported(other)),
    }
}

/// Refuses every coding, where a body is kept as it comes.
///
/// # Errors
/// 415.
pub(super) fn none(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_none = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or("?").trim();
        value.is_empty() || value.eq_ignore_ascii_case("identity")
    };
    if codings.all(is_none) {
        return Ok(());
    }
    let message = "a blob with a content encoding is not supported: send it as it is";
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

fn unsupported(coding: &str) -> Failure {
    let message = format!("content encoding {coding:?} is not supported: use gzip, deflate, zstd or none");
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

fn broken(coding: &str) -> Failure {
    Failure::bad_request(format!("the body is no {coding}, although its header says so"))
}

fn read(
    coding: &str,
    mut decoder: impl Read,
    count: impl Fn(usize, usize) -> Result<(), Failure>,
) -> Result<Bytes, Failure> {
    let mut plain = Vec::new();
    loop {
        let part = (&mut decoder).take(CHUNK_BYTES as u64).read_to_end(&mut plain);
        match part {
            Ok(0) => return Ok(Bytes::from(plain)),
            Ok(bytes) => count(plain.len(), bytes)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(broken(coding)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    fn coded(coding: &str, bytes: &[u8]) -> Result<Bytes, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
        decompressed(&headers, Bytes::copy_from_slice(bytes), |_, _| Ok(()))
    }

    fn whole(mut encoder: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn http_codings() {
        let level = Compression::fast();
        let text = br#"{"model":"m"}"#.as_slice();
        assert_eq!(coded("gzip", &whole(GzEncoder::new(text, level))).unwrap(), text);
        assert_eq!(coded("GZip", &whole(GzEncoder::new(text, level))).unwrap(), text);
        assert_eq!(coded("deflate", &whole(ZlibEncoder::new(text, level))).unwrap(), text);
        assert_eq!(coded("deflate", &whole(DeflateEncoder::new(text, level))).unwrap(), text);
        // `zstd` of "{}": magic, a frame of one segment and 2 bytes, one raw last block.
        let frame = b"\x28\xb5\x2f\xfd\x20\x02\x11\x00\x00{}";
        assert_eq!(coded("zstd", frame).unwrap(), "{}");
        for (coding, bytes) in
            [("zstd", &b"{}"[..]), ("zstd", &frame[..9]), ("gzip", b"{}"), ("deflate", b"\x78\x9c{}")]
        {
            assert_eq!(coded(coding, bytes).unwrap_err().status, 400, "{coding}");
        }
        assert_eq!(coded("br", b"{}").unwrap_err().status, 415);
        assert_eq!(coded("gzip, zstd", b"{}").unwrap_err().status, 415);
        assert_eq!(decompressed(&HeaderMap::new(), Bytes::from_static(b"{}"), |_, _| Ok(())).unwrap(), "{}");
    }

    #[test]
    fn http_a_bomb_is_counted_while_it_is_decompressed() {
        let bomb = whole(GzEncoder::new(io::repeat(b' ').take(200 << 20), Compression::best()));
        assert!(bomb.len() < 1 << 20);
        let most = std::cell::Cell::new(0);
        let count = |all: usize, _: usize| {
            most.set(all);
            if all < 10 << 20 { Ok(()) } else { Err(Failure::busy()) }
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(decompressed(&headers, Bytes::from(bomb), count).unwrap_err().status, 503);
        assert!(most.get() < 11 << 20, "no more of it was made");
    }

    proptest! {
        #[test]
        fn http_any_compressed_bytes_are_judged_without_a_panic(
            coding in prop::sample::select(vec!["zstd", "gzip", "deflate"]),
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            for magic in [&b"\x28\xb5\x2f\xfd"[..], b"\x1f\x8b\x08", b"\x78\x9c", b""] {
                let failure = coded(coding, &[magic, &bytes].concat()).err();
                prop_assert!(failure.is_none_or(|failure| failure.status == 400));
            }
        }
    }
}
