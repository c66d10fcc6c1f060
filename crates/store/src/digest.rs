//! SHA-256 digests: `sha256:` and 64 hexadecimal digits, and nothing else, because digests become file names.

use sha2::{Digest as _, Sha256};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Read at once when a file is hashed.
const CHUNK_BYTES: usize = 1 << 20;

/// The text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest format")]
pub struct NotADigest;

/// The digest of a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:HEX` or `sha256-HEX`.
    ///
    /// # Errors
    /// [`NotADigest`].
    pub fn parse(text: &str) -> Result<Self, NotADigest> {
        let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
        hex.and_then(Self::from_hex).ok_or(NotADigest)
    }

    /// Takes 64 hexadecimal digits.
    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| Self(hex.to_ascii_lowercase()))
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of a file, telling how far it is. Reads all of it.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_file(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut done = 0;
        loop {
            let got = match file.read(&mut chunk) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(part) = chunk.get(..got).filter(|part| !part.is_empty()) else { break };
            hasher.update(part);
            done += got as u64;
            progress(done);
        }
        Ok(hasher.finish())
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// Its file in a folder of blobs.
    pub(super) fn file_name(&self) -> String {
        format!("sha256-{}", self.0)
    }
}

/// `sha256:HEX`
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Hashes bytes as they come.
#[derive(Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Digest(hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(Digest::of(b"").hex(), EMPTY);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let mut seen = 0;
        assert_eq!(Digest::of_file(file.path(), &mut |done| seen = done).unwrap(), Digest::of(b"abc"));
        assert_eq!(seen, 3);
    }

    #[test]
    fn only_digests_are_digests() {
        assert!(Digest::parse(&format!("sha256:{EMPTY}")).is_ok());
        assert_eq!(Digest::parse(&format!("sha256-{}", EMPTY.to_uppercase())).unwrap().hex(), EMPTY);
        for bad in [
            "",
            "sha256:",
            EMPTY,
            "sha256:../../etc/passwd",
            "sha512:00",
            &format!("sha256:{EMPTY}/"),
            &format!("sha256:{EMPTY}0"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_digest_is_always_a_harmless_file_name(text in ".{0,80}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert!(digest.file_name().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            }
        }
    }
}
