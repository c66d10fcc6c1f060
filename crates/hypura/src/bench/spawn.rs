//! Starts an arm as a process of its own, in a memory control group if asked, and brings home what it says.

use anyhow::{Context as _, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::arm::Arm;
use super::memcap::Memcap;
use super::work::ArmRun;

/// How often the parent looks whether the child ended or somebody wants to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Raised by Ctrl-C and its relatives. The benchmark then kills its child and returns, so that all guards put
/// back what they changed.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

/// Somebody stopped the benchmark.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

impl Stop {
    /// Takes over the signals that end a program.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> anyhow::Result<Self> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&raised)).context("cannot listen to signals")?;
        }
        Ok(Self(raised))
    }

    /// # Errors
    /// [`Stopped`] if it was raised.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.0.load(Ordering::SeqCst) { Err(Stopped) } else { Ok(()) }
    }
}

/// How to start arms: the program and the flags that all of them share.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program, and arguments of it that come before `bench-arm`.
    pub program: Vec<OsString>,
    /// Flags of the benchmark, model included.
    pub flags: Vec<OsString>,
}

/// What came of an arm.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What it says of itself.
    pub run: ArmRun,
    /// The most that was charged to its control group.
    pub cgroup_peak_bytes: Option<u64>,
}

impl Launcher {
    /// Runs an arm to its end, under `memcap_bytes` if given.
    ///
    /// # Errors
    /// What the arm complained of, or that it was killed, and why; [`Stopped`].
    pub fn run(
        &self,
        arm: Arm,
        device: Option<&str>,
        memcap_bytes: Option<u64>,
        stop: &Stop,
    ) -> anyhow::Result<Finished> {
        let group = memcap_bytes.map(Memcap::new).transpose()?;
        let (program, arguments) = self.program.split_first().context("there is no program to start")?;
        let mut command = Command::new(program);
        command.args(arguments).args(["bench-arm", "--run-arm", arm.name()]);
        if let Some(device) = device {
            command.args(["--disk", device]);
        }
        command.args(&self.flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let child = spawned.with_context(|| format!("cannot start {}", program.display()))?;
        let (status, out, complaints) = Watched::new(child)?.finish(group.as_ref(), stop)?;
        if !status.success() {
            bail!("the {} arm {}", arm.name(), failure(status, &complaints, group.as_ref()));
        }
        let run = serde_json::from_str(&out)
            .with_context(|| format!("the {} arm said something else than its result", arm.name()))?;
        Ok(Finished { run, cgroup_peak_bytes: group.as_ref().and_then(Memcap::peak_bytes) })
    }
}

/// Why an arm failed, in its own words where it had some.
fn failure(status: ExitStatus, complaints: &str, group: Option<&Memcap>) -> String {
    if group.is_some_and(Memcap::killed) {
        return "was killed by the kernel because it wanted more memory than --memcap: give it more, or a lower --memory"
            .to_owned();
    }
    match complaints.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("failed: {}", line.strip_prefix("hypura: ").unwrap_or(line)),
        None => format!("failed without a word ({status})"),
    }
}

/// A child that does not outlive its parent's interest.
struct Watched {
    child: Child,
    out: JoinHandle<String>,
    complaints: JoinHandle<String>,
}

impl Watched {
    fn new(mut child: Child) -> anyhow::Result<Self> {
        let (out, complaints) = (child.stdout.take(), child.stderr.take());
        let out = collect(out.context("the arm has no output")?);
        let complaints = collect(complaints.context("the arm has no error output")?);
        Ok(Self { child, out, complaints })
    }

    fn finish(mut self, group: Option<&Memcap>, stop: &Stop) -> anyhow::Result<(ExitStatus, String, String)> {
        let waited = self.wait(group, stop);
        if waited.is_err() {
            // It may have ended by itself meanwhile; either way it is gone after this.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (out, complaints) = (self.out.join(), self.complaints.join());
        Ok((waited?, out.unwrap_or_default(), complaints.unwrap_or_default()))
    }

    fn wait(&mut self, group: Option<&Memcap>, stop: &Stop) -> anyhow::Result<ExitStatus> {
        if let Some(group) = group {
            group.add(self.child.id())?;
        }
        // Kept open: its end tells the child that nobody waits any more.
        let mut leash = self.child.stdin.take().context("the arm has no input")?;
        // A child that is gone already has a status that says more than a broken pipe.
        let _ = leash.write_all(b"go\n");
        loop {
            stop.check()?;
            if let Some(status) = self.child.try_wait().context("cannot wait for the arm")? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Runs an arm of which `script` is the program.
    fn run(script: &str, raised: bool) -> anyhow::Result<Finished> {
        let script = format!("read go; {script}");
        let program = ["sh", "-c", &script, "arm"].map(OsString::from).to_vec();
        let launcher = Launcher { program, flags: vec!["x.gguf".into()] };
        launcher.run(Arm::Mmap, None, None, &Stop(Arc::new(AtomicBool::new(raised))))
    }

    #[test]
    fn an_arm_that_fails_is_quoted() {
        let error = run("echo noise >&2; echo 'hypura: no such model' >&2; exit 1", false).unwrap_err();
        assert_eq!(error.to_string(), "the mmap arm failed: no such model");
        let error = run("exit 3", false).unwrap_err().to_string();
        assert!(error.contains("without a word") && error.contains('3'), "{error}");
    }

    #[test]
    fn an_arm_gets_its_name_and_the_flags() {
        let error = run("echo \"$@\" >&2; exit 1", false).unwrap_err();
        assert_eq!(error.to_string(), "the mmap arm failed: bench-arm --run-arm mmap x.gguf");
        let error = run("echo '{}'", false).unwrap_err();
        assert!(error.to_string().contains("something else than its result"));
    }

    #[test]
    fn a_stopped_benchmark_kills_its_arm() {
        let error = run("exec sleep 1000", true).unwrap_err();
        assert!(error.is::<Stopped>());
    }
}
