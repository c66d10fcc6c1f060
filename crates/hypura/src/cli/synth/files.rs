//! The files of a synthetic model while they are written.
//!
//! Invariant: a final name appears only when every file is complete and on the disk. Until then there are
//! `*.partial` files, which are removed when this is dropped.

use anyhow::{Context as _, bail};
use hypura_core::synth::SynthPlan;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What direct writes must be a multiple of, in bytes: offset, length and address.
pub(super) use hypura_core::plan::PAGE;

/// Files that are being written.
#[derive(Debug)]
pub(super) struct OutFiles {
    files: Vec<OutFile>,
    finished: bool,
}

#[derive(Debug)]
struct OutFile {
    name: PathBuf,
    partial: PathBuf,
    file: File,
    /// The same file past the page cache, where the system can: twice as fast, and no memory of others is
    /// pushed out.
    direct: Option<File>,
}

impl OutFiles {
    /// Creates the unfinished files of a plan. `out` is the name of a single file, or what shards are
    /// numbered after.
    ///
    /// # Errors
    /// When something exists under a final name (and `force` is false), or a file cannot be created.
    pub fn create(plan: &SynthPlan, out: &Path, force: bool) -> anyhow::Result<Self> {
        let mut files = Self { files: Vec::new(), finished: false };
        let names = names(plan, out)?;
        for name in &names {
            if name.is_dir() {
                bail!("cannot write {}: it is a directory, name a file", name.display());
            }
            if !force && name.symlink_metadata().is_ok() {
                bail!("{} exists already: choose another name, or replace it with --force", name.display());
            }
        }
        for name in names {
            let mut partial = name.clone().into_os_string();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&partial)
                .with_context(|| format!("cannot create {}", partial.display()))?;
            let direct = open_direct(&partial);
            files.files.push(OutFile { name, partial, file, direct });
        }
        Ok(files)
    }

    /// The file of a shard.
    pub fn file(&self, shard: usize) -> &File {
        &self.files[shard].file
    }

    /// Writes at a place of the file of a shard; past the page cache as far as place and memory allow it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_at(&self, shard: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        let OutFile { file, direct, .. } = &self.files[shard];
        let aligned = offset.is_multiple_of(PAGE as u64) && bytes.as_ptr().align_offset(PAGE) == 0;
        let body = if aligned { bytes.len() - bytes.len() % PAGE } else { 0 };
        let written = match direct {
            Some(direct) if body > 0 => match direct.write_all_at(&bytes[..body], offset) {
                // Some disks want more alignment than any page: then through the page cache.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => 0,
                result => result.map(|()| body)?,
            },
            _ => 0,
        };
        file.write_all_at(&bytes[written..], offset + written as u64)
    }

    /// What people call the whole.
    pub fn name(&self) -> String {
        self.files.first().map(|file| file.name.display().to_string()).unwrap_or_default()
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        let parent = self.files.first().and_then(|file| file.name.parent());
        parent.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Makes sure that all bytes are on the disk, and gives the files their names.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> anyhow::Result<Vec<PathBuf>> {
        for file in &self.files {
            // Some file systems tell only here that there was no room.
            file.file.sync_all().with_context(|| format!("cannot write {}", file.name.display()))?;
        }
        for file in &self.files {
            fs::rename(&file.partial, &file.name)
                .with_context(|| format!("cannot rename {} to its final name", file.partial.display()))?;
        }
        self.finished = true;
        Ok(self.files.iter().map(|file| file.name.clone()).collect())
    }
}

impl Drop for OutFiles {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for file in &self.files {
            // What cannot be removed now can be removed by its finder: the name says what it is.
            let _ = fs::remove_file(&file.partial);
        }
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path) -> Option<File> {
    None
}

fn names(plan: &SynthPlan, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shards = plan.shards().len();
    if shards == 1 {
        return Ok(vec![out.to_owned()]);
    }
    let name = out.file_name().and_then(|name| name.to_str());
    let stem =
        name.with_context(|| format!("{} is no file name that shards can be numbered after", out.display()))?;
    let stem = stem.strip_suffix(".gguf").unwrap_or(stem);
    Ok((0..shards).map(|shard| out.with_file_name(plan.file_name(stem, shard))).collect())
}
