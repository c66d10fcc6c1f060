//! The profile on disk: one file for each disk of a machine and number of threads, valid for one machine,
//! disk, version and format.
//!
//! Only rates are remembered. What the system tells without measuring (free memory, limits, devices) is asked
//! again.
//!
//! A file that cannot be read, or that is valid for something else, is measured again and replaced; it is
//! never an error.

use hypura_core::profile::{Memory, PROFILE_FORMAT, Profile, ProfileKey, Storage, WorkerRates};
use hypura_storage::threads::CoreTimes;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::write;
use super::{audit, disk, facts};
use crate::hex::hex;

/// Share of the processor that others may use without spoiling a measurement.
pub const DISTURBED_SHARE: f64 = 0.1;
/// How long a spoilt measurement has to do, in seconds: a machine that is always busy is not measured at
/// every question.
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

/// What a profile is needed for.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// A directory or file on the disk that counts.
    pub target: &'a Path,
    /// Threads that will compute: rates are measured with as many.
    pub threads: u32,
    /// Whether the disk matters. If not, rates that were measured beside any disk of this machine do.
    pub disk: bool,
}

/// How good a stored profile must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None is: measure now.
    New,
    /// Measured while nothing else ran, or a few minutes ago.
    Sound,
    /// Any of this machine and version; one that others disturbed is replaced once they have stopped.
    Any,
}

impl Need<'_> {
    /// What a profile for this, made now, is valid for.
    #[must_use]
    pub fn key(&self) -> ProfileKey {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let memory = hypura_storage::memory::memory_available().map_or(0, |memory| memory.total_bytes);
        let model = facts::cpu_model().unwrap_or_else(|| "unknown processor".to_owned());
        ProfileKey {
            format: PROFILE_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: format!("{model}, {cores} cores, {memory} bytes, {}", std::env::consts::ARCH),
            threads: self.threads,
            disk: if self.disk { name_of_disk(self.target) } else { NO_DISK.to_owned() },
        }
    }
}

/// How names of files about workers begin.
const WORKER: &str = "worker-";
/// In the place of a disk's name in profiles without one.
const NO_DISK: &str = "no disk";

/// Kind and device alone would take any network mount for any other, and any image for the one that was
/// `loop0` before.
fn name_of_disk(target: &Path) -> String {
    let file_system = hypura_storage::disk::file_system_of(target).unwrap_or_default();
    let kind = file_system.kind.as_deref().unwrap_or("unknown file system");
    let device = file_system.device.as_ref().map_or("no device", |device| device.name.as_str());
    let source = file_system.source.as_deref().unwrap_or("unknown source");
    let id = file_system.id.map_or(String::new(), |id| format!(", id {id:x}"));
    format!("{kind} on {device}, {source}{id}")
}

/// The remembered profile if it is good enough, otherwise what `measure` returns, which is then remembered in
/// `folder`. `measure` gets the reason.
pub fn recall(
    folder: Option<&Path>,
    need: &Need<'_>,
    wanted: Wanted,
    measure: &mut dyn FnMut(&str) -> Profile,
) -> Remembered {
    let mut remembered = recall_on((folder, &is_quiet), need, wanted, measure);
    remembered.profile.audit = folder.map(audit::records).unwrap_or_default();
    remembered
}

/// Whether nothing else runs: a look of a third of a second.
fn is_quiet() -> bool {
    const LOOK: Duration = Duration::from_millis(300);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let before = CoreTimes::now();
    std::thread::sleep(LOOK);
    let had = before.and_then(|before| before.cores_to_be_had());
    had.is_some_and(|had| had >= cores * (1.0 - DISTURBED_SHARE))
}

/// A folder, and whether the machine is quiet now.
type Place<'a> = (Option<&'a Path>, &'a dyn Fn() -> bool);

fn recall_on(
    (folder, quiet): Place<'_>,
    need: &Need<'_>,
    wanted: Wanted,
    measure: &mut dyn FnMut(&str) -> Profile,
) -> Remembered {
    let key = need.key();
    let because = match folder {
        _ if wanted == Wanted::New => "it was asked for".to_owned(),
        None => "there is no home directory to keep profiles in".to_owned(),
        Some(folder) => match find(folder, need, &key, wanted) {
            Ok(profile) if wanted == Wanted::Any && was_disturbed(&profile, unix_now_s()) && quiet() => {
                DISTURBED.to_owned()
            }
            Ok(profile) => return Remembered { profile: with_facts(profile, need), origin: Origin::Cached },
            Err(because) => because,
        },
    };
    let profile = measure(&because);
    let kept = folder.map(|folder| write(&folder.join(file_name(&profile.key)), &profile));
    let not_kept = kept.and_then(Result::err).map(|error| error.to_string());
    Remembered { profile, origin: Origin::Measured { because, not_kept } }
}

/// The remembered profile, if there is one: measures nothing, and asks no device anything. Facts that change,
/// as free memory, are those of when it was measured.
#[must_use]
pub fn known(folder: &Path, need: &Need<'_>) -> Option<Profile> {
    let profile = find(folder, need, &need.key(), Wanted::Any).ok()?;
    Some(Profile { audit: audit::records(folder), ..profile })
}

