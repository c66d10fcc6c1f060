//! Runs the program and makes models for it.

use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No run here takes a tenth of this; a program that hangs must fail the test.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails unless the program ended with `code` and said one line that contains all `parts`.
    #[track_caller]
    pub fn assert_error(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("hypura: ")).collect();
        let [line] = lines.as_slice() else { panic!("not one line: {self:?}") };
        assert_eq!(self.stderr.trim_end(), *line, "only that line");
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }

    #[track_caller]
    pub fn assert_success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// The program, isolated from the user's settings.
pub fn hypura() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypura"));
    // The user may run a server; nobody listens on port 1.
    command.env("HYPURA_HOST", "127.0.0.1:1").env_remove("HYPURA_API_KEY");
    // Bits and budgets here are those of the CPU, whatever GPU is in the machine.
    command.env("HYPURA_DEVICE", "none").env_remove("HYPURA_DEMO").stdin(Stdio::null());
    // What is not here stays away.
    command.env("HYPURA_OFFLINE", "1");
    command
}

pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Finished {
    finish(&mut {
        let mut command = hypura();
        command.args(arguments);
        command
    })
}

pub fn finish(command: &mut Command) -> Finished {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Finished::of(child.wait_with_output().unwrap())
}

/// Waits for the end of a program whose output nobody needs to read meanwhile.
pub fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Presses Ctrl-C.
pub fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

/// Asks to end, as service managers do.
pub fn terminate(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf")
}

/// Writes a synthetic model and gives the path of its first file.
pub fn model(folder: &Path, shape: Shape, shards: u32) -> PathBuf {
    let plan = SynthPlan::new(&SynthOptions { shards, ..SynthOptions::new(shape, Quant::Q4_K) }).unwrap();
    let paths: Vec<PathBuf> =
        (0..plan.shards().len()).map(|shard| folder.join(plan.file_name(shape.name(), shard))).collect();
    for (shard, path) in paths.iter().enumerate() {
        let mut bytes = vec![0; plan.shards()[shard].file_bytes as usize];
        plan.fill_file(shard, 0, &mut bytes);
        fs::write(path, bytes).unwrap();
    }
    paths[0].clone()
}

/// Runs a model with `--stats-json` and gives what it wrote.
pub fn stats(model: &Path, flags: &[&str], prompt: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stats.json");
    let mut command = hypura();
    command.arg("run").arg(model).arg(prompt).args(flags).arg("--stats-json").arg(&file);
    finish(&mut command).assert_success();
    serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()
}
