//! Weights that a worker keeps on its disk, so that they cross the link once.
//!
//! ggml's RPC server writes and reads the files: each has the FNV-1a hash of its contents for a name, and is
//! as long as the piece of a weight that it holds. It looks at neither length nor hash when it reads one, so
//! a file that was not written to its end (a full disk, a process that was killed) must not stay: what is new
//! is read again once no session runs, and goes if its contents do not have its name. What was found good is
//! noted with its length and time, in `index`. The oldest files go where the folder is too large.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a file that are looked at at once.
const PART: usize = 1 << 20;
const INDEX: &str = "index";

/// A folder of weights.
#[derive(Clone, Debug)]
pub struct WeightCache {
    folder: PathBuf,
    most_bytes: u64,
}

/// A file of it.
struct Piece {
    name: String,
    bytes: u64,
    changed: u128,
}

impl WeightCache {
    /// A folder that holds at most so many bytes between sessions. It is made, and looked through.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(folder: &Path, most_bytes: u64) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let cache = Self { folder: folder.to_owned(), most_bytes };
        cache.tidy()?;
        Ok(cache)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads what is new, and deletes what is not whole and what is too much. For times without a session.
    ///
    /// # Errors
    /// When the folder cannot be read, or what was found cannot be noted.
    pub fn tidy(&self) -> io::Result<()> {
        let good = self.index();
        let mut pieces = Vec::new();
        for piece in self.pieces()? {
            let known = good.get(&piece.name) == Some(&(piece.bytes, piece.changed));
            if known || self.is_whole(&piece.name)? {
                pieces.push(piece);
            } else {
                tracing::warn!(piece = piece.name, "a weight on the disk is not whole, and is deleted");
                fs::remove_file(self.folder.join(&piece.name))?;
            }
        }
        pieces.sort_by_key(|piece| piece.changed);
        let mut bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let mut kept = pieces.into_iter();
        while bytes > self.most_bytes
            && let Some(piece) = kept.next()
        {
            fs::remove_file(self.folder.join(&piece.name))?;
            bytes -= piece.bytes;
        }
        let index: String =
            kept.map(|piece| format!("{} {} {}\n", piece.name, piece.bytes, piece.changed)).collect();
        let new = self.folder.join(".index.new");
        fs::write(&new, index)?;
        fs::rename(&new, self.folder.join(INDEX))
    }

    fn index(&self) -> HashMap<String, (u64, u128)> {
        let text = fs::read_to_string(self.folder.join(INDEX)).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            Some((name, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        };
        text.lines().filter_map(entry).collect()
    }

    fn pieces(&self) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let facts = entry.metadata()?;
            if facts.is_file() && name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let since = facts.modified()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
                pieces.push(Piece { name, bytes: facts.len(), changed: since.as_nanos() });
            }
        }
        Ok(pieces)
    }

    /// Whether a file has the contents that its name says.
    fn is_whole(&self, name: &str) -> io::Result<bool> {
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut file = File::open(self.folder.join(name))?;
        let mut part = vec![0; PART];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        loop {
            let length = file.read(&mut part)?;
            if length == 0 {
                return Ok(name == format!("{hash:016x}"));
            }
            for byte in part.iter().take(length) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
    }

    /// Bytes in it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.pieces()?.iter().map(|piece| piece.bytes).sum())
    }

    /// Marks a file as used now, so that it is not among the oldest.
    ///
    /// # Errors
    /// When its time cannot be set.
    pub fn touch(&self, name: &str) -> io::Result<()> {
        File::options().append(true).open(self.folder.join(name))?.set_modified(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a of "weights" and of "others".
    fn name_of(text: &str) -> String {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    #[test]
    fn a_file_that_is_not_whole_goes_and_the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (old, new) = (name_of("weights"), name_of("others!"));
        fs::write(path(&old), "weights").unwrap();
        let cache = WeightCache::open(folder.path(), 1000).unwrap();
        assert!(path(&old).exists());
        fs::write(path(&new), "other").unwrap();
        cache.tidy().unwrap();
        assert!(path(&old).exists() && !path(&new).exists(), "a cut file is deleted");
        fs::write(path(&new), "others!").unwrap();
        // What was found good and did not change is not read again; what changed is.
        cache.tidy().unwrap();
        assert_eq!(cache.bytes().unwrap(), 14);
        let small = WeightCache::open(folder.path(), 7).unwrap();
        assert!(!path(&old).exists() && path(&new).exists(), "the oldest went");
        fs::write(path(&new), "others?").unwrap();
        small.tidy().unwrap();
        assert_eq!(small.bytes().unwrap(), 0, "it changed since it was found good");
    }
}
