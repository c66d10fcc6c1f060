//! Files of other programs: changed with a backup beside them, and given back bit for bit.
//!
//! What is about to be written is recorded first: a crash at any point leaves either the old file, or the new
//! one with a record of the old. The backup of a file that is changed several times is the one from before
//! the first time.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::setup::FileEdit;

/// What is added to the name of a backup.
const BACKUP: &str = "hypura-backup";
/// What is added to the name of a file that changed after we had written it.
const CHANGED: &str = "hypura-changed";
/// No settings are larger.
const MOST_BYTES: u64 = 16 << 20;

/// A file that is to have another text.
#[derive(Clone, Debug)]
pub(super) struct FileChange {
    pub path: PathBuf,
    pub after: String,
    /// Whether the file is ours as a whole.
    pub is_ours: bool,
}

/// What edits change. Nothing is written; files that are already so are left out.
///
/// # Errors
/// When one of them cannot be read, is no text, or is broken.
pub(super) fn changes(edits: &[FileEdit]) -> anyhow::Result<Vec<FileChange>> {
    let mut changes = Vec::new();
    for edit in edits {
        let name = edit.path.display();
        let before = read(&edit.path)?;
        let after = edit.applied(before.as_deref()).with_context(|| {
            format!(
                "{name} is left as it is: mend it first, or configure by hand (--print shows what is needed)"
            )
        })?;
        if before.as_deref() != Some(&after) {
            changes.push(FileChange { path: edit.path.clone(), after, is_ours: edit.is_ours() });
        }
    }
    Ok(changes)
}

/// The text of a file, if it is there.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let name = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        Ok(about) if !about.is_file() => anyhow::bail!("{name} is no file"),
        Ok(about) if about.len() > MOST_BYTES => anyhow::bail!("{name} is larger than any settings"),
        Ok(_) => {}
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    String::from_utf8(bytes).map(Some).with_context(|| format!("{name} is no text (UTF-8)"))
}

/// One file that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    /// The file from before; none, if there was none.
    backup: Option<PathBuf>,
    /// What was written.
    written: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    files: Vec<Entry>,
}

/// What was written for one agent.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
}

impl Record {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes the files. Gives what to tell of each.
    ///
    /// # Errors
    /// When a backup, the record or a file cannot be written.
    pub fn apply(&self, changes: &[FileChange]) -> anyhow::Result<Vec<String>> {
        let mut entries = self.load()?;
        let mut told = Vec::new();
        for change in changes {
            let path = real(&change.path);
            let place = match entries.files.iter().position(|entry| entry.path == path) {
                Some(place) => place,
                None => {
                    let backup = back_up(&path)?;
                    entries.files.push(Entry { path: path.clone(), backup, written: String::new() });
                    entries.files.len() - 1
                }
            };
            let entry = &mut entries.files[place];
            entry.written.clone_from(&change.after);
            told.push(match &entry.backup {
                Some(backup) => format!("Changed {} (as it was: {})", path.display(), backup.display()),
                None => format!("Wrote {}", path.display()),
            });
            self.save(&entries)?;
            replace(&path, change.after.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(told)
    }

    /// Gives back all files. What was changed after us stays beside them. Gives what to tell of each.
    ///
    /// # Errors
    /// When a file cannot be given back; those before it are.
    pub fn undo(&self) -> anyhow::Result<Vec<String>> {
        let mut entries = self.load()?;
        let mut told = Vec::new();
        while let Some(entry) = entries.files.last() {
            told.extend(
                give_back(entry).with_context(|| format!("cannot give back {}", entry.path.display()))?,
            );
            entries.files.pop();
            self.save(&entries)?;
        }
        let _ = fs::remove_file(&self.path);
        Ok(told)
    }

    fn load(&self) -> anyhow::Result<Entries> {
        let name = self.path.display();
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {name}")),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{name} is damaged: remove it"))
            }
        }
    }

    fn save(&self, entries: &Entries) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(entries)?;
        replace(&self.path, &bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Where a link leads to, so that the link stays one.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Copies a file beside itself, with its permissions; `None` if there is none.
fn back_up(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let backup = free_name(path, BACKUP);
    fs::copy(path, &backup).with_context(|| format!("cannot make the backup {}", backup.display()))?;
    Ok(Some(backup))
}

/// A name beside the file that nobody has.
fn free_name(path: &Path, what: &str) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.file_name().map(OsString::from).unwrap_or_default();
        name.push(if number == 1 { format!(".{what}") } else { format!(".{what}-{number}") });
        path.with_file_name(name)
    };
    (1..).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(1))
}

