//! `hypura pull` and `hypura run` of models that are elsewhere.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;

use super::hub::{Hub, Model};
use super::{Home, files};

fn hypura(home: &Home, hub: &Hub, arguments: &[&str]) -> Output {
    command(home, hub, arguments).output().unwrap()
}

/// A command with empty stores, of a machine whose Hugging Face is `hub`.
fn command(home: &Home, hub: &Hub, arguments: &[&str]) -> Command {
    let folder = home.work.path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypura"));
    command.args(arguments).current_dir(folder).env("XDG_CACHE_HOME", home.cache.path());
    command.env("HYPURA_MODELS", folder.join("own")).env("HF_HUB_CACHE", folder.join("hub"));
    command.env("OLLAMA_MODELS", folder.join("ollama")).env("HOME", folder).env_remove("HF_TOKEN");
    command
        .env("HF_ENDPOINT", &hub.address)
        .env("HYPURA_HOST", "127.0.0.1:1")
        .env("NO_PROXY", "127.0.0.1,localhost");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A repository with one runnable model under two names, the second one in shards.
fn repository(hub: &Hub) -> Arc<Model> {
    let named =
        |tag: &str, (name, bytes): (String, Arc<Vec<u8>>)| (name.replacen('m', tag, 1), bytes.to_vec());
    let mut all: Vec<(String, Vec<u8>)> = files(1).into_iter().map(|file| named("m-Q8_0", file)).collect();
    all.extend(files(2).into_iter().map(|file| named("m-Q4_K_M", file)));
    hub.add("r", Model::new(all))
}

#[test]
fn a_pull_tells_the_plan_first_and_the_model_is_there_afterwards() {
    let (home, hub) = (Home::new(Some(2e9)), Hub::start());
    repository(&hub);
    let dry = hypura(&home, &hub, &["pull", "hf.co/o/r", "--dry-run", "--memory", "1GiB"]);
    let told = text(&dry.stdout);
    assert!(dry.status.success(), "{dry:?}");
    for part in
        ["m-Q4_K_M-00001-of-00002.gguf", "hf.co/o/r:Q4_K_M", "size", "disk", "mode", "tok/s", "first token"]
    {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let chosen = told.lines().find(|line| line.starts_with("Q4_K_M ")).unwrap();
    assert!(chosen.contains("this one") && told.lines().any(|line| line.starts_with("Q8_0 ")), "{told}");
    assert_eq!(told.matches("best here").count(), 1, "{told}");
    // Both headers were read: nothing is estimated.
    let other = told.lines().find(|line| line.starts_with("Q8_0 ")).unwrap();
    assert!(!told.contains('≈') && other.contains('.'), "{told}");
    assert!(!home.work.path().join("hub").exists(), "a dry run writes nothing");
    let pulled = hypura(&home, &hub, &["pull", "hf.co/o/r", "--memory", "1GiB"]);
    let said = text(&pulled.stderr);
    assert!(pulled.status.success() && said.contains("tok/s") && said.contains("success"), "{said}");
    let list = hypura(&home, &hub, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert!(
        list["models"].as_array().unwrap().iter().any(|model| model["name"] == "hf.co/o/r:Q4_K_M"),
        "{list}"
    );
    // It goes as it came.
    assert!(hypura(&home, &hub, &["rm", "hf.co/o/r:Q4_K_M"]).status.success());
    let left = text(&hypura(&home, &hub, &["list", "--json"]).stdout);
    assert!(!left.contains("hf.co/o/r"), "{left}");
    let blobs: PathBuf = home.work.path().join("hub/models--o--r/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn what_cannot_run_here_is_refused_unless_forced() {
    let (home, hub) = (Home::new(Some(2e9)), Hub::start());
    repository(&hub);
    let refused = hypura(&home, &hub, &["pull", "hf:o/r:Q8_0", "--memory", "1MiB"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("--force") && !home.work.path().join("hub").exists(), "{said}");
    let forced = hypura(&home, &hub, &["pull", "hf:o/r:Q8_0", "--memory", "1MiB", "--force"]);
    assert!(forced.status.success(), "{forced:?}");
}

#[test]
fn running_a_model_that_is_elsewhere_pulls_it() {
    let (home, hub) = (Home::new(Some(2e9)), Hub::start());
    repository(&hub);
    let run = ["run", "hf.co/o/r:Q8_0", "hi", "-n", "2", "--memory", "1GiB", "--raw", "--temperature", "0"];
    let first = hypura(&home, &hub, &run);
    let said = text(&first.stderr);
    assert!(first.status.success() && said.contains("pulling manifest"), "{said}");
    let second = hypura(&home, &hub, &run);
    assert!(second.status.success() && !text(&second.stderr).contains("pulling"), "{second:?}");
    assert_eq!(first.stdout, second.stdout);
    let missing = hypura(&home, &hub, &["run", "hf.co/o/other", "hi"]);
    let said = text(&missing.stderr);
    assert!(
        !missing.status.success() && said.contains("no model and no file called hf.co/o/other"),
        "{said}"
    );
}

#[test]
fn wrong_names_are_wrong_usage() {
    let (home, hub) = (Home::new(Some(2e9)), Hub::start());
    for name in ["hf:only-one-part", "a b"] {
        assert_eq!(hypura(&home, &hub, &["pull", name]).status.code(), Some(2), "{name}");
    }
}

#[test]
fn proxies_of_the_environment_count() {
    let (home, hub) = (Home::new(Some(2e9)), Hub::start());
    repository(&hub);
    let asked = |no_proxy: &str| {
        let mut command = command(&home, &hub, &["pull", "hf.co/o/r", "--dry-run", "--memory", "1GiB"]);
        // Nobody runs this one.
        command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", no_proxy).output().unwrap()
    };
    let refused = asked("example.org");
    assert!(!refused.status.success() && text(&refused.stderr).contains("cannot be reached"), "{refused:?}");
    assert!(asked("127.0.0.1,localhost").status.success());
}
