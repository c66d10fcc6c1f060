//! Which parts of a file are there: a small file beside it that only grows.
//!
//! Its first line tells what arrives. `d N` follows when part N is written, `s N` when the first N parts of
//! this list are on the disk. A process that is killed loses neither its writes nor these lines, so all of
//! them count while the machine runs; after a restart of the machine those of the last `s` count, because the
//! others may have been lost with the page cache.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::files::{self, not_a_link};

const VERSION: u32 = 1;
/// No journal is longer: a line for each of a million parts.
const MOST_BYTES: u64 = 64 << 20;

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    version: u32,
    /// Which content.
    pub identity: String,
    pub bytes: u64,
    pub part_bytes: u64,
    /// Of which model, for lists.
    pub model: String,
    /// The file, for lists.
    pub file: String,
    /// Which run of this machine; empty where that is not known.
    boot: String,
}

/// A journal that is written to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

/// What a journal says.
#[derive(Debug)]
pub(super) struct Saved {
    pub header: Header,
    /// Parts that are there.
    pub done: Vec<u64>,
}

impl Header {
    pub fn new(identity: String, bytes: u64, part_bytes: u64, model: &str, file: &str) -> Self {
        let (model, file) = (model.to_owned(), file.to_owned());
        Self { version: VERSION, identity, bytes, part_bytes, model, file, boot: this_boot() }
    }

    /// Whether this is the same content in the same parts.
    fn continues(&self, other: &Self) -> bool {
        self.version == other.version
            && !self.identity.is_empty()
            && self.identity != "tag:"
            && (&self.identity, self.bytes, self.part_bytes)
                == (&other.identity, other.bytes, other.part_bytes)
    }

    /// Bytes of part `index`.
    fn part_len(&self, index: u64) -> u64 {
        let begin = index.saturating_mul(self.part_bytes);
        self.bytes.saturating_sub(begin).min(self.part_bytes)
    }
}

impl Saved {
    /// Reads a journal; `None` when there is none, or none that can be understood.
    pub fn read(path: &Path) -> Option<Self> {
        let text = String::from_utf8(files::read_bounded(path, MOST_BYTES).ok()?).ok()?;
        let mut lines = text.split_inclusive('\n');
        let header: Header = serde_json::from_str(lines.next()?.strip_suffix('\n')?).ok()?;
        if header.part_bytes == 0 {
            return None;
        }
        let (mut done, mut flushed) = (Vec::new(), 0);
        // The last line may be torn.
        for line in lines.map_while(|line| line.strip_suffix('\n')) {
            match line.split_once(' ') {
                Some(("d", index)) => done.push(index.parse().ok()?),
                Some(("s", count)) => flushed = count.parse().ok()?,
                _ => return None,
            }
        }
        if header.boot.is_empty() || header.boot != this_boot() {
            done.truncate(flushed);
        }
        let parts = header.bytes.div_ceil(header.part_bytes);
        done.retain(|&index| index < parts);
        done.sort_unstable();
        done.dedup();
        Some(Self { header, done })
    }

    /// Bytes that are there.
    pub fn done_bytes(&self) -> u64 {
        self.done.iter().map(|&index| self.header.part_len(index)).sum()
    }
}

impl Journal {
    /// Opens the journal of a file for more lines; gives the parts that are there. What is there of another
    /// content is forgotten.
    pub fn open(path: &Path, data: &Path, header: &Header) -> io::Result<(Self, Vec<u64>)> {
        let whole = fs::metadata(data).is_ok_and(|about| about.len() == header.bytes);
        let saved = Saved::read(path).filter(|saved| whole && saved.header.continues(header));
        let done = saved.map(|saved| saved.done).unwrap_or_default();
        let mut text = serde_json::to_string(header)?;
        text.push('\n');
        for index in &done {
            text.push_str(&format!("d {index}\n"));
        }
        if !done.is_empty() {
            // Written by a process that died, perhaps, and not on the disk yet.
            File::open(data)?.sync_data()?;
            text.push_str(&format!("s {}\n", done.len()));
        }
        replace(path, text.as_bytes())?;
        Ok((Self { file: not_a_link().append(true).open(path)? }, done))
    }

    /// Part `index` is written.
    pub fn done(&mut self, index: u64) -> io::Result<()> {
        self.file.write_all(format!("d {index}\n").as_bytes())
    }

    /// The first `count` parts of the list are on the disk.
    pub fn flushed(&mut self, count: usize) -> io::Result<()> {
        self.file.write_all(format!("s {count}\n").as_bytes())
    }
}

/// Writes a file so that the old content or the new one is there after a crash. Whoever calls has the lock of
/// the file, so a fixed name does for the new content, and a crash leaves one of them at most.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = new_name(path);
    let mut file = not_a_link().write(true).create(true).truncate(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Where a new journal is written before it takes its place.
pub(super) fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// What tells this run of the machine from others; empty where nothing does.
fn this_boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(identity: &str) -> Header {
        Header::new(identity.to_owned(), 100, 30, "m", "f")
    }

    #[test]
    fn what_was_written_is_there_again_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path().join("j"), folder.path().join("d"));
        File::create(&data).unwrap().set_len(100).unwrap();
        let (mut journal, done) = Journal::open(&path, &data, &header("a")).unwrap();
        assert!(done.is_empty());
        journal.done(3).unwrap();
        journal.done(0).unwrap();
        journal.file.write_all(b"d 1").unwrap();
        let saved = Saved::read(&path).unwrap();
        assert_eq!((saved.done.as_slice(), saved.done_bytes()), ([0, 3].as_slice(), 40));
        assert_eq!(Journal::open(&path, &data, &header("a")).unwrap().1, [0, 3]);
        // Other content, and a file of another length.
        assert!(Journal::open(&path, &data, &header("b")).unwrap().1.is_empty());
        let (mut journal, _) = Journal::open(&path, &data, &header("a")).unwrap();
        journal.done(0).unwrap();
        File::create(&data).unwrap().set_len(99).unwrap();
        assert!(Journal::open(&path, &data, &header("a")).unwrap().1.is_empty());
    }

    #[test]
    fn after_a_restart_of_the_machine_only_what_was_flushed_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let other = Header { boot: "another".to_owned(), ..header("a") };
        let text = format!("{}\nd 0\nd 2\ns 1\nd 3\n", serde_json::to_string(&other).unwrap());
        fs::write(&path, text).unwrap();
        assert_eq!(Saved::read(&path).unwrap().done, [0]);
    }

    #[test]
    fn what_makes_no_sense_is_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let good = serde_json::to_string(&header("a")).unwrap();
        for text in ["", "{}\n", "x\nd 1\n", &format!("{good}\nd x\n"), &format!("{good}\nq 1\n"), &good] {
            fs::write(&path, text).unwrap();
            assert!(Saved::read(&path).is_none(), "{text}");
        }
        // An index that no part has.
        fs::write(&path, format!("{good}\nd 99\nd 1\n")).unwrap();
        assert_eq!(Saved::read(&path).unwrap().done, [1]);
    }
}
