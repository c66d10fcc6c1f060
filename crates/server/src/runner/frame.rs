//! Messages on a stream: a length of four bytes, little-endian, and so many bytes of postcard.
//!
//! Neither side believes the other: a length beyond the limit ends the connection, and memory is taken as
//! bytes arrive, not as the length claims.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of one message: more than the media of a body can be.
pub(super) const MOST_BYTES: usize = 256 << 20;
/// Buffers begin with at most so many bytes.
const FIRST_BYTES: usize = 64 << 10;

/// A message as the bytes that go over the wire.
///
/// # Errors
/// When it cannot be written as bytes, or is too long.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let bytes = postcard::to_extend(message, vec![0; 4]).map_err(|error| invalid(error.to_string()))?;
    let length = bytes.len() - 4;
    if length > MOST_BYTES {
        return Err(invalid(format!("a message of {length} bytes is longer than {MOST_BYTES}")));
    }
    let mut bytes = bytes;
    bytes[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    Ok(bytes)
}

/// The next message; `None` where the stream ended between two of them.
///
/// # Errors
/// What the stream says; `InvalidData` for a message that is none, or too long.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read(&mut length)? {
        0 => return Ok(None),
        read => stream.read_exact(&mut length[read..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        let why = format!("a message of {length} bytes is longer than {MOST_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::with_capacity(length.min(FIRST_BYTES));
    stream.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = postcard::from_bytes(&bytes);
    message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::message::{FromRunner, ToRunner};
    use proptest::prelude::*;

    #[test]
    fn a_length_is_not_believed() {
        let error = receive::<FromRunner>(&mut &u32::MAX.to_le_bytes()[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let claims = u32::try_from(MOST_BYTES).unwrap().to_le_bytes();
        let error = receive::<FromRunner>(&mut &claims[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_judged_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            length in any::<u32>(),
        ) {
            let framed = |length: u32| [&length.to_le_bytes()[..], &bytes].concat();
            for framed in [framed(length), framed(u32::try_from(bytes.len()).unwrap()), bytes.clone()] {
                let _ = receive::<FromRunner>(&mut framed.as_slice());
                let _ = receive::<ToRunner>(&mut framed.as_slice());
            }
        }
    }
}
