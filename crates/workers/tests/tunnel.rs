//! A worker and a client in one process: who gets in, what the tunnel carries, and how soon its end is seen.
//! The process of a session is a shell that sends back what it gets.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use hypura_workers::WorkerError;
use hypura_workers::client::Client;
use hypura_workers::code::{Code, CodeFolder};
use hypura_workers::daemon::{Worker, serve};
use hypura_workers::grants::Grants;
use hypura_workers::identity::Identity;
use hypura_workers::message::Offer;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Sends back what it gets, and gives signs of life.
const ECHO: &str = "(while echo; do sleep 1; done) & cat <&0 >&0; kill $!";
/// Sends back nothing and gives no sign of life.
const DEAD: &str = "exec sleep 60";

struct Kit {
    address: String,
    codes: CodeFolder,
    identity: Identity,
    _folder: TempDir,
}

fn identity(version: &str) -> Identity {
    Identity { version: version.to_owned(), build: "1 (RPC 1)".to_owned(), name: "test".to_owned() }
}

fn start(script: &'static str) -> Kit {
    let folder = tempfile::tempdir().unwrap();
    let codes = CodeFolder::at(folder.path());
    let code = codes.own().unwrap();
    codes.add(&code).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let offer = Offer {
        memory_bytes: 1 << 30,
        total_bytes: 1 << 30,
        device: "CPU".to_owned(),
        threads: 1,
        rates: None,
    };
    let command = move |_| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Ok(command)
    };
    let identity = identity("1.0.0");
    let grants = Grants::of(1 << 30);
    let worker =
        Worker { identity: identity.clone(), code, grants, offer, cache: None, command: Box::new(command) };
    std::thread::spawn(move || serve(worker, &listener));
    Kit { address, codes, identity, _folder: folder }
}

impl Kit {
    fn connect(&self) -> Result<Client, WorkerError> {
        Client::connect(&self.address, &self.codes, &self.identity)
    }
}

/// The local end of a tunnel, and what is said when it ends.
fn open(client: Client) -> Result<(UnixStream, mpsc::Receiver<String>), WorkerError> {
    let (sender, lost) = mpsc::channel();
    let session = client.open(Box::new(move |reason| drop(sender.send(reason.to_owned()))))?;
    assert_eq!(session.granted_bytes, 1 << 30);
    Ok((UnixStream::from(session.socket), lost))
}

#[test]
fn what_goes_into_a_tunnel_comes_out_at_the_other_end() {
    let kit = start(ECHO);
    let mut client = kit.connect().unwrap();
    assert_eq!((client.offer.memory_bytes, client.identity.name.as_str()), (1 << 30, "test"));
    let link = client.measure().unwrap();
    assert!(link.round_trip_s > 0.0 && link.bytes_per_s > 1e6, "{link:?}");
    let (local, _lost) = open(client).unwrap();
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut writer, expected) = (local.try_clone().unwrap(), bytes.clone());
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut back = vec![0; expected.len()];
    (&local).read_exact(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == expected, "other bytes came back");
    // All of the memory is in use until the session ends.
    let refused = open(kit.connect().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("in use by test"), "{refused}");
    drop(local);
    let deadline = Instant::now() + Duration::from_secs(10);
    while open(kit.connect().unwrap()).is_err() {
        assert!(Instant::now() < deadline, "its memory is never free again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_not_paired_or_of_another_version_is_refused_with_the_reason() {
    let kit = start(ECHO);
    let strangers = tempfile::tempdir().unwrap();
    let codes = CodeFolder::at(strangers.path());
    let refused = |codes: &CodeFolder, identity: &Identity| {
        Client::connect(&kit.address, codes, identity).map(|_| ()).unwrap_err()
    };
    assert!(matches!(refused(&codes, &kit.identity), WorkerError::NotPaired { .. }));
    codes.add(&Code::random().unwrap()).unwrap();
    let error = refused(&codes, &kit.identity).to_string();
    assert!(error.contains("hypura worker --pair"), "{error}");
    let error = refused(&kit.codes, &identity("1.0.1")).to_string();
    assert!(error.contains("1.0.0") && error.contains("1.0.1"), "{error}");
    let mut other = kit.identity.clone();
    other.build = "2 (RPC 1)".to_owned();
    assert!(matches!(refused(&kit.codes, &other), WorkerError::Version { .. }));
    assert!(kit.connect().is_ok(), "who is paired still gets in");
}

#[test]
fn strangers_get_nothing_and_have_to_wait_after_a_few_attempts() {
    let kit = start(ECHO);
    for _ in 0..5 {
        let mut tcp = TcpStream::connect(&kit.address).unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // An alert of TLS at most, then the end.
        let _ = tcp.read_to_end(&mut answer);
        assert!(answer.len() < 64, "{answer:?}");
    }
    // The last failure is noted after its connection was closed.
    std::thread::sleep(Duration::from_millis(300));
    assert!(kit.connect().is_err(), "its address has to wait");
}

#[test]
fn a_process_that_gives_no_sign_of_life_ends_its_session_in_time() {
    let kit = start(DEAD);
    let start = Instant::now();
    let (mut local, lost) = open(kit.connect().unwrap()).unwrap();
    let reason = lost.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(reason.contains("no sign of life"), "{reason}");
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(local.read(&mut [0]).unwrap(), 0, "whoever waits there is told");
}

#[test]
fn a_machine_that_says_nothing_is_gone_after_five_seconds() {
    // Somebody in between who passes everything on, until it does not.
    let kit = start(ECHO);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let address = kit.address.clone();
    let (cut, is_cut) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = TcpStream::connect(address).unwrap();
        let pass = |mut from: TcpStream, mut to: TcpStream| {
            let mut part = [0; 4096];
            while let Ok(length) = from.read(&mut part) {
                if length == 0 || to.write_all(&part[..length]).is_err() {
                    break;
                }
            }
        };
        let (near2, far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let (near3, far3) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || pass(near2, far2));
        // The way back ends without a word: nothing is closed.
        std::thread::spawn(move || {
            let (mut from, mut to) = (far3, near3);
            let mut part = [0; 4096];
            from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            while is_cut.try_recv().is_err() {
                if let Ok(length) = from.read(&mut part) {
                    to.write_all(&part[..length]).unwrap();
                }
            }
            std::thread::sleep(Duration::from_secs(60));
        });
        std::thread::sleep(Duration::from_secs(60));
        drop((near, far));
    });
    let client = Client::connect(&between, &kit.codes, &kit.identity).unwrap();
    let (_local, lost) = open(client).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    cut.send(()).unwrap();
    let start = Instant::now();
    let reason = lost.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(reason.contains("nothing was heard"), "{reason}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
