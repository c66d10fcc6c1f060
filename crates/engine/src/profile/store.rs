//! The profile on disk: one file for each disk of a machine, valid for one machine, disk, version and format.
//!
//! A file that cannot be read, or that is valid for something else, is measured again and replaced; it is never an error.

use hypura_core::profile::{PROFILE_FORMAT, Profile, ProfileKey};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::facts;

/// Share of the processor that others may use without spoiling a measurement.
pub const DISTURBED_SHARE: f64 = 0.1;
/// How long a spoilt measurement has to do, in seconds: a machine that is always busy is not measured at every question.
const DISTURBED_FOR_S: u64 = 600;

/// Where a profile came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the cache.
    Cached,
    /// Measured now; says why the cache did not do.
    Measured {
        /// Why.
        because: String,
        /// Why it could not be kept for the next time, if so.
        not_kept: Option<String>,
    },
}

/// A profile and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The profile.
    pub profile: Profile,
    /// Where it came from.
    pub origin: Origin,
}

/// Where profiles are kept: `$XDG_CACHE_HOME/hypura`, otherwise the system's place in the home directory. `None` when
/// there is no home.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || {
        let place = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        absolute("HOME").map(|home| home.join(place))
    };
    absolute("XDG_CACHE_HOME").or_else(usual).map(|folder| folder.join("hypura"))
}

/// What a profile of the disk under `target`, made now, is valid for.
#[must_use]
pub fn key_of(target: &Path) -> ProfileKey {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = hypura_storage::memory::memory_available().map_or(0, |memory| memory.total_bytes);
    let model = facts::cpu_model().unwrap_or_else(|| "unknown processor".to_owned());
    let file_system = hypura_storage::disk::file_system_of(target).unwrap_or_default();
    let kind = file_system.kind.unwrap_or_else(|| "unknown file system".to_owned());
    let device = file_system.device.map_or_else(|| "no device".to_owned(), |device| device.name);
    ProfileKey {
        format: PROFILE_FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: format!("{model}, {cores} cores, {memory} bytes, {}", std::env::consts::ARCH),
        disk: format!("{kind} on {device}"),
    }
}

/// The remembered profile of the disk under `target` if it is still valid, otherwise what `measure` returns, which is then
/// remembered in `folder`.
pub fn recall(
    folder: Option<&Path>,
    target: &Path,
    refresh: bool,
    measure: &mut dyn FnMut() -> Profile,
) -> Remembered {
    let key = key_of(target);
    let path = folder.map(|folder| folder.join(file_name(&key.disk)));
    let because = match &path {
        _ if refresh => "it was asked for".to_owned(),
        None => "there is no home directory to keep profiles in".to_owned(),
        Some(path) => match read(path, &key) {
            Ok(profile) => return Remembered { profile, origin: Origin::Cached },
            Err(because) => because,
        },
    };
    let profile = measure();
    let not_kept = path.and_then(|path| write(&path, &profile).err()).map(|error| error.to_string());
    Remembered { profile, origin: Origin::Measured { because, not_kept } }
}

/// One file for each disk, so that measuring one does not forget another.
fn file_name(disk: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("profile-{}.json", disk.chars().map(plain).collect::<String>())
}

/// The stored profile, or why it does not do.
fn read(path: &Path, key: &ProfileKey) -> Result<Profile, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("this disk was not measured yet".to_owned());
        }
        Err(error) => return Err(format!("the stored profile cannot be read: {error}")),
    };
    let profile: Profile =
        serde_json::from_str(&text).map_err(|error| format!("the stored profile is damaged: {error}"))?;
    let differs = [
        (profile.key.format != key.format, "has another format"),
        (profile.key.version != key.version, "is of another version"),
        (profile.key.machine != key.machine, "is of another machine"),
        (profile.key.disk != key.disk, "is of another disk"),
    ];
    match differs.iter().find(|(differs, _)| *differs) {
        Some((_, how)) => Err(format!("the stored profile {how}")),
        None if was_disturbed(&profile, now_s()) => {
            Err("other programs used the processor when it was measured".to_owned())
        }
        None => Ok(profile),
    }
}