fn give_back(entry: &Entry) -> io::Result<Vec<String>> {
    let Entry { path, backup, written } = entry;
    let mut told = Vec::new();
    let now = match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if now.is_some_and(|now| now != written.as_bytes()) {
        let kept = free_name(path, CHANGED);
        fs::copy(path, &kept)?;
        told.push(format!("{} was changed since then: that is in {}", path.display(), kept.display()));
    }
    match backup {
        Some(backup) => {
            fs::rename(backup, path)?;
            told.push(format!("{} is as it was", path.display()));
        }
        None => {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            told.push(format!("{} is gone again", path.display()));
        }
    }
    Ok(told)
}

/// Puts a file in place as a whole: it has the old content or the new one. Folders and new files are for
/// their owner alone, because settings hold keys; a file that is there keeps its permissions.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".hypura-{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = write_new(&new, path, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_new(new: &Path, old: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    if let Ok(about) = fs::metadata(old) {
        file.set_permissions(about.permissions())?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::json::Change;
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const BEFORE: &str = "{\n  // mine\n  \"theme\": \"dark\"\n}";

    fn edit(path: &Path, value: &str) -> FileEdit {
        FileEdit::json(path.to_owned(), vec![Change::set(&["model"], value)])
    }

    fn apply(record: &Record, path: &Path, value: &str) -> Vec<String> {
        record.apply(&changes(&[edit(path, value)]).unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_changed_file_comes_back_bit_for_bit_after_several_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, record) =
            (folder.path().join("a.json"), Record::at(folder.path().join("state/agent.json")));
        fs::write(&path, BEFORE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(apply(&record, &path, "one")[0].contains("a.json.hypura-backup"));
        assert_eq!(apply(&record, &path, "one"), Vec::<String>::new(), "it is so already");
        apply(&record, &path, "two");
        let now = fs::read_to_string(&path).unwrap();
        assert!(now.contains("// mine") && now.contains("\"two\""), "{now}");
        assert_eq!((mode(&path), mode(&record.path)), (0o640, 0o600));
        assert_eq!(record.undo().unwrap().len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), BEFORE);
        assert_eq!(mode(&path), 0o640);
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the file and the state folder: {left:?}");
        assert!(record.undo().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, record) = (folder.path().join("x/a.json"), Record::at(folder.path().join("agent.json")));
        apply(&record, &path, "one");
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
            ("{\n  \"model\": \"one\"\n}\n", 0o600)
        );
        record.undo().unwrap();
        assert!(!path.exists());
        // The person was faster.
        apply(&record, &path, "one");
        fs::remove_file(&path).unwrap();
        record.undo().unwrap();
        assert!(!path.exists() && !record.path.exists());
    }

    #[test]
    fn what_changed_after_us_is_kept_beside_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, record) = (folder.path().join("a.json"), Record::at(folder.path().join("agent.json")));
        fs::write(&path, BEFORE).unwrap();
        apply(&record, &path, "one");
        fs::write(&path, "{\"model\": \"one\", \"later\": 1}").unwrap();
        let told = record.undo().unwrap();
        assert!(told[0].contains("hypura-changed"), "{told:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), BEFORE);
        let kept = fs::read_to_string(folder.path().join("a.json.hypura-changed")).unwrap();
        assert!(kept.contains("later"));
    }

    #[test]
    fn links_stay_links_and_older_backups_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        fs::write(&real, BEFORE).unwrap();
        fs::write(folder.path().join("real.json.hypura-backup"), "precious").unwrap();
        symlink(&real, &link).unwrap();
        let record = Record::at(folder.path().join("agent.json"));
        apply(&record, &link, "one");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("one"));
        record.undo().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), BEFORE);
        assert_eq!(fs::read_to_string(folder.path().join("real.json.hypura-backup")).unwrap(), "precious");
    }

    #[test]
    fn a_broken_file_is_named_and_left_alone_and_so_are_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good.json"), folder.path().join("bad.json"));
        fs::write(&bad, "{\"a\": ").unwrap();
        let error = changes(&[edit(&good, "one"), edit(&bad, "one")]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("bad.json") && text.contains("not valid JSON"), "{text}");
        assert!(!good.exists());
        assert_eq!(fs::read_to_string(&bad).unwrap(), "{\"a\": ");
        fs::write(&bad, b"\xff").unwrap();
        assert!(changes(&[edit(&bad, "one")]).unwrap_err().to_string().contains("no text"));
        assert!(changes(&[edit(folder.path(), "one")]).unwrap_err().to_string().contains("no file"));
    }
}
