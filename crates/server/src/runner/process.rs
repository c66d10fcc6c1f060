//! The process of a runner: started from this program, seen through `/proc`, ended for certain.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypura_engine::machine::own_memory;

use super::group::{Group, Groups};

/// Exit code of a runner that lost another machine that took part.
pub const LOST_WORKER: u8 = 75;

/// How long a runner may take to end once its connection is closed.
const LINGER: Duration = Duration::from_secs(10);
/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes of one line of its standard error that are kept.
const LINE_BYTES: u64 = 2048;
/// Lines of it that are kept.
const TAIL_LINES: usize = 20;
/// Characters of its last words in an error.
const WORDS: usize = 400;

/// The other end of a connection.
pub(super) trait Peer: Send + Sync {
    /// Ends it, whatever it does.
    fn kill(&self);
    /// Waits for its end, and says how it ended.
    fn reap(&self) -> Death;
    /// Bytes of memory of its own, mapped files excluded; `None` where the system does not say.
    fn own_bytes(&self) -> Option<u64>;
    /// Has the kernel see to it that it takes no more, where it can.
    fn allow(&self, _bytes: u64) {}
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// What happened, and its last words.
    pub how: String,
    /// Whether that is a fault: not an exit as asked, and not the end that somebody else wanted.
    pub is_fault: bool,
}

/// A runner that runs.
pub(super) struct RunnerProcess {
    child: Mutex<Child>,
    tail: Arc<Mutex<VecDeque<String>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
    group: Option<Group>,
}

impl RunnerProcess {
    /// Starts a runner for a model. Returns the connection to it.
    ///
    /// # Errors
    /// When the system has no process or no sockets for it.
    pub fn start(model: &str) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program()?);
        command
            .arg0("hypura-runner")
            .arg("runner")
            // ggml would start a debugger to print a stack.
            .env("GGML_NO_BACKTRACE", "1")
            .env("RUST_BACKTRACE", "0")
            .env_remove("HYPURA_API_KEY")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the server, which ends its runners itself.
            .process_group(0);
        let mut child = spawn(command)?;
        let tail = Arc::<Mutex<VecDeque<String>>>::default();
        let reader =
            child.stderr.take().map(|stderr| read_aside(stderr, model.to_owned(), Arc::clone(&tail)));
        let reader = Mutex::new(reader.transpose()?);
        Ok((Self { child: Mutex::new(child), tail, reader, group: None }, ours))
    }

    /// The same in a memory group of its own, where there are such. It has not been told yet what to read.
    pub fn in_group(mut self) -> Self {
        let made = Groups::of_process().map(|groups| groups.make(self.child().id()));
        self.group = made.and_then(|made| {
            made.inspect_err(|error| tracing::warn!(%error, "a model's process has no memory group")).ok()
        });
        self
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> io::Result<ExitStatus> {
        let start = Instant::now();
        let mut killed = false;
        loop {
            if let Some(status) = self.child().try_wait()? {
                return Ok(status);
            }
            if !killed && start.elapsed() > LINGER {
                self.kill();
                killed = true;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn last_words(&self) -> Option<String> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It ends with the process, which holds the other end alone.
        let _ = reader.map(JoinHandle::join);
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let line = tail.iter().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(WORDS).collect())
    }
}

impl Peer for RunnerProcess {
    fn kill(&self) {
        // One that is gone cannot be killed, nor has to be.
        let _ = self.child().kill();
    }

    fn reap(&self) -> Death {
        let status = match self.wait() {
            Ok(status) => status,
            Err(error) => {
                return Death { how: format!("its process cannot be waited for: {error}"), is_fault: true };
            }
        };
        let words = self.last_words();
        match self.group.as_ref().and_then(Group::exceeded) {
            Some(bytes) => Death {
                how: format!(
                    "its process took more than {} MiB of memory, and the kernel ended it",
                    bytes >> 20
                ),
                is_fault: true,
            },
            None => death(status, words),
        }
    }

    fn allow(&self, bytes: u64) {
        self.group.iter().for_each(|group| group.allow(bytes));
    }

    fn own_bytes(&self) -> Option<u64> {
        own_bytes_of(Some(self.child().id()))
    }
}

fn death(status: ExitStatus, words: Option<String>) -> Death {
    const KILLED: [i32; 4] = [1, 2, 9, 15];
    if status.code() == Some(i32::from(LOST_WORKER)) {
        // The next load does without it, or has it again.
        return Death { how: words.unwrap_or_else(|| "a worker was lost".to_owned()), is_fault: false };
    }
    let (how, is_fault) = match (status.code(), status.signal()) {
        (Some(0), _) => ("its process ended".to_owned(), false),
        (Some(_), _) => ("its process failed".to_owned(), true),
        (None, Some(signal)) => {
            (format!("its process was ended by signal {signal}"), !KILLED.contains(&signal))
        }
        (None, None) => ("its process ended".to_owned(), true),
    };
    let how = match words.filter(|_| is_fault) {
        Some(words) => format!("{how}: {words}"),
        None => how,
    };
    Death { how, is_fault }
}

/// This program, also where its file was replaced meanwhile.
fn program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// A command, and where its process goes.
type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a process from a thread that lives as long as this one: the system ends a runner together with the
/// thread that started it (`PR_SET_PDEATHSIG`).
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        let work = move || {
            for (mut command, reply) in orders {
                // Whoever asked waits.
                let _ = reply.send(command.spawn());
            }
        };
        // Without a thread every order fails below.
        let _ = std::thread::Builder::new().name("spawn".to_owned()).spawn(work);
        sender
    });
    let (reply, child) = mpsc::channel();
    let no_thread = || io::Error::other("no thread to start processes from");
    spawner.send((command, reply)).map_err(|_| no_thread())?;
    child.recv().map_err(|_| no_thread())?
}

/// Reads what a runner says on its standard error: each line goes to the log, the last ones are kept.
fn read_aside(
    stderr: ChildStderr,
    model: String,
    tail: Arc<Mutex<VecDeque<String>>>,
) -> io::Result<JoinHandle<()>> {
    let work = move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A longer line is several.
            match stderr.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            tracing::warn!(%model, line = ?text, "runner");
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    };
    std::thread::Builder::new().name("runner-stderr".to_owned()).spawn(work)
}

/// Bytes of memory of this process's own, mapped files excluded; `None` where the system does not say.
#[must_use]
pub fn own_bytes() -> Option<u64> {
    own_bytes_of(None)
}

fn own_bytes_of(process: Option<u32>) -> Option<u64> {
    own_memory(process).ok().map(|memory| memory.anonymous_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_somebody_else_wanted_is_no_fault_of_the_file() {
        let fault = |raw: i32| death(ExitStatus::from_raw(raw), Some("words".to_owned()));
        assert!(!fault(9).is_fault && !fault(15).is_fault && !fault(0).is_fault);
        let lost = fault(i32::from(LOST_WORKER) << 8);
        assert_eq!((lost.how.as_str(), lost.is_fault), ("words", false), "no fault of the file either");
        assert!(fault(11).is_fault && fault(6).is_fault && fault(70 << 8).is_fault);
        assert_eq!(fault(11).how, "its process was ended by signal 11: words");
        assert_eq!(fault(70 << 8).how, "its process failed: words");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_of_a_process_is_what_it_wrote_to() {
        // Other tests allocate and free beside this one.
        let written = std::hint::black_box(vec![1_u8; 256 << 20]);
        assert!(own_bytes().unwrap() >= written.len() as u64);
    }
}