/// Whether other programs made its rates too low, and so long ago that measuring again may do better.
fn was_disturbed(profile: &Profile, now_s: u64) -> bool {
    let age_s = now_s.saturating_sub(profile.measured_at_s.unwrap_or(0));
    age_s > DISTURBED_FOR_S && profile.others_share.is_some_and(|share| share > DISTURBED_SHARE)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// Writes beside and renames, so that another process never reads half a file.
fn write(path: &Path, profile: &Profile) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&beside, serde_json::to_vec_pretty(profile)?)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(key: ProfileKey) -> Profile {
        Profile { key, measured_at_s: Some(1), ..Profile::default() }
    }

    /// Recalls with a stand-in for measuring; returns why it measured, if it did.
    fn because(folder: &Path, refresh: bool) -> Option<String> {
        let target = folder.to_owned();
        let remembered = recall(Some(folder), &target, refresh, &mut || measured(key_of(&target)));
        assert_eq!(remembered.profile, measured(key_of(&target)));
        match remembered.origin {
            Origin::Cached => None,
            Origin::Measured { because, not_kept } => {
                assert_eq!(not_kept, None);
                Some(because)
            }
        }
    }

    fn stored(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let file = files.next().unwrap();
        assert_eq!(files.next(), None, "nothing else is left behind");
        file
    }

    #[test]
    fn a_profile_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(because(folder.path(), false).unwrap(), "this disk was not measured yet");
        assert_eq!(because(folder.path(), false), None);
        assert_eq!(because(folder.path(), true).unwrap(), "it was asked for");
        assert_eq!(because(folder.path(), false), None);
    }

    #[test]
    fn other_machines_disks_versions_and_formats_are_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        type Change = fn(&mut ProfileKey);
        let changes: [(Change, &str); 4] = [
            (|key| key.machine.push('x'), "another machine"),
            (|key| key.version.push('x'), "another version"),
            (|key| key.disk.push('x'), "another disk"),
            (|key| key.format += 1, "another format"),
        ];
        for (change, expected) in changes {
            because(folder.path(), true);
            let path = stored(folder.path());
            let mut profile: Profile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut profile.key);
            fs::write(&path, serde_json::to_vec(&profile).unwrap()).unwrap();
            let why = because(folder.path(), false).unwrap();
            assert!(why.contains(expected), "{why}");
            assert_eq!(because(folder.path(), false), None);
        }
    }

    #[test]
    fn a_profile_of_a_busy_machine_does_for_some_minutes() {
        let profile =
            |share, at| Profile { others_share: share, measured_at_s: Some(at), ..Profile::default() };
        assert!(!was_disturbed(&profile(Some(0.8), 1000), 1000 + DISTURBED_FOR_S));
        assert!(was_disturbed(&profile(Some(0.8), 1000), 1001 + DISTURBED_FOR_S));
        assert!(!was_disturbed(&profile(Some(0.05), 1000), u64::MAX));
        assert!(!was_disturbed(&profile(None, 1000), u64::MAX));
    }

    #[test]
    fn damaged_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        because(folder.path(), true);
        let path = stored(folder.path());
        let whole = fs::read(&path).unwrap();
        for damage in [&b""[..], b"{", b"[1,2]", b"\xff\xfe", &whole[..whole.len() / 2]] {
            fs::write(&path, damage).unwrap();
            let why = because(folder.path(), false).unwrap();
            assert!(why.contains("damaged") || why.contains("cannot be read"), "{why}");
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let target = folder.path();
        let remembered = recall(Some(&file), target, false, &mut || measured(key_of(target)));
        assert!(matches!(remembered.origin, Origin::Measured { not_kept: Some(_), .. }));
        let remembered = recall(None, target, false, &mut || measured(key_of(target)));
        assert!(matches!(remembered.origin, Origin::Measured { not_kept: None, .. }));
    }
}
