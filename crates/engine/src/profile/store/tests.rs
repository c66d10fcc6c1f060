//! What is remembered, for how long, and what is asked anew.

use super::*;
use hypura_core::profile::{Device, MatmulRate};
use std::path::PathBuf;

fn need(target: &Path) -> Need<'_> {
    Need { target, threads: 2, disk: true }
}

fn measured(key: ProfileKey) -> Profile {
    let rate = MatmulRate {
        quant: "q4_K".to_owned(),
        decode_bytes_per_s: Some(1e10),
        expert_bytes_per_s: None,
        prefill_flops_per_s: None,
        expert_prefill_flops_per_s: None,
    };
    Profile { key, measured_at_s: Some(1), matmul: vec![rate], ..Profile::default() }
}

/// Recalls with a stand-in for measuring; returns why it measured, if it did.
fn why(folder: &Path, need: &Need<'_>, wanted: Wanted) -> Option<String> {
    why_on(folder, false, need, wanted)
}

/// The same on a machine on which nothing else runs, or something does.
fn why_on(folder: &Path, quiet: bool, need: &Need<'_>, wanted: Wanted) -> Option<String> {
    let mut told = None;
    let remembered = recall_on((Some(folder), &|| quiet), need, wanted, &mut |because| {
        told = Some(because.to_owned());
        measured(need.key())
    });
    assert_eq!(remembered.profile.matmul, measured(need.key()).matmul);
    match remembered.origin {
        Origin::Cached => assert_eq!(told, None),
        Origin::Measured { because, not_kept } => assert_eq!((Some(because), None), (told.clone(), not_kept)),
    }
    told
}

fn because(folder: &Path, wanted: Wanted) -> Option<String> {
    why(folder, &need(folder), wanted)
}

fn stored(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert_eq!(files.next(), None, "nothing else is left behind");
    file
}

fn change(folder: &Path, change: impl Fn(&mut Profile)) {
    let path = stored(folder);
    let mut profile: Profile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut profile);
    fs::write(&path, serde_json::to_vec(&profile).unwrap()).unwrap();
}

#[test]
fn a_profile_is_measured_once() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(because(folder.path(), Wanted::Any).unwrap(), "this disk was not measured yet");
    assert_eq!(because(folder.path(), Wanted::Any), None);
    assert_eq!(because(folder.path(), Wanted::New).unwrap(), "it was asked for");
    assert_eq!(because(folder.path(), Wanted::Sound), None);
}

#[test]
fn other_machines_disks_versions_threads_and_formats_are_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    type Change = fn(&mut ProfileKey);
    let changes: [(Change, &str); 5] = [
        (|key| key.machine.push('x'), "another machine"),
        (|key| key.version.push('x'), "another version"),
        (|key| key.disk.push('x'), "another disk"),
        (|key| key.threads += 1, "another number of threads"),
        (|key| key.format += 1, "another format"),
    ];
    for (changed, expected) in changes {
        because(folder.path(), Wanted::New);
        change(folder.path(), |profile| changed(&mut profile.key));
        let why = because(folder.path(), Wanted::Any).unwrap();
        assert!(why.contains(expected), "{why}");
        assert_eq!(because(folder.path(), Wanted::Sound), None);
    }
}

#[test]
fn each_number_of_threads_has_rates_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let two = need(folder.path());
    let one = Need { threads: 1, ..two };
    assert!(why(folder.path(), &two, Wanted::Any).is_some());
    assert!(why(folder.path(), &one, Wanted::Any).is_some(), "those of two threads are not those of one");
    assert_eq!(why(folder.path(), &two, Wanted::Any), None, "and neither forgets the other");
    assert_eq!(why(folder.path(), &one, Wanted::Any), None);
}

#[test]
fn what_the_system_tells_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    because(folder.path(), Wanted::New);
    change(folder.path(), |profile| {
        profile.memory = Memory { room_bytes: Some(1), read_bytes_per_s: Some(7.0), ..Memory::default() };
        profile.devices = vec![Device { name: "gone".to_owned(), ..Device::default() }];
        profile.storage = Some(Storage { target: "elsewhere".to_owned(), ..Storage::default() });
    });
    let remembered =
        recall(Some(folder.path()), &need(folder.path()), Wanted::Sound, &mut |why| panic!("{why}"));
    let profile = remembered.profile;
    assert_eq!(profile.memory.read_bytes_per_s, Some(7.0), "rates stay");
    assert!(profile.memory.room_bytes.is_some_and(|room| room > 1 << 20), "{:?}", profile.memory);
    assert!(!profile.devices.is_empty() && profile.devices.iter().all(|device| device.name != "gone"));
    assert_eq!(profile.storage.unwrap().target, folder.path().display().to_string());
}

