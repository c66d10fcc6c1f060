//! KV caches of idle conversations on disk, off unless asked for.
//!
//! One file holds one sequence: its tokens and llama.cpp's state of them. Its name is a hash chained over
//! blocks of the tokens, beginning with a fingerprint of model and settings, so that equal conversations are
//! one file and a state can never reach another model. Files appear by rename and end with a checksum: a
//! torn, damaged or foreign one is passed over. The least recently used ones leave when the quota is reached.

use hypura_ggml::Token;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::hex::hex;

const MAGIC: &[u8; 8] = b"HYPURAKV";
const VERSION: u32 = 1;
/// Tokens of a block of the hash chain, and the least worth a file.
pub(crate) const BLOCK: usize = 64;
const HASH: usize = 32;
/// Magic, version, fingerprint, number of tokens, bytes of state.
const HEADER: usize = 8 + 4 + HASH + 4 + 8;
/// More tokens than any context has.
const MOST_TOKENS: usize = 1 << 26;

/// What must be equal for a state to be of use.
pub(crate) type Fingerprint = [u8; HASH];

/// A state on disk.
struct Entry {
    path: PathBuf,
    tokens: Vec<Token>,
}

/// The states of one model in a folder that several may share.
pub(crate) struct KvDisk {
    dir: PathBuf,
    quota: u64,
    fingerprint: Fingerprint,
    entries: Vec<Entry>,
}

impl KvDisk {
    /// Makes the folder where it is missing, and finds what of it belongs to the fingerprint.
    ///
    /// # Errors
    /// When the folder can be neither made nor read.
    pub fn open(dir: &Path, quota: u64, fingerprint: Fingerprint) -> io::Result<Self> {
        // What is in it are conversations: for their owner alone.
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        remove_abandoned(dir)?;
        let mut entries = Vec::new();
        for (path, _, _) in files(dir)? {
            if let Ok(Some(tokens)) = read_tokens(&path, &fingerprint) {
                entries.push(Entry { path, tokens });
            }
        }
        Ok(Self { dir: dir.to_owned(), quota, fingerprint, entries })
    }

    /// The tokens and the state that have most in common with a prompt, when that is at least `least` tokens.
    /// Without `rewinds` the prompt must continue all of them. Files that turn out to be damaged are removed.
    pub fn find(
        &mut self,
        prompt: &[Token],
        least: usize,
        most: usize,
        rewinds: bool,
    ) -> Option<(Vec<Token>, Vec<u8>)> {
        loop {
            let common = |tokens: &[Token]| tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            let (at, length) = self
                .entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.tokens.len() <= most)
                .map(|(at, entry)| (at, common(&entry.tokens)))
                .filter(|(at, length)| rewinds || *length == self.entries[*at].tokens.len())
                .max_by_key(|(_, length)| *length)?;
            if length < least.max(1) {
                return None;
            }
            let entry = &self.entries[at];
            match read_state(&entry.path, &self.fingerprint) {
                Ok(state) => {
                    // Only the order of leaving suffers when this fails.
                    let _ = File::options()
                        .append(true)
                        .open(&entry.path)
                        .and_then(|file| file.set_modified(SystemTime::now()));
                    return Some((entry.tokens.clone(), state));
                }
                Err(_) => {
                    let entry = self.entries.remove(at);
                    let _ = fs::remove_file(entry.path);
                }
            }
        }
    }

    /// Whether exactly these tokens, or more after them, are there.
    pub fn has(&self, tokens: &[Token]) -> bool {
        self.entries.iter().any(|entry| entry.tokens.starts_with(tokens))
    }

    /// Keeps a state. What it continues is dropped once it is there, and before that what was unused for
    /// longest, until the quota holds.
    ///
    /// # Errors
    /// When it cannot be written; nothing new is kept then, and what it continues stays.
    pub fn keep(&mut self, tokens: &[Token], state: &[u8]) -> io::Result<()> {
        let bytes = (HEADER + tokens.len() * 4 + state.len() + HASH) as u64;
        if bytes > self.quota || tokens.len() > MOST_TOKENS {
            return Ok(());
        }
        let path = self.dir.join(format!("kv-{}.bin", hex(&chain(&self.fingerprint, tokens))));
        let is_older = |entry: &Entry| tokens.starts_with(&entry.tokens) && entry.path != path;
        let older: Vec<PathBuf> =
            self.entries.iter().filter(|entry| is_older(entry)).map(|entry| entry.path.clone()).collect();
        self.make_room(self.quota - bytes, &older)?;
        let draft = path.with_extension(format!("{DRAFT}{}", std::process::id()));
        let written =
            write(&draft, &self.fingerprint, tokens, state).and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written?;
        for path in &older {
            let _ = fs::remove_file(path);
        }
        self.entries.retain(|entry| entry.path != path && !older.contains(&entry.path));
        self.entries.push(Entry { path, tokens: tokens.to_vec() });
        Ok(())
    }

    /// Has files leave until all but `leaving`, which are about to, take at most `most` bytes.
    fn make_room(&mut self, most: u64, leaving: &[PathBuf]) -> io::Result<()> {
        remove_abandoned(&self.dir)?;
        let mut all = files(&self.dir)?;
        all.retain(|(path, _, _)| !leaving.contains(path));
        all.sort_by_key(|(_, _, used)| *used);
        let drafts: u64 = drafts(&self.dir)?.iter().map(|(_, bytes, _)| bytes).sum();
        let mut total = drafts + all.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        for (path, bytes, _) in all {
            if total <= most {
                break;
            }
            fs::remove_file(&path)?;
            total -= bytes;
            self.entries.retain(|entry| entry.path != path);
        }
        Ok(())
    }
}

