//! Small helpers over files: bounded reads, atomic writes, names for messages.

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of a file without its folders, for messages that strangers may read.
pub(super) fn shown_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Options to open a file of a store, whose links are not followed: what stands in a manifest or a template
/// is told to clients, and whoever may write to a store could have them told any file. (Weights may be links:
/// of those only what is a GGUF is read.)
pub(super) fn not_a_link() -> OpenOptions {
    let mut options = File::options();
    // A pipe would be waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    options.custom_flags(flags.bits().cast_signed());
    options
}

/// Reads a regular file of at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let refused = |why: &'static str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let file = not_a_link().read(true).open(path).map_err(|error| {
        let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if is_link { refused("it is a symbolic link, which is not followed") } else { error }
    })?;
    if !file.metadata()?.is_file() {
        return Err(refused("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Makes a folder, and those above it that are missing, for its owner alone. One that is there stays as it
/// is.
pub(super) fn make_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file so that others see the old content or the new one, never a part.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    make_private_folder(folder)?;
    let temporary = folder.join(format!(".{}.{}.tmp", shown_name(path), unique()));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A text that no other process and no other call makes at this time.
pub(super) fn unique() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

/// A new file for its owner alone.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_pipes_of_a_store_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, link) = (folder.path().join("secret"), folder.path().join("link"));
        write_atomically(&secret, b"key").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let error = read_bounded(&link, 9).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read_bounded(&pipe, 9).unwrap_err().to_string().contains("no file"), "and nobody waits");
        // Written is what has the name, not what it leads to.
        write_atomically(&link, b"new").unwrap();
        assert_eq!(
            (read_bounded(&link, 9).unwrap(), read_bounded(&secret, 9).unwrap()),
            (b"new".to_vec(), b"key".to_vec())
        );
    }

    #[test]
    fn writes_replace_and_leave_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(read_bounded(&file, 3).unwrap(), b"two");
        assert!(read_bounded(&file, 2).is_err());
        assert!(read_bounded(folder.path(), 2).is_err());
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        let mode = |path: &Path| {
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
        };
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700), "nobody else reads it");
    }
}