#[test]
fn a_profile_of_a_busy_machine_does_for_some_minutes_and_for_callers_that_want_no_better() {
    let profile = |share, at| Profile { others_share: share, measured_at_s: Some(at), ..Profile::default() };
    assert!(!was_disturbed(&profile(Some(0.8), 1000), 1000 + DISTURBED_FOR_S));
    assert!(was_disturbed(&profile(Some(0.8), 1000), 1001 + DISTURBED_FOR_S));
    assert!(!was_disturbed(&profile(Some(0.05), 1000), u64::MAX));
    assert!(!was_disturbed(&profile(None, 1000), u64::MAX));
    let folder = tempfile::tempdir().unwrap();
    because(folder.path(), Wanted::New);
    change(folder.path(), |profile| profile.others_share = Some(0.8));
    assert_eq!(because(folder.path(), Wanted::Any), None);
    assert!(because(folder.path(), Wanted::Sound).unwrap().contains("other programs"));
}

#[test]
fn a_profile_of_a_busy_machine_is_measured_again_by_itself_when_the_machine_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let need = need(folder.path());
    because(folder.path(), Wanted::New);
    assert_eq!(why_on(folder.path(), true, &need, Wanted::Any), None, "a sound one stays");
    change(folder.path(), |profile| profile.others_share = Some(0.8));
    assert_eq!(why_on(folder.path(), false, &need, Wanted::Any), None, "no better one is to be had");
    let because = why_on(folder.path(), true, &need, Wanted::Any).unwrap();
    assert!(because.contains("other programs"), "{because}");
    assert_eq!(why_on(folder.path(), true, &need, Wanted::Any), None, "once");
}

#[test]
fn who_needs_no_disk_takes_the_rates_measured_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    let anywhere = Need { disk: false, ..need(folder.path()) };
    assert_eq!(why(folder.path(), &anywhere, Wanted::Any).unwrap(), "this machine was not measured yet");
    assert_eq!(why(folder.path(), &anywhere, Wanted::Any), None);
    assert!(because(folder.path(), Wanted::Any).is_some(), "who needs a disk still measures it");
    fs::remove_file(folder.path().join(file_name(&anywhere.key()))).unwrap();
    change(folder.path(), |profile| {
        profile.key.disk = "another disk".to_owned();
        profile.storage = Some(Storage::default());
    });
    let found = recall(Some(folder.path()), &anywhere, Wanted::Any, &mut |why| panic!("{why}"));
    assert_eq!(found.profile.storage, None, "another disk's curve is not this one's");
}

#[test]
fn damaged_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    because(folder.path(), Wanted::New);
    let path = stored(folder.path());
    let whole = fs::read(&path).unwrap();
    for damage in [&b""[..], b"{", b"[1,2]", b"\xff\xfe", &whole[..whole.len() / 2]] {
        fs::write(&path, damage).unwrap();
        let why = because(folder.path(), Wanted::Any).unwrap();
        assert!(why.contains("damaged") || why.contains("cannot be read"), "{why}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let need = need(folder.path());
    let remembered = recall(Some(&file), &need, Wanted::Sound, &mut |_| measured(need.key()));
    assert!(matches!(remembered.origin, Origin::Measured { not_kept: Some(_), .. }));
    let remembered = recall(None, &need, Wanted::Sound, &mut |_| measured(need.key()));
    assert!(matches!(remembered.origin, Origin::Measured { not_kept: None, .. }));
}

#[test]
fn disks_of_long_names_have_files_of_their_own() {
    let key = |disk: String| ProfileKey { disk, ..ProfileKey::default() };
    let export = |name: &str| key(format!("nfs4 on no device, server:/{}/{name}", "long/".repeat(100)));
    let names = [file_name(&export("a")), file_name(&export("b")), file_name(&key(NO_DISK.to_owned()))];
    assert!(names.iter().all(|name| name.len() < 80 && !name.contains('/')), "{names:?}");
    assert_ne!(names[0], names[1]);
}