/// A draft that nobody has written to for so long was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(600);
/// Extension of a file that is not whole yet, before the number of the process that writes it.
const DRAFT: &str = "draft-";

/// Removes the drafts of processes that died.
fn remove_abandoned(dir: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for (path, _, used) in drafts(dir)? {
        if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
            // Another process may have been quicker.
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// A file: path, bytes, last use.
type Found = (PathBuf, u64, SystemTime);

/// Our states in a folder.
fn files(dir: &Path) -> io::Result<Vec<Found>> {
    ours(dir, |extension| extension == "bin")
}

/// Our files in a folder that are not whole yet.
fn drafts(dir: &Path) -> io::Result<Vec<Found>> {
    ours(dir, |extension| extension.starts_with(DRAFT))
}

fn ours(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().and_then(|name| name.strip_prefix("kv-")?.split_once('.')).is_some_and(
            |(hex, extension)| {
                let is_hash = hex.len() == HASH * 2 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_hash && wanted(extension)
            },
        );
        if is_ours
            && let Ok(facts) = entry.metadata()
            && facts.is_file()
        {
            found.push((entry.path(), facts.len(), facts.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    Ok(found)
}

/// The hash of all tokens, block by block.
fn chain(fingerprint: &Fingerprint, tokens: &[Token]) -> Fingerprint {
    tokens.chunks(BLOCK).fold(*fingerprint, |hash, block| {
        let mut next = Sha256::new();
        next.update(hash);
        block.iter().for_each(|token| next.update(token.to_le_bytes()));
        next.finalize().into()
    })
}

fn header(fingerprint: &Fingerprint, tokens: usize, state: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(fingerprint);
    header.extend_from_slice(&u32::try_from(tokens).unwrap_or(u32::MAX).to_le_bytes());
    header.extend_from_slice(&(state as u64).to_le_bytes());
    header
}

fn write(path: &Path, fingerprint: &Fingerprint, tokens: &[Token], state: &[u8]) -> io::Result<()> {
    let mut start = header(fingerprint, tokens.len(), state.len());
    tokens.iter().for_each(|token| start.extend_from_slice(&token.to_le_bytes()));
    let mut sum = Sha256::new();
    sum.update(&start);
    sum.update(state);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&start)?;
    file.write_all(state)?;
    file.write_all(&sum.finalize())
}

/// The tokens of a file; `None` when it belongs to another model, version or program.
fn read_tokens(path: &Path, fingerprint: &Fingerprint) -> io::Result<Option<Vec<Token>>> {
    let mut file = File::open(path)?;
    let mut start = [0; HEADER];
    file.read_exact(&mut start)?;
    let Some((tokens, state)) = sizes(&start, fingerprint) else { return Ok(None) };
    if file.metadata()?.len() != (HEADER + tokens * 4 + HASH) as u64 + state as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; tokens * 4];
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes.as_chunks().0.iter().map(|bytes| Token::from_le_bytes(*bytes)).collect()))
}

/// The numbers of tokens and of bytes of state in a header of ours.
fn sizes(start: &[u8; HEADER], fingerprint: &Fingerprint) -> Option<(usize, usize)> {
    let tokens = u32::from_le_bytes(start[HEADER - 12..HEADER - 8].try_into().ok()?) as usize;
    let state = usize::try_from(u64::from_le_bytes(start[HEADER - 8..].try_into().ok()?)).ok()?;
    (tokens <= MOST_TOKENS && *start.as_slice() == *header(fingerprint, tokens, state))
        .then_some((tokens, state))
}

fn read_state(path: &Path, fingerprint: &Fingerprint) -> io::Result<Vec<u8>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged");
    let mut bytes = fs::read(path)?;
    let body = bytes.len().checked_sub(HASH).ok_or_else(damaged)?;
    let start: &[u8; HEADER] = bytes.first_chunk().ok_or_else(damaged)?;
    let (tokens, state) = sizes(start, fingerprint).ok_or_else(damaged)?;
    let from = HEADER + tokens * 4;
    if from.checked_add(state) != Some(body) || Sha256::digest(&bytes[..body]).as_slice() != &bytes[body..] {
        return Err(damaged());
    }
    bytes.truncate(body);
    bytes.drain(..from);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(from: Token, count: usize) -> Vec<Token> {
        (from..).take(count).collect()
    }

    #[test]
    fn the_longest_beginning_is_found_again_after_opening_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
        disk.keep(&tokens(0, 70), b"short").unwrap();
        disk.keep(&tokens(500, 90), b"other").unwrap();
        disk.keep(&tokens(0, 100), b"long").unwrap();
        assert!(disk.has(&tokens(0, 70)) && !disk.has(&tokens(0, 101)));
        let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
        assert_eq!(disk.entries.len(), 2, "the long one replaced the short one");
        let prompt: Vec<Token> = tokens(0, 80).into_iter().chain([7]).collect();
        assert_eq!(disk.find(&prompt, 10, 1000, true), Some((tokens(0, 100), b"long".to_vec())));
        assert_eq!(disk.find(&prompt, 10, 1000, false), None, "a recurrent state cannot be cut");
        assert_eq!(disk.find(&prompt, 81, 1000, true), None);
        assert_eq!(disk.find(&prompt, 10, 99, true), None, "larger than the context");
        let mut foreign = KvDisk::open(folder.path(), 1 << 20, [2; 32]).unwrap();
        assert_eq!(foreign.find(&prompt, 1, 1000, true), None);
    }

    #[test]
    fn damaged_and_foreign_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
        fs::write(folder.path().join(format!("kv-{}.bin", "a".repeat(64))), "short").unwrap();
        let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
        assert!(disk.entries.is_empty());
        disk.keep(&tokens(0, 64), &[7; 100]).unwrap();
        let path = disk.entries[0].path.clone();
        let good = fs::read(&path).unwrap();
        for at in [0, 9, 20, HEADER - 1, HEADER + 3, good.len() - 50, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
            assert_eq!(disk.find(&tokens(0, 80), 2, 1000, true), None, "byte {at}");
            fs::write(&path, &good[..good.len() - 1 - at]).unwrap();
            let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
            assert_eq!(disk.find(&tokens(0, 80), 2, 1000, true), None, "{at} bytes cut off");
        }
        assert!(folder.path().join("notes.txt").exists());
    }

    #[test]
    fn the_least_recently_used_leave_and_the_quota_holds() {
        let folder = tempfile::tempdir().unwrap();
        let one = (HEADER + 64 * 4 + 100 + HASH) as u64;
        let mut disk = KvDisk::open(folder.path(), 3 * one, [1; 32]).unwrap();
        for at in 0..3 {
            disk.keep(&tokens(at * 1000, 64), &[0; 100]).unwrap();
            let age = std::time::Duration::from_secs(100 - at.unsigned_abs() as u64);
            let file = File::options().append(true).open(&disk.entries.last().unwrap().path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert!(disk.find(&tokens(0, 65), 1, 1000, true).is_some());
        disk.keep(&tokens(9000, 64), &[0; 100]).unwrap();
        let there: Vec<bool> =
            [0, 1000, 2000, 9000].iter().map(|from| disk.has(&tokens(*from, 64))).collect();
        assert_eq!(there, [true, false, true, true]);
        let total: u64 = files(folder.path()).unwrap().iter().map(|(_, bytes, _)| bytes).sum();
        assert!(total <= 3 * one);
        disk.keep(&tokens(0, 64), &vec![0; 10_000]).unwrap();
        assert!(
            files(folder.path()).unwrap().len() >= 2,
            "one larger than the quota is not kept and drives nobody out"
        );
    }

    #[test]
    fn drafts_that_a_crash_left_are_counted_and_then_removed() {
        let folder = tempfile::tempdir().unwrap();
        let one = (HEADER + 64 * 4 + 100 + HASH) as u64;
        let draft = folder.path().join(format!("kv-{}.draft-7", "b".repeat(64)));
        fs::write(&draft, vec![0; usize::try_from(one).unwrap()]).unwrap();
        let mut disk = KvDisk::open(folder.path(), 2 * one, [1; 32]).unwrap();
        assert!(draft.exists(), "somebody may still be writing it");
        disk.keep(&tokens(0, 64), &[0; 100]).unwrap();
        disk.keep(&tokens(1000, 64), &[0; 100]).unwrap();
        assert_eq!(disk.entries.len(), 1, "the draft takes the place of one");
        let file = File::options().append(true).open(&draft).unwrap();
        file.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        disk.keep(&tokens(2000, 64), &[0; 100]).unwrap();
        assert!(!draft.exists());
        assert_eq!(disk.entries.len(), 2);
    }

    #[test]
    fn a_longer_state_that_cannot_be_written_leaves_the_shorter_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = KvDisk::open(folder.path(), 1 << 20, [1; 32]).unwrap();
        disk.keep(&tokens(0, 70), b"short").unwrap();
        // A folder in the place of the file: the rename fails.
        let path = folder.path().join(format!("kv-{}.bin", hex(&chain(&[1; 32], &tokens(0, 100)))));
        fs::create_dir(&path).unwrap();
        assert!(disk.keep(&tokens(0, 100), b"long").is_err());
        assert_eq!(disk.find(&tokens(0, 80), 10, 1000, true), Some((tokens(0, 70), b"short".to_vec())));
        fs::remove_dir(&path).unwrap();
        disk.keep(&tokens(0, 100), b"long").unwrap();
        assert_eq!(files(folder.path()).unwrap().len(), 1, "the long one replaced the short one");
    }
}
