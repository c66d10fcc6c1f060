//! What runs came to, on disk: one bounded file beside the profiles, which may be deleted at any time.

use hypura_core::audit::{MOST_RECORDS, Record};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::files::write;

/// In the cache folder.
const FILE: &str = "audit.json";

/// All records, the latest last; none where there is no file, or a damaged one.
pub(super) fn records(folder: &Path) -> Vec<Record> {
    let text = std::fs::read(folder.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Adds a record; the oldest ones leave.
///
/// # Errors
/// When the file cannot be written.
pub fn add_record(folder: &Path, record: Record) -> io::Result<()> {
    /// Models of a server may be unloaded at once. Of two processes at once one record may be lost.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = records(folder);
    all.push(record);
    all.drain(..all.len().saturating_sub(MOST_RECORDS));
    write(&folder.join(FILE), &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_core::audit::Tiers;
    use hypura_core::profile::ProfileKey;

    fn record(at_s: u64) -> Record {
        Record {
            at_s,
            key: ProfileKey::default(),
            model: "m".to_owned(),
            tokens: 20,
            predicted: Tiers::default(),
            measured: Tiers::default(),
            pace: None,
            disturbed: false,
        }
    }

    #[test]
    fn records_of_models_that_are_unloaded_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for at_s in 0..32 {
                let folder = folder.path();
                scope.spawn(move || add_record(folder, record(at_s)).unwrap());
            }
        });
        assert_eq!(records(folder.path()).len(), 32);
    }

    #[test]
    fn the_file_is_bounded_removable_and_replaced_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        assert!(records(folder.path()).is_empty());
        for at_s in 0..MOST_RECORDS as u64 + 10 {
            add_record(folder.path(), record(at_s)).unwrap();
        }
        let all = records(folder.path());
        assert_eq!((all.len(), all[0].at_s), (MOST_RECORDS, 10));
        std::fs::write(folder.path().join(FILE), "[{").unwrap();
        assert!(records(folder.path()).is_empty());
        add_record(folder.path(), record(1)).unwrap();
        assert_eq!(records(folder.path()).len(), 1);
    }
}
