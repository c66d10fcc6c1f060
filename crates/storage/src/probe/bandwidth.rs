//! [`measure`]: reads a file directly, with several readers, sizes and depths, and counts bytes over time.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tempfile::NamedTempFile;

use super::budget::{self, Step};
use super::config::{Pattern, ProbeCell, ProbeConfig, ProbeReport, Throughput};
use crate::disk::{self, FileSystem};
use crate::random::SplitMix64;
use crate::reader::{ReaderKind, open_reader};
use crate::{Arena, HugePages, OpenError, PAGE, Priority, ReadRequest, Reader, ReaderConfig, SourceFile};

/// Why a probe could not even start. Cells that fail later carry their own reason.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something about the target could not be found out, or the scratch file not be written.
    #[error("cannot {what} {}: {source}", path.display())]
    Target {
        /// What was tried.
        what: &'static str,
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The scratch file would fill the disk.
    #[error(
        "{} has {free_bytes} bytes free, too few for a scratch file of {scratch_bytes} bytes; probe an existing large file instead",
        path.display()
    )]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes wanted.
        scratch_bytes: u64,
    },
    /// Writing a scratch file would take longer than measuring may.
    #[error(
        "{} takes writes so slowly that there is no time for a scratch file; probe an existing large file instead",
        path.display()
    )]
    TooSlow {
        /// The folder.
        path: PathBuf,
    },
}

/// Measures `target`: an existing file, or a folder, in which a scratch file of
/// [`ProbeConfig::scratch_bytes`] random bytes is written first and deleted afterwards.
pub fn measure(target: &Path, config: &ProbeConfig) -> Result<ProbeReport, ProbeError> {
    let started = Instant::now();
    let failed = |what| move |source| ProbeError::Target { what, path: target.to_owned(), source };
    let is_folder = target.metadata().map_err(failed("look at"))?.is_dir();
    let scratch = if is_folder { Some(write_scratch(target, config)?) } else { None };
    let file = SourceFile::open(scratch.as_ref().map_or(target, Scratch::path))?;
    // It is open: whatever ends this process now, nothing is left behind.
    drop(scratch);
    let file_system = disk::file_system_of(target).map_err(failed("find the file system of"))?;
    let obstacle = obstacle(&file, &file_system).map_err(failed("look at"))?;
    let mut places = Places { random: SplitMix64(config.seed), next: 0 };
    let mut cells = Vec::new();
    // Row by row, each from few reads at once to many; one reader first, so that what there is no time for is
    // the other.
    for (kind, pattern, bytes) in rows(config) {
        let request_bytes = bytes.clamp(1, 1 << 30).next_multiple_of(PAGE);
        let mut reached = None;
        for &depth in &config.depths {
            let mut cell = Cell { file: &file, pattern, request_bytes, depth, config, places: &mut places };
            let left = config.limit.map(|limit| limit.saturating_sub(started.elapsed()));
            let in_flight = (depth * request_bytes) as u64;
            let (reader, result) = match &obstacle {
                Some(reason) => (format!("{kind:?}"), Err(reason.clone())),
                None if !budget::has_time(left, config.cell_duration, in_flight, reached) => {
                    (format!("{kind:?}").to_lowercase(), Err(NO_TIME.to_owned()))
                }
                None => cell.measure(kind),
            };
            reached = result.as_ref().ok().map(Throughput::bytes_per_s).or(reached);
            cells.push(ProbeCell { reader, pattern, request_bytes, depth, result });
        }
    }
    Ok(ProbeReport { target: target.to_owned(), file_bytes: file.len(), file_system, cells })
}

/// Why the last cells of a slow disk are empty.
const NO_TIME: &str = "this disk is so slow that there was no time for it";

fn rows(config: &ProbeConfig) -> impl Iterator<Item = (&ReaderKind, Pattern, usize)> {
    config.readers.iter().flat_map(move |kind| {
        let patterns = config.patterns.iter();
        patterns
            .flat_map(move |&pattern| config.request_bytes.iter().map(move |&bytes| (kind, pattern, bytes)))
    })
}

/// Why reading this file would not measure the disk, if so.
fn obstacle(file: &SourceFile, file_system: &FileSystem) -> io::Result<Option<String>> {
    if let Some(reason) = file.buffered_because() {
        let kind = file_system.kind.as_deref().unwrap_or("unknown");
        return Ok(Some(format!("no direct reads here ({reason}; file system {kind})")));
    }
    let stored = file.stored_bytes()?;
    if stored < file.len() {
        // A hole, or inline or compressed data, is read without the disk.
        return Ok(Some(format!("only {stored} of its {} bytes are stored on the disk", file.len())));
    }
    Ok(None)
}

/// A file of random bytes, which nobody else sees where the system has files without names.
enum Scratch {
    Unnamed(File, PathBuf),
    Named(NamedTempFile),
}

impl Scratch {
    fn in_folder(folder: &Path) -> io::Result<Self> {
        if cfg!(target_os = "linux")
            && let Ok(file) = tempfile::tempfile_in(folder)
        {
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            return Ok(Self::Unnamed(file, path));
        }
        NamedTempFile::with_prefix_in(".hypura-probe-", folder).map(Self::Named)
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Unnamed(file, _) => file,
            Self::Named(file) => file.as_file_mut(),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Unnamed(_, path) => path,
            Self::Named(file) => file.path(),
        }
    }
}

