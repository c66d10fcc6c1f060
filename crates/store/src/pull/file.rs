//! One file: whose turn it is to fetch it, then its connections, and its digest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::connection::{self, Source};
use super::journal::{Header, Journal, Saved};
use super::landing::{Landing, LandingLock};
use super::parts::{Failure, Parts};
use super::{PullError, PullSettings, digest, flush};
use crate::Digest;
use crate::fetch::{Identity, RemoteFile};
use crate::files::not_a_link;
use crate::layout::Layout;
use crate::web::{Access, Client, HttpError};

/// Between two looks at a file that somebody else fetches.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks whether anybody still wants the file.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the files of a pull share.
pub(super) struct Job<'a> {
    pub client: &'a Client,
    pub access: &'a Access,
    pub settings: &'a PullSettings,
    /// The model, for lists of what is not whole.
    pub model: &'a str,
    /// For blobs whose digests are known only once they are here.
    pub own: Option<&'a Layout>,
    /// Nobody wants it any more, or another file failed.
    pub stopped: &'a AtomicBool,
}

/// A file, and where it goes.
pub(super) struct Item {
    pub file: RemoteFile,
    pub landing: Landing,
    /// Bytes that are there.
    pub have: AtomicU64,
}

/// A file that is here.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub blob: PathBuf,
    /// Known before, or computed.
    pub digest: Option<Digest>,
}

/// Why a file is not here.
#[derive(Debug)]
pub(super) enum End {
    Error(PullError),
    /// Its server has another one now, or none any more.
    Changed(String, Option<HttpError>),
}

impl From<PullError> for End {
    fn from(error: PullError) -> Self {
        Self::Error(error)
    }
}

impl Job<'_> {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Brings a file here, by as many connections. What is here already is not looked at again: it got its
    /// name when it was verified.
    pub fn bring(&self, item: &Item, connections: usize) -> Result<Arrived, End> {
        let Some(lock) = self.turn(item)? else { return Ok(whole(item)) };
        let first = self.fetch(item, &lock, connections)?;
        let expected = item.file.identity.digest();
        let got = match first {
            got if expected.is_none_or(|expected| *expected == got) => got,
            // Once more: a cache on the way may have mixed something up.
            _ => {
                item.landing.discard(&lock);
                self.fetch(item, &lock, connections)?
            }
        };
        if let Some(expected) = expected.filter(|expected| **expected != got) {
            item.landing.discard(&lock);
            let (expected, got) = (expected.to_string(), got.to_string());
            return Err(PullError::Mismatch { file: item.file.name.clone(), expected, got }.into());
        }
        let blob = match (&item.landing.blob, self.own) {
            (Some(blob), _) => blob.clone(),
            (None, Some(own)) => own.blob(&got),
            (None, None) => return Err(PullError::from(crate::StoreError::NoHome).into()),
        };
        item.landing.adopt(&blob, &lock)?;
        Ok(Arrived { blob, digest: Some(got) })
    }

    /// Waits until nobody else fetches the file; `None`: it is here.
    fn turn(&self, item: &Item) -> Result<Option<LandingLock>, End> {
        loop {
            if item.landing.is_whole(item.file.bytes) {
                return Ok(None);
            }
            if self.is_stopped() {
                return Err(PullError::Cancelled.into());
            }
            if let Some(lock) = item.landing.try_lock()? {
                // It may have come between the two looks.
                if item.landing.is_whole(item.file.bytes) {
                    item.landing.release(&lock);
                    return Ok(None);
                }
                return Ok(Some(lock));
            }
            if let Some(saved) = Saved::read(&item.landing.journal) {
                item.have.store(saved.done_bytes(), Ordering::Relaxed);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn fetch(&self, item: &Item, lock: &LandingLock, connections: usize) -> Result<Digest, End> {
        match self.attempt(item, lock, connections, connection::work) {
            Err(Ended::NoRanges) => {
                item.landing.discard(lock);
                match self.attempt(item, lock, 1, connection::work_in_one_piece) {
                    // It does send ranges after all, of another file.
                    Err(Ended::NoRanges) => Err(End::Changed(item.file.name.clone(), None)),
                    Err(Ended::End(end)) => Err(end),
                    Ok(digest) => Ok(digest),
                }
            }
            Err(Ended::End(end)) => Err(end),
            Ok(digest) => Ok(digest),
        }
    }

    fn attempt(
        &self,
        item: &Item,
        lock: &LandingLock,
        connections: usize,
        work: fn(&Source<'_>, &Parts<'_>),
    ) -> Result<Digest, Ended> {
        let RemoteFile { name, bytes, identity, .. } = &item.file;
        let header = Header::new(identity.text(), *bytes, self.settings.part_bytes, self.model, name);
        let (data, journal) = open(&item.landing, &header)?;
        let path: &Path = &item.landing.data;
        let parts = Parts::new(&data, path, *bytes, self.settings, &item.have, self.stopped, journal);
        let source =
            Source { client: self.client, access: self.access, file: &item.file, direct: Mutex::default() };
        let digest = self.run_threads(&parts, &source, connections, work);
        match parts.take_failure() {
            Some(Failure::Error(error)) => Err(Ended::End(error.into())),
            Some(Failure::NoRanges) => Err(Ended::NoRanges),
            Some(Failure::Changed(cause)) => {
                item.landing.discard(lock);
                Err(Ended::End(End::Changed(name.clone(), cause)))
            }
            None => digest.filter(|_| parts.all_done()).ok_or(Ended::End(PullError::Cancelled.into())),
        }
    }

    /// Fetches, hashes and flushes until the file is whole or stopped.
    fn run_threads(
        &self,
        parts: &Parts<'_>,
        source: &Source<'_>,
        connections: usize,
        work: fn(&Source<'_>, &Parts<'_>),
    ) -> Option<Digest> {
        let (hashed, waiting, ended) = (AtomicU64::new(0), thread::current(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    step_back();
                    work(source, parts);
                });
            }
            scope.spawn(|| flush::follow(parts, &hashed));
            let hashing = scope.spawn(|| {
                step_back();
                let digest = digest::follow(parts, &hashed);
                ended.store(true, Ordering::Release);
                waiting.unpark();
                digest
            });
            while !ended.load(Ordering::Acquire) && !hashing.is_finished() {
                if self.is_stopped() {
                    parts.stop();
                }
                thread::park_timeout(PATIENCE);
            }
            let digest = hashing.join().ok().flatten();
            if digest.is_none() {
                // Whoever still waits for parts need not: some threads end by the flag of the whole pull,
                // which wakes nobody.
                parts.stop();
            }
            digest
        })
    }
}

