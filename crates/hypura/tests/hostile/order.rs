//! Which files, and who works on them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mutate::hostile;
use crate::tally::{Outcome, Tally};

/// The files of a test run that nobody asked anything of.
const FILES: u64 = 320;
const SEED: u64 = 14;

/// Which files.
pub struct Order {
    seed: u64,
    first: u64,
    files: u64,
    keep: Option<PathBuf>,
}

/// A file, written.
pub struct File<'a> {
    pub index: u64,
    pub paths: &'a [PathBuf],
    pub folder: &'a Path,
}

impl Order {
    pub fn of_environment() -> Self {
        let number = |name: &str, default: u64| {
            let text = std::env::var(name).unwrap_or_default();
            if text.is_empty() { default } else { text.parse().unwrap() }
        };
        Self {
            seed: number("HYPURA_HOSTILE_SEED", SEED),
            first: number("HYPURA_HOSTILE_FIRST", 0),
            files: number("HYPURA_HOSTILE_FILES", FILES),
            keep: std::env::var_os("HYPURA_HOSTILE_KEEP").filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }

    /// Writes as many files as were asked for, of those that `wanted` takes, into the folder that was named.
    pub fn write(&self, wanted: impl Fn(&Path) -> bool) {
        let folder = self.keep.as_deref().unwrap();
        let (mut kept, mut index) = (0, self.first);
        while kept < self.files {
            let (draft, _) = hostile(self.seed, index);
            let paths = draft.write(folder, &format!("h{index}"));
            if paths.first().is_some_and(|path| wanted(path)) {
                kept += 1;
            } else {
                paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
            }
            index += 1;
        }
        println!("{kept} of {} files", index - self.first);
    }

    /// Has `work` done with each of them, by so many threads.
    pub fn each(&self, threads: usize, work: impl Fn(&File<'_>) -> Outcome + Sync) -> Tally {
        let (tally, next) = (Tally::default(), AtomicU64::new(self.first));
        let end = self.first + self.files;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= end {
                            return;
                        }
                        let temporary = tempfile::tempdir().unwrap();
                        let folder = self.keep.as_deref().unwrap_or_else(|| temporary.path());
                        let (draft, told) = hostile(self.seed, index);
                        let paths = draft.write(folder, &format!("h{index}"));
                        let outcome = work(&File { index, paths: &paths, folder });
                        tally.note(self.seed, index, &told, outcome);
                    }
                });
            }
        });
        tally
    }
}