fn write_scratch(folder: &Path, config: &ProbeConfig) -> Result<Scratch, ProbeError> {
    let failed =
        |source| ProbeError::Target { what: "write a scratch file to", path: folder.to_owned(), source };
    let free_bytes = disk::free_bytes(folder).map_err(failed)?;
    let scratch_bytes = config.scratch_bytes.max(PAGE as u64).next_multiple_of(PAGE as u64);
    // Half as much again stays free for everyone else.
    if free_bytes / 3 * 2 < scratch_bytes {
        return Err(ProbeError::NoRoom { path: folder.to_owned(), free_bytes, scratch_bytes });
    }
    let mut scratch = Scratch::in_folder(folder).map_err(failed)?;
    let mut random = SplitMix64(config.seed);
    let mut block = vec![0; 1 << 20];
    let (started, allowed) = (Instant::now(), config.limit.map(|limit| limit / 2));
    let mut written = 0;
    loop {
        let mut left = match budget::next_step(written, scratch_bytes, started.elapsed(), allowed) {
            Step::Write(bytes) => bytes,
            Step::Enough => return Ok(scratch),
            Step::TooSlow => return Err(ProbeError::TooSlow { path: folder.to_owned() }),
        };
        written += left;
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                word.copy_from_slice(&random.next().to_le_bytes());
            }
            let len = left.min(block.len() as u64);
            scratch.file().write_all(&block[..len as usize]).map_err(failed)?;
            left -= len;
        }
        // Without this, the page cache would take it all at once and the disk's speed be unknown until the
        // end.
        scratch.file().sync_all().map_err(failed)?;
    }
}

/// Where to read next.
struct Places {
    random: SplitMix64,
    next: u64,
}

impl Places {
    fn offset(&mut self, pattern: Pattern, file_bytes: u64, request_bytes: u64) -> u64 {
        let places = file_bytes / request_bytes;
        match pattern {
            Pattern::Random => self.random.below(places) * request_bytes,
            Pattern::Sequential => {
                let offset = self.next.next_multiple_of(PAGE as u64);
                let offset = if offset + request_bytes > file_bytes { 0 } else { offset };
                self.next = offset + request_bytes;
                offset
            }
        }
    }
}

struct Cell<'a> {
    file: &'a Arc<SourceFile>,
    pattern: Pattern,
    request_bytes: usize,
    depth: usize,
    config: &'a ProbeConfig,
    places: &'a mut Places,
}

impl Cell<'_> {
    /// The name of the reader that was used and what it reached.
    fn measure(&mut self, kind: &ReaderKind) -> (String, Result<Throughput, String>) {
        let depth = self.depth.clamp(1, 256);
        let config = ReaderConfig {
            depth,
            threads: depth,
            chunk_bytes: self.request_bytes,
            ..ReaderConfig::default()
        };
        let opened = match open_reader(kind, &config) {
            Ok(opened) => opened,
            Err(error) => return (format!("{kind:?}"), Err(error.to_string())),
        };
        let mut reader = opened.reader;
        let name = reader.name().to_owned();
        if name == "sim" {
            return (name, Err("a simulated disk is not measured".to_owned()));
        }
        let result = self.read(reader.as_mut(), depth);
        (name, result)
    }

    fn read(&mut self, reader: &mut dyn Reader, depth: usize) -> Result<Throughput, String> {
        let file_bytes = self.file.len();
        if file_bytes < self.request_bytes as u64 {
            return Err(format!("the file of {file_bytes} bytes is smaller than one request"));
        }
        let arena =
            Arena::new(depth * self.request_bytes, HugePages::Try).map_err(|error| error.to_string())?;
        // Pages are given by the system at the first touch; that is not the disk's time.
        arena.fill(0..arena.len(), 0);
        let started = Instant::now();
        reader.submit((0..depth).map(|slot| self.request(slot, &arena)).collect());
        let (mut requests, mut completions) = (0, Vec::new());
        while reader.in_flight() > 0 {
            reader.wait(&mut completions);
            let go_on = started.elapsed() < self.config.cell_duration;
            let mut next = Vec::new();
            for completion in completions.drain(..) {
                completion.result.map_err(|error| error.to_string())?;
                requests += 1;
                if go_on {
                    next.push(self.request(completion.tag as usize, &arena));
                }
            }
            reader.submit(next);
        }
        Ok(Throughput { bytes: reader.stats().bytes, requests, elapsed: started.elapsed() })
    }

    fn request(&mut self, slot: usize, arena: &Arc<Arena>) -> ReadRequest {
        let len = self.request_bytes;
        ReadRequest {
            tag: slot as u64,
            file: Arc::clone(self.file),
            offset: self.places.offset(self.pattern, self.file.len(), len as u64),
            len,
            required: len,
            dst: Arc::clone(arena),
            dst_offset: slot * len,
            priority: Priority::Demand,
        }
    }
}

#[cfg(test)]
mod tests;
