//! Filters of system calls, on threads of their own and in processes that end.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use super::calls::{Sockets, Threads, restrict};

/// What a thread says that may no longer do what models do not need.
fn restricted<T: Send + 'static>(sockets: Sockets, work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = move || {
        restrict(sockets, Threads::This).unwrap();
        work()
    };
    std::thread::spawn(work).join().unwrap()
}

fn code<T>(done: std::io::Result<T>) -> Option<i32> {
    done.err().and_then(|error| error.raw_os_error())
}

#[test]
fn sockets_are_refused() {
    for sockets in [Sockets::None, Sockets::Local] {
        let udp = restricted(sockets, || code(UdpSocket::bind("127.0.0.1:0")));
        assert_eq!(udp, Some(libc::EPERM), "{sockets:?}");
    }
    let local = |sockets| restricted(sockets, || code(UnixStream::connect("/no/such/socket")));
    assert_eq!(local(Sockets::None), Some(libc::EPERM));
    assert_eq!(local(Sockets::Local), Some(libc::ENOENT), "a driver of a GPU has its services");
    restricted(Sockets::None, || UnixStream::pair().map(drop)).unwrap();
}

#[test]
fn threads_are_made_and_processes_are_not() {
    let sum = || std::thread::spawn(|| 1 + 1).join().unwrap();
    assert_eq!(restricted(Sockets::None, sum), 2);
    let started = restricted(Sockets::None, || code(Command::new("true").spawn()));
    assert_eq!(started, Some(libc::EPERM));
}

#[test]
fn others_get_no_signals() {
    use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
    // SIGCONT does nothing to a process that runs.
    let signal = |of: fn() -> Option<Pid>| {
        restricted(Sockets::None, move || {
            kill_process(of().unwrap(), Signal::CONT).map_err(|error| error.raw_os_error())
        })
    };
    assert_eq!(signal(getppid), Err(libc::EPERM));
    assert_eq!(signal(|| Some(getpid())), Ok(()));
}

#[test]
fn limits_of_others_stay() {
    use rustix::process::{Resource, Rlimit, getppid, prlimit};
    let none = Rlimit { current: None, maximum: None };
    let set = move |other| {
        restricted(Sockets::None, move || {
            let of = if other { getppid() } else { None };
            prlimit(of, Resource::Core, none).map(drop).map_err(|error| error.raw_os_error())
        })
    };
    assert_eq!(set(true), Err(libc::EPERM));
    assert!(set(false).is_ok());
}

/// The test below in a process of its own: what it does ends it.
fn again(variable: &str) -> ExitStatus {
    let name = "runner::confine::tests::programs_end_the_process_that_starts_them";
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture"]).env(variable, "1");
    test.output().unwrap().status
}

#[test]
fn programs_end_the_process_that_starts_them() {
    const PLAIN: &str = "HYPURA_TEST_EXECUTES";
    const WITH_WORDS: &str = "HYPURA_TEST_EXECUTES_WITH_WORDS";
    let has = |name| std::env::var_os(name).is_some();
    if has(PLAIN) || has(WITH_WORDS) {
        if has(WITH_WORDS) {
            hypura_engine::crash::install("", 70);
        }
        super::privileges::no_core_files();
        restrict(Sockets::None, Threads::All).unwrap();
        panic!("it goes on: {}", Command::new("/bin/true").exec());
    }
    assert_eq!(again(PLAIN).signal(), Some(libc::SIGSYS));
    assert_eq!(again(WITH_WORDS).code(), Some(70), "as last words");
}

/// Whoever computes, reads and writes goes on as before.
#[test]
fn what_models_need_is_allowed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let read = restricted(Sockets::None, move || {
        std::fs::write(&path, [7; 4096]).unwrap();
        std::fs::read(&path).unwrap()
    });
    assert_eq!(read, [7; 4096]);
    assert!(restricted(Sockets::None, || std::fs::read_to_string("/proc/self/status")).is_ok());
}