enum Ended {
    End(End),
    /// The server sends no parts.
    NoRanges,
}

impl From<PullError> for Ended {
    fn from(error: PullError) -> Self {
        Self::End(End::Error(error))
    }
}

fn whole(item: &Item) -> Arrived {
    item.have.store(item.file.bytes, Ordering::Relaxed);
    let blob = item.landing.blob.clone().unwrap_or_default();
    let digest = match &item.file.identity {
        Identity::Content(digest) => Some(digest.clone()),
        Identity::Tag(_) => None,
    };
    Arrived { blob, digest }
}

/// The file for the bytes, at its full length, and its journal.
fn open(landing: &Landing, header: &Header) -> Result<(File, (Journal, Vec<u64>)), PullError> {
    let path = &landing.data;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(PullError::io("make the folder", folder))?;
    let failed = || PullError::io("write", path);
    let data = not_a_link().read(true).write(true).create(true).truncate(false).open(path);
    let data = data.map_err(failed())?;
    let journal = Journal::open(&landing.journal, path, header);
    let (journal, done) = journal.map_err(PullError::io("write", &landing.journal))?;
    if done.is_empty() {
        // What another file left here takes room.
        data.set_len(0).map_err(failed())?;
    }
    data.set_len(header.bytes).map_err(failed())?;
    Ok((data, (journal, done)))
}

/// Lets threads that compute go first: a model that runs keeps its speed.
fn step_back() {
    /// Behind the other threads of the process.
    const STEPS: i32 = 10;
    const MOST: i32 = 19;
    // On Linux that is this thread alone; elsewhere it would be the whole process.
    if cfg!(target_os = "linux") {
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        // Without it the pull only takes more of the processor.
        let _ = rustix::process::setpriority_process(None, (now + STEPS).min(MOST));
    }
}
