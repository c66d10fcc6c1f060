//! A file through `hypura run`.

use hypura_engine::source::ModelSource;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::kit::hypura;
use crate::order::File;
use crate::tally::Outcome;

/// Longer than the program gives any file.
const DEADLINE: Duration = Duration::from_secs(100);
/// What the program may take beyond its budget before it is ended, and what it takes until that is seen.
const MOST_BYTES: u64 = (256 << 20) + (1 << 30) + (512 << 20);

pub fn one(file: &File<'_>) -> Outcome {
    let Some(path) = file.paths.first() else { return Outcome::Refused("no file".to_owned()) };
    let log = file.folder.join(format!("h{}.err", file.index));
    let mut command = hypura();
    command.arg("run").arg(path).args(["What is a lynx?", "-n", "3", "--temperature", "0"]);
    command.args(["--memory", "256MiB", "--threads", "2", "--local"]);
    if file.index.is_multiple_of(3) {
        command.args(["--residency", "stream", "--stream-cache", "40%"]);
    }
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let ended = watch(&mut command.spawn().unwrap());
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    judge(ended, &said)
}

/// Whether a file gets as far as llama.cpp: not what is refused from its header alone.
pub fn is_let_through(path: &Path) -> bool {
    ModelSource::open(path).is_ok()
}

/// Waits for the end, or brings it about.
fn watch(child: &mut Child) -> Result<ExitStatus, String> {
    let start = Instant::now();
    let status = format!("/proc/{}/status", child.id());
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status);
        }
        let bytes = own_bytes(&status);
        let fault = match () {
            () if start.elapsed() > DEADLINE => "it hangs".to_owned(),
            () if bytes > MOST_BYTES => format!("it takes {} MiB", bytes >> 20),
            () => {
                std::thread::sleep(Duration::from_millis(4));
                continue;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        return Err(fault);
    }
}

/// Memory of its own that a process has.
pub fn own_bytes(status: &str) -> u64 {
    let status = fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn judge(ended: Result<ExitStatus, String>, said: &str) -> Outcome {
    let status = match ended {
        Ok(status) => status,
        Err(fault) => return Outcome::Fault(fault),
    };
    let notes = |line: &&str| line.starts_with("hypura: note: ") || line.starts_with("hypura: warning: ");
    let (_, errors): (Vec<&str>, Vec<&str>) = said.lines().partition(notes);
    match (status.code(), errors.as_slice()) {
        (Some(0), _) => Outcome::Answered,
        (Some(1), [line]) if line.starts_with("hypura: ") => Outcome::Refused((*line).to_owned()),
        (Some(code), _) => Outcome::Fault(format!("exit {code}, not one line: {said}")),
        (None, _) => Outcome::Fault(format!("signal {:?}: {said}", status.signal())),
    }
}
