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
pub struct Pair {
    worker: Child,
    pub address: String,
    /// The home of the machine that uses it.
    pub here: TempDir,
    _there: TempDir,
}

/// The program on a machine.
pub fn at(home: &Path) -> Command {
    let mut command = hypura();
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HYPURA_WORKERS"] {
        command.env_remove(name);
    }
    command.env("HOME", home);
    command
}

impl Pair {
    fn start() -> Self {
        Self::start_by(&[], "127.0.0.1:0")
    }

    /// A worker that `prefix` starts. It does not measure itself.
    fn start_by(prefix: &[&str], listen: &str) -> Self {
        Self::start_as(prefix, listen, "{}", &["--memory", "1GiB", "--threads", "2"])
    }

    /// A worker that says of itself that it computes so fast.
    pub fn start_as(prefix: &[&str], listen: &str, rates_json: &str, flags: &[&str]) -> Self {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let code = finish(at(there.path()).args(["worker", "--pair"])).assert_success().stdout;
        finish(at(here.path()).args(["workers", "--pair", code.trim()])).assert_success();
        let rates = there.path().join("rates.json");
        fs::write(&rates, rates_json).unwrap();
        let worker = at(there.path());
        let mut command = match prefix {
            [] => worker,
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(worker.get_program()).env("HOME", there.path());
                command
            }
        };
        command.args(["worker", "--listen", listen, "--no-announce"]).args(flags);
        if !rates_json.is_empty() {
            command.arg("--rates").arg(&rates);
        }
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
        self.stats_of(&[&GREEDY, arguments].concat())
    }

    fn stats_of(&self, arguments: &[&str]) -> (Value, Finished) {
        let file = self.here.path().join("stats.json");
        let mut command = self.command(arguments);
        let finished = finish(command.arg("--stats-json").arg(&file)).assert_success();
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

/// Bytes that loading sent to the worker.
fn loading_sent(stats: &Value) -> u64 {
    let bytes = |value: &Value| value.as_u64().unwrap();
    let all = bytes(&stats["workers"][0]["traffic"]["sent_bytes"]);
    all - bytes(&stats["prefill"]["link_sent_bytes"]) - bytes(&stats["decode"]["link_sent_bytes"])
}

#[test]
fn a_second_load_sends_at_most_a_hundredth_of_the_weights() {
    let pair = Pair::start();
    let flags = ["--residency", "resident", "--worker", &pair.address, "--gpu-layers", "4"];
    let (first, _) = pair.stats(&flags);
    let weights = first["workers"][0]["bytes"].as_u64().unwrap();
    assert!(loading_sent(&first) > weights / 2, "{first}");
    let (second, _) = pair.stats(&flags);
    assert_eq!(first["logits_hash"], second["logits_hash"]);
    assert!(loading_sent(&second) * 100 <= loading_sent(&first), "{} of {weights}", loading_sent(&second));
}

#[test]
fn a_token_carries_hidden_states_and_next_to_nothing_else() {
    /// Of the demo model, in bytes.
    const HIDDEN: u64 = 512 * 4;
    /// What is left of the description of tensors, for each token: 5% of the hidden states of a model of 2048
    /// numbers, there and back.
    const MOST_BESIDE: u64 = 2 * 2048 * 4 / 20;
    let pair = Pair::start();
    let long = ["-n", "200", "--ignore-eos", "--ctx", "1024", "--threads", "1"];
    let flags = ["--residency", "resident", "--worker", &pair.address, "--gpu-layers", "3"];
    let (stats, _) = pair.stats_of(&[&flags[..], &long].concat());
    let tokens = stats["generated_tokens"].as_u64().unwrap() - 1;
    assert!(tokens > 100, "{stats}");
    let bytes = |direction: &str| stats["decode"][direction].as_u64().unwrap();
    let each = (bytes("link_sent_bytes") + bytes("link_received_bytes")) / tokens;
    assert!((2 * HIDDEN..2 * HIDDEN + MOST_BESIDE).contains(&each), "{each} a token");
}

#[test]
fn a_plan_divides_layers_as_a_run_does_and_names_the_machines() {
    let pair = Pair::start();
    // What was measured of this machine is shared by tests.
    let home = std::env::var_os("HOME").map_or_else(|| pair.here.path().to_owned(), Into::into);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), Into::into);
    let plan = |flags: &[&str]| {
        let mut command = at(pair.here.path());
        command.arg("plan").arg(demo()).args(["--ctx", "128", "--threads", "2", "--what-if", "disk=1GB/s"]);
        command.args(["--worker", &pair.address, "--gpu-layers", "2"]).env("XDG_CACHE_HOME", &cache);
        finish(command.args(flags)).assert_success().stdout
    };
    let planned: Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    let (run, _) = pair.stats(&["--worker", &pair.address, "--gpu-layers", "2"]);
    let (planned, loaded) = (&planned["plan"]["workers"][0], &run["workers"][0]);
    for field in ["name", "first_layer", "layers", "budget_bytes"] {
        assert_eq!(planned[field], loaded[field], "{field}");
    }
    let text = plan(&[]);
    assert!(text.contains(&format!("{}, of 1.00 GiB: layers 4 to 5", pair.address)), "{text}");
    assert!(text.contains("the speed of the worker"), "it was not measured: {text}");
}

