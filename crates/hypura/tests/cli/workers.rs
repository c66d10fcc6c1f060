//! Two machines that are one: a worker and what uses it, each with a home of its own.

use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::kit::{Finished, demo, finish, hypura};

const GREEDY: [&str; 9] =
    ["--temperature", "0", "-n", "12", "--logits-hash", "--ctx", "128", "--threads", "2"];

/// A worker that ends with its test, and the home of a machine that is paired with it.
struct Pair {
    worker: Child,
    address: String,
    here: TempDir,
    _there: TempDir,
}

fn at(home: &Path) -> Command {
    let mut command = hypura();
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HYPURA_WORKERS"] {
        command.env_remove(name);
    }
    command.env("HOME", home);
    command
}

impl Pair {
    fn start() -> Self {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let code = finish(at(there.path()).args(["worker", "--pair"])).assert_success().stdout;
        finish(at(here.path()).args(["workers", "--pair", code.trim()])).assert_success();
        let mut command = at(there.path());
        command.args([
            "worker",
            "--listen",
            "127.0.0.1:0",
            "--memory",
            "1GiB",
            "--no-announce",
            "--threads",
            "2",
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut worker = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(worker.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("worker on ").and_then(|rest| rest.split(": ").next());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { worker, address, here, _there: there }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = at(self.here.path());
        command.arg("run").arg(demo()).arg("What is a lynx?").args(arguments);
        command
    }

    fn stats(&self, arguments: &[&str]) -> (Value, Finished) {
        let file = self.here.path().join("stats.json");
        let mut command = self.command(&GREEDY);
        let finished = finish(command.args(arguments).arg("--stats-json").arg(&file)).assert_success();
        (serde_json::from_slice(&fs::read(&file).unwrap()).unwrap(), finished)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

#[test]
fn layers_on_a_worker_give_the_bits_of_a_run_without_one() {
    let pair = Pair::start();
    let alone = pair.stats(&["--residency", "resident"]).0;
    assert_eq!(alone["kernels"], "file-layout");
    for layers in ["1", "3"] {
        let flags = ["--residency", "resident", "--worker", &pair.address, "--gpu-layers", layers];
        let (together, finished) = pair.stats(&flags);
        assert!(finished.stderr.contains(&format!("computes {layers} of")), "{}", finished.stderr);
        for field in ["token_ids", "logits_hash", "prompt_tokens"] {
            assert_eq!(alone[field], together[field], "{field} with {layers} layers there");
        }
    }
    // What is at home here streams beside a worker as it does without one.
    let flags =
        ["--residency", "stream", "--stream-cache", "25%", "--worker", &pair.address, "--gpu-layers", "2"];
    let (streamed, _) = pair.stats(&flags);
    assert_eq!(streamed["mode"], "expert-streaming");
    assert_eq!(alone["logits_hash"], streamed["logits_hash"]);
}

#[test]
fn a_worker_that_is_not_needed_is_left_out_and_that_is_said() {
    let pair = Pair::start();
    let (_, finished) = pair.stats(&["--worker", &pair.address]);
    assert!(finished.stderr.contains("is not used"), "{}", finished.stderr);
}

#[test]
fn a_worker_that_cannot_be_used_is_one_line() {
    let pair = Pair::start();
    let stranger = tempfile::tempdir().unwrap();
    let mut command = at(stranger.path());
    command.arg("run").arg(demo()).args(["x", "--worker", &pair.address]);
    finish(&mut command).assert_error(1, &["not paired", "hypura worker --pair"]);
    finish(&mut pair.command(&["--worker", "127.0.0.1:1"])).assert_error(1, &["cannot be reached"]);
    finish(&mut pair.command(&["--worker", "a b"])).assert_error(1, &["no address"]);
    let listed = finish(at(pair.here.path()).args(["workers", "--worker", &pair.address])).assert_success();
    assert!(listed.stdout.contains(&pair.address) && listed.stdout.contains("MB/s"), "{}", listed.stdout);
}

/// Sessions that end without being asked: which process one has is known on Linux.
#[cfg(target_os = "linux")]
mod lost {
    use super::*;
    use crate::kit::wait;
    use crate::serving::Serving;
    use serde_json::json;

    impl Pair {
        /// The process of its session.
        fn session(&self) -> Option<u32> {
            let id = self.worker.id();
            let tasks = fs::read_dir(format!("/proc/{id}/task")).ok()?.filter_map(Result::ok);
            let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            children
                .flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
                .next()
        }

        fn wait_for_session(&self) -> u32 {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                if let Some(session) = self.session() {
                    return session;
                }
                assert!(Instant::now() < deadline, "no session begins");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn signal(name: &str, id: u32) {
        // One that has ended meanwhile is as good.
        let _ = Command::new("kill").args([name, &id.to_string()]).stderr(Stdio::null()).status().unwrap();
    }

    #[test]
    fn a_worker_that_dies_at_any_moment_ends_a_run_with_one_line() {
        let pair = Pair::start();
        let kills: u64 =
            std::env::var("HYPURA_WORKER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
        for round in 0..kills {
            let flags = [
                "--temperature",
                "0",
                "-n",
                "3000",
                "--ignore-eos",
                "--ctx",
                "4096",
                "--worker",
                &pair.address,
                "--gpu-layers",
                "2",
            ];
            let mut command = pair.command(&flags);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let session = pair.wait_for_session();
            std::thread::sleep(Duration::from_millis(round * 389 % 1500));
            // Every other time it is stopped: nobody says that it is gone.
            signal(if round % 4 == 3 { "-STOP" } else { "-KILL" }, session);
            let start = Instant::now();
            let code = wait(&mut child);
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let finished = Finished::of(child.wait_with_output().unwrap());
            assert_eq!(code, Some(1), "{finished:?}");
            let last = finished.stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("hypura: ") && last.contains("worker"), "{finished:?}");
        }
        let (_, finished) = pair.stats(&["--worker", &pair.address, "--gpu-layers", "1"]);
        assert!(finished.stderr.contains("computes 1 of"), "the worker is there again: {}", finished.stderr);
    }

    #[test]
    fn a_server_outlives_its_worker_and_answers_without_it() {
        let pair = Pair::start();
        let config = pair.here.path().join(".config");
        let variables = [("XDG_CONFIG_HOME", config.to_str().unwrap())];
        let server = Serving::start_with(&["--worker", &pair.address, "--gpu-layers", "2"], &variables);
        let ask = json!({"model": "demo", "prompt": "What is a lynx?", "stream": false,
            "options": {"num_predict": 8, "temperature": 0}});
        let first = server.post("/api/generate", &ask);
        let session = pair.session().expect("the model's runner uses the worker");
        signal("-KILL", session);
        // The runner ends with it, whatever it does at that moment; the next one has the worker again.
        let again = |server: &Serving| {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let (status, text) = server.send("/api/generate", &ask);
                if status == 200 {
                    return serde_json::from_str::<Value>(&text).unwrap();
                }
                assert!(text.contains("worker"), "{text}");
                assert!(Instant::now() < deadline, "{text}");
            }
        };
        // Which kernels compute may differ from load to load, so words may, too.
        assert_ne!(first["response"], "");
        assert_ne!(again(&server)["response"], "");
        drop(pair);
        assert_ne!(again(&server)["response"], "");
    }
}
