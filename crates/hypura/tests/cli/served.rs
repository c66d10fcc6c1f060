//! The program over a real server of ours, with a model that is small and real.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

use super::kit::{Finished, demo, finish, hypura, interrupt, wait};

/// A server on a free port, with a home of its own. SIGINT lets it end.
struct Serving {
    home: TempDir,
    address: String,
    child: Child,
}

impl Serving {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = at_home(&home);
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--memory", "1GiB"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
        Self { home, address, child }
    }

    fn get(&self, path: &str) -> Value {
        let text = ureq::get(format!("http://{}{path}", self.address)).call().unwrap();
        serde_json::from_str(&text.into_body().read_to_string().unwrap()).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let text = ureq::post(format!("http://{}{path}", self.address)).send(body.to_string()).unwrap();
        serde_json::from_str(&text.into_body().read_to_string().unwrap()).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(at_home(&self.home).env("HYPURA_HOST", &self.address).args(arguments))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        interrupt(&self.child);
        wait(&mut self.child);
    }
}

/// The program with an empty home and the demo model.
fn at_home(home: &TempDir) -> Command {
    let mut command = hypura();
    for name in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME", "OLLAMA_HOST"]
    {
        command.env_remove(name);
    }
    command.env("HOME", home.path()).env("HYPURA_MODELS", home.path().join("own")).env("HYPURA_DEMO", demo());
    command
}

#[test]
fn a_model_is_loaded_by_the_server_and_shared_by_commands() {
    let server = Serving::start();
    assert!(server.run(&["list"]).assert_success().stdout.contains("demo:latest"));
    assert_eq!(server.run(&["ps"]).assert_success().stdout.lines().count(), 1, "nothing is loaded yet");

    let flags = ["What is a lynx?", "-n", "12", "--temperature", "0"];
    let there = server.run(&[&["run", "demo"][..], &flags].concat()).assert_success();
    assert!(there.stderr.contains("12 tokens"), "{}", there.stderr);
    let ps: Value = serde_json::from_str(&server.run(&["ps", "--json"]).assert_success().stdout).unwrap();
    assert_eq!(ps["models"][0]["name"], "demo:latest");
    // The same model by the path of its file: known by its digest, so it is not loaded again.
    let path = demo();
    let by_path = server.run(&[&["run", path.to_str().unwrap()][..], &flags].concat()).assert_success();
    assert_eq!(by_path.stdout, there.stdout);
    let here = server.run(&[&["run", "demo", "--local"][..], &flags].concat()).assert_success();
    assert_eq!(here.stdout, there.stdout, "the same text without the server");

    let table = server.run(&["ps"]).assert_success().stdout;
    assert!(table.contains("demo:latest") && table.contains("100% CPU") && table.contains("RAM "), "{table}");
    server.run(&["stop", "demo"]).assert_success();
    assert_eq!(server.run(&["ps"]).assert_success().stdout.lines().count(), 1, "unloaded");
}

#[test]
fn options_the_context_grows_without_another_load_and_ps_tells_the_truth() {
    let server = Serving::start();
    let ask = |num_ctx: u64| {
        let body = json!({"model": "demo", "prompt": "a", "stream": false, "options": {"num_predict": 1, "num_ctx": num_ctx}});
        let answer = server.post("/api/generate", &body);
        assert_eq!(answer["done"], true, "{answer}");
        let ps = server.get("/api/ps");
        let model = &ps["models"][0];
        (model["context_length"].as_u64().unwrap(), model["hypura"]["load_seconds"].as_f64().unwrap())
    };
    let trained = server.post("/api/show", &json!({"model": "demo"}));
    let info = &trained["model_info"];
    let architecture = info["general.architecture"].as_str().unwrap();
    let trained = info[&format!("{architecture}.context_length")].as_u64().unwrap();
    let (small, load) = ask(100);
    assert!((100..trained).contains(&small), "{small}");
    let wanted = small + 1;
    let (grown, same_load) = ask(wanted);
    assert!((wanted..=trained).contains(&grown), "{grown}");
    assert!((load - same_load).abs() < f64::EPSILON, "loaded again: {load} s, {same_load} s");
    assert_eq!(ask(100), (grown, load), "it never shrinks");
    let (most, same_load) = ask(100 * trained);
    assert!((grown..=trained).contains(&most), "{most}: never beyond its training");
    assert!((load - same_load).abs() < f64::EPSILON);
}

#[test]
fn models_are_made_and_removed_over_the_server() {
    let server = Serving::start();
    let modelfile = server.home.path().join("Modelfile");
    std::fs::write(&modelfile, "FROM demo\nSYSTEM Be brief.\nPARAMETER num_predict 2\n").unwrap();
    let create = server.run(&["create", "brief", "-f", modelfile.to_str().unwrap()]).assert_success();
    assert!(create.stderr.contains("success"), "{}", create.stderr);
    assert_eq!(server.run(&["show", "brief", "--system"]).assert_success().stdout, "Be brief.\n");
    // From a file: linked into the store that server and commands share.
    std::fs::write(&modelfile, format!("FROM {}\n", demo().display())).unwrap();
    server.run(&["create", "file", "-f", modelfile.to_str().unwrap()]).assert_success();
    server.run(&["cp", "brief", "short"]).assert_success();
    server.run(&["rm", "brief"]).assert_success();
    let list = server.run(&["list"]).assert_success().stdout;
    assert!(
        list.contains("short:latest") && list.contains("file:latest") && !list.contains("brief"),
        "{list}"
    );
    server.run(&["rm", "brief"]).assert_error(1, &["model 'brief' not found"]);
    server.run(&["rm", "demo"]).assert_error(1, &["belongs to"]);
}