/// Keeps what was measured of a worker and the link to it, in the place of what was measured before.
///
/// # Errors
/// When the file cannot be written.
pub fn keep_worker(folder: &Path, rates: &WorkerRates) -> io::Result<()> {
    let hash = hex(&Sha256::digest(rates.name.as_bytes())[..8]);
    write(&folder.join(format!("{WORKER}{hash}.json")), rates)
}

/// Workers as they were measured last, by name.
#[must_use]
pub fn known_workers(folder: &Path) -> Vec<WorkerRates> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_workers = files.filter(|file| file.file_name().to_string_lossy().starts_with(WORKER));
    let read = |file: fs::DirEntry| serde_json::from_slice(&fs::read(file.path()).ok()?).ok();
    let mut found: Vec<WorkerRates> = of_workers.filter_map(read).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn find(folder: &Path, need: &Need<'_>, key: &ProfileKey, wanted: Wanted) -> Result<Profile, String> {
    if need.disk {
        return read(&folder.join(file_name(key)), key, wanted);
    }
    // This disk's own profile first: it has the form of its curve.
    let own = ProfileKey { disk: name_of_disk(need.target), ..key.clone() };
    let found = read(&folder.join(file_name(&own)), &own, wanted).or_else(|why| {
        of_any_disk(folder, key, wanted).map(|profile| Profile { storage: None, ..profile }).ok_or(why)
    });
    found.map_err(|why| if why == NOT_YET { "this machine was not measured yet".to_owned() } else { why })
}

/// The newest profile of this machine, beside whatever disk it was measured.
fn of_any_disk(folder: &Path, key: &ProfileKey, wanted: Wanted) -> Option<Profile> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let good =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).filter_map(|path| {
            let profile: Profile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            let own = ProfileKey { disk: profile.key.disk.clone(), ..key.clone() };
            check(profile, &own, wanted).ok()
        });
    good.max_by_key(|profile| profile.measured_at_s)
}

/// The stored rates, with what the system says now in the place of what it said then.
fn with_facts(stored: Profile, need: &Need<'_>) -> Profile {
    let Memory { read_bytes_per_s, touch_bytes_per_s, touch_ready_bytes, .. } = stored.memory;
    let storage = stored.storage.map(|stored| Storage {
        reads: stored.reads,
        obstacle: stored.obstacle,
        ..disk::facts(need.target)
    });
    Profile {
        cpu: facts::cpu(need.threads),
        memory: Memory { read_bytes_per_s, touch_bytes_per_s, touch_ready_bytes, ..facts::memory() },
        devices: facts::devices(),
        storage,
        ..stored
    }
}

/// One file for each disk, so that measuring one does not forget another. The names of disks are long and
/// have slashes: a part of it is for people, the number behind it tells it from others.
fn file_name(key: &ProfileKey) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = key.disk.chars().take(32).map(plain).collect();
    let hash = Sha256::digest(key.disk.as_bytes());
    let hash = hex(&hash[..4]);
    format!("profile-{name}-{hash}-{}-threads.json", key.threads)
}

/// Why a profile does not do that others disturbed.
const DISTURBED: &str = "other programs used the processor when it was measured";

/// Why there is no profile, when there is no file.
const NOT_YET: &str = "this disk was not measured yet";

/// The stored profile, or why it does not do.
fn read(path: &Path, key: &ProfileKey, wanted: Wanted) -> Result<Profile, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NOT_YET.to_owned()),
        Err(error) => return Err(format!("the stored profile cannot be read: {error}")),
    };
    let profile =
        serde_json::from_str(&text).map_err(|error| format!("the stored profile is damaged: {error}"))?;
    check(profile, key, wanted)
}

/// The profile if it is valid for this, or why it is not.
fn check(profile: Profile, key: &ProfileKey, wanted: Wanted) -> Result<Profile, String> {
    let differs = [
        (profile.key.format != key.format, "has another format"),
        (profile.key.version != key.version, "is of another version"),
        (profile.key.machine != key.machine, "is of another machine"),
        (profile.key.threads != key.threads, "is of another number of threads"),
        (profile.key.disk != key.disk, "is of another disk"),
    ];
    match differs.iter().find(|(differs, _)| *differs) {
        Some((_, how)) => Err(format!("the stored profile {how}")),
        None if wanted != Wanted::Any && was_disturbed(&profile, unix_now_s()) => Err(DISTURBED.to_owned()),
        None => Ok(profile),
    }
}

/// Whether other programs may have made its rates too low, and so long ago that measuring again may do
/// better.
fn was_disturbed(profile: &Profile, now_s: u64) -> bool {
    let age_s = now_s.saturating_sub(profile.measured_at_s.unwrap_or(0));
    age_s > DISTURBED_FOR_S && profile.others_share.is_some_and(|share| share > DISTURBED_SHARE)
}

/// Seconds since 1970.
#[must_use]
pub fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests;
