//! A pull that is killed at any moment: its parts are there afterwards, and none of them is fetched again.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hypura_core::random;
use hypura_store::fetch::Network;

use crate::kit::{Machine, digest_of, model, request};
use crate::server::{Hub, Model};

/// Where the child finds the folder and the server.
const FOLDER: &str = "HYPURA_PULL_TEST_FOLDER";
const SERVER: &str = "HYPURA_PULL_TEST_SERVER";
const PART_BYTES: usize = 64 << 10;
const KILLS: u64 = 50;

fn settings(machine: &mut Machine) {
    machine.settings.part_bytes = PART_BYTES as u64;
    machine.settings.request_bytes = 4 * PART_BYTES as u64;
    machine.settings.flush_bytes = 512 << 10;
}

/// Not a test: what the test below starts and kills.
#[test]
fn child_that_pulls() {
    let (Ok(folder), Ok(server)) = (std::env::var(FOLDER), std::env::var(SERVER)) else { return };
    let mut machine = Machine::new();
    settings(&mut machine);
    let places = hypura_store::Places {
        own: Some(Path::new(&folder).join("own")),
        hugging_face: vec![Path::new(&folder).join("hub")],
        ..Default::default()
    };
    let network = Network { hub: server, hub_token: None, hub_offline: false, offline: false };
    let store =
        hypura_store::Store::new(places).with_network(network).with_pull_settings(machine.settings.clone());
    store.pulls().pull(&request("hf.co/o/r"), &mut |_| {}, &|| true).unwrap();
}

/// The parts that a journal lists, and those that the data has, by comparison with the file.
fn parts(machine: &Machine, whole: &[u8]) -> (HashSet<usize>, HashSet<usize>) {
    let (mut listed, mut written) = (HashSet::new(), HashSet::new());
    for path in machine.files("hub") {
        let name = path.to_str().unwrap().to_owned();
        if name.ends_with(".parts") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("d "));
            listed.extend(lines.filter_map(|index| index.parse::<usize>().ok()));
        } else if name.ends_with(".partial") {
            let data = fs::read(&path).unwrap();
            let same = data.chunks(PART_BYTES).zip(whole.chunks(PART_BYTES)).enumerate();
            written.extend(same.filter(|(_, (a, b))| a == b).map(|(index, _)| index));
        }
    }
    (listed, written)
}

#[test]
fn killed_at_random_points_nothing_is_fetched_twice_beyond_a_part_a_connection() {
    let hub = Hub::start();
    let bytes = model(1, 8 << 20, 0, 1);
    let (mut kills, mut round, mut again_most) = (0, 0, 0);
    while kills < KILLS {
        let here = hub.add("r", Model::new(vec![("m-Q4_K_M.gguf".to_owned(), bytes.clone())]));
        *here.delay.lock().unwrap() = Duration::from_millis(6);
        let mut machine = Machine::new();
        settings(&mut machine);
        loop {
            here.ranges.lock().unwrap().clear();
            let (listed, _) = parts(&machine, &bytes);
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["kill::child_that_pulls", "--exact"])
                .env(FOLDER, machine.folder.path())
                .env(SERVER, &hub.address)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            round += 1;
            std::thread::sleep(Duration::from_millis(random::at(42, round) % 120));
            let ended = child.try_wait().unwrap();
            let _ = child.kill();
            child.wait().unwrap();
            // What was there was not asked for again.
            for (first, last) in here.ranges.lock().unwrap().iter() {
                let asked = first / PART_BYTES..=last / PART_BYTES;
                assert!(!asked.clone().any(|part| listed.contains(&part)), "{asked:?} in {listed:?}");
            }
            if let Some(status) = ended {
                assert!(status.success());
                break;
            }
            kills += 1;
            let (listed, written) = parts(&machine, &bytes);
            assert!(listed.is_subset(&written), "a part counts that is not there");
            again_most = again_most.max(written.difference(&listed).count());
            assert!(written.difference(&listed).count() <= machine.settings.connections);
        }
        machine.check_blobs(1);
        let blob =
            machine.files("hub").into_iter().find(|path| path.parent().unwrap().ends_with("blobs")).unwrap();
        assert_eq!(digest_of(&blob), hypura_store::Digest::of(&bytes).hex());
    }
    println!("{kills} kills: at most {again_most} whole parts were written and not counted");
}