#[test]
fn what_is_wrong_with_a_worker_is_told_before_it_measures_itself() {
    let (home, pair) = (tempfile::tempdir().unwrap(), Pair::start());
    for (flags, parts) in [
        (["--listen", "nonsense:x"], ["nonsense:x", "no address"]),
        (["--listen", &pair.address], [pair.address.as_str(), "cannot listen"]),
        (["--device", "Foo9"], ["Foo9", "hypura doctor"]),
    ] {
        finish(at(home.path()).arg("worker").args(flags)).assert_error(1, &parts);
    }
}

#[test]
fn a_worker_that_is_named_twice_is_one() {
    let pair = Pair::start();
    let flags = ["--worker", &pair.address, "--worker", &pair.address, "--gpu-layers", "2"];
    let (stats, _) = pair.stats(&flags);
    assert_eq!(stats["workers"].as_array().unwrap().len(), 1, "{stats}");
}

#[test]
fn a_worker_whose_threads_follow_the_machine_gives_an_answer() {
    // Without a fixed number of threads, and without a folder for weights.
    let pair = Pair::start_as(&[], "127.0.0.1:0", "{}", &["--memory", "1GiB", "--cache", "0"]);
    let flags = ["--worker", &pair.address, "--gpu-layers", "3", "--temperature", "0", "-n", "64"];
    let alone = pair.stats_of(&["--temperature", "0", "-n", "64", "--residency", "resident"]).0;
    let (together, _) = pair.stats_of(&[&flags[..], &["--residency", "resident"]].concat());
    assert_eq!(alone["token_ids"], together["token_ids"]);
}

#[test]
fn a_gpu_that_is_named_beside_workers_is_refused_with_the_reason() {
    let pair = Pair::start();
    let mut command = pair.command(&["--worker", &pair.address, "--device", "Vulkan0"]);
    finish(&mut command).assert_error(1, &["Vulkan0", "--worker", "leave one of the two out"]);
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

    /// Two ends of a cable, the far one in a network of its own; gone with its test.
    struct Cable {
        network: String,
        near: String,
    }

    impl Cable {
        const FAR: &str = "10.77.77.2";

        fn lay() -> Self {
            let id = std::process::id();
            let cable = Self { network: format!("hypura{id}"), near: format!("hyp{id}a") };
            let (network, near, far) = (&cable.network, &cable.near, format!("hyp{id}b"));
            run(&format!("ip netns add {network}"));
            run(&format!("ip link add {near} type veth peer name {far}"));
            run(&format!("ip link set {far} netns {network}"));
            run(&format!("ip addr add 10.77.77.1/30 dev {near}"));
            run(&format!("ip link set {near} up"));
            run(&format!("ip -n {network} addr add {}/30 dev {far}", Self::FAR));
            run(&format!("ip -n {network} link set {far} up"));
            cable
        }
    }

    impl Drop for Cable {
        fn drop(&mut self) {
            for command in [format!("ip link del {}", self.near), format!("ip netns del {}", self.network)] {
                let mut words = command.split(' ');
                let _ = Command::new(words.next().unwrap()).args(words).status();
            }
        }
    }

    fn run(command: &str) {
        let mut words = command.split(' ');
        let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
        assert!(status.success(), "{command}");
    }

    #[test]
    #[ignore = "#19: needs root, iproute2 and network namespaces"]
    fn a_narrow_link_is_measured_and_one_that_is_cut_ends_a_run_in_time() {
        let cable = Cable::lay();
        let far = format!("{}:11499", Cable::FAR);
        let pair = Pair::start_by(&["ip", "netns", "exec", &cable.network], &far);
        run(&format!("tc qdisc add dev {} root tbf rate 100mbit burst 64k latency 50ms", cable.near));
        let listed =
            finish(at(pair.here.path()).args(["workers", "--worker", &pair.address])).assert_success();
        let rate = listed.stdout.lines().find(|line| line.contains(&pair.address)).unwrap().to_owned();
        let words: Vec<&str> = rate.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "MB/s").unwrap();
        let rate: f64 = words[at - 1].parse().unwrap();
        assert!((7.0..14.0).contains(&rate), "{words:?}");
        let flags =
            ["-n", "3000", "--ignore-eos", "--ctx", "4096", "--gpu-layers", "2", "--worker", &pair.address];
        let mut child = pair.command(&flags).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(4));
        assert!(child.try_wait().unwrap().is_none(), "it computes");
        run(&format!("ip link set {} down", cable.near));
        let start = Instant::now();
        let code = wait(&mut child);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let finished = Finished::of(child.wait_with_output().unwrap());
        let last = finished.stderr.lines().last().unwrap_or_default();
        assert!(code == Some(1) && last.contains("was lost"), "{finished:?}");
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
        let told = server.get("/api/ps");
        let worker = &told["models"][0]["hypura"]["workers"][0];
        assert_eq!((&worker["name"], &worker["layers"]), (&json!(pair.address), &json!([4, 5])), "{told}");
        assert_eq!(told["models"][0]["size_vram"], 0, "another machine is no GPU: {told}");
        let metrics = server.text("/metrics");
        let line = format!("hypura_worker_layers{{model=\"demo:latest\",worker=\"{}\"}} 2", pair.address);
        assert!(metrics.contains(&line), "{metrics}");
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
