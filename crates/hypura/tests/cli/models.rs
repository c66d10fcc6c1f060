//! Commands over models by name, directly on the stores, and the program's words for shells and manuals.

use hypura_core::synth::Shape;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

use super::kit::{Finished, finish, hypura, model};

/// A home with a model of LM Studio in it, and nothing else.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        let folder = home.path().join(".lmstudio/models/someone/Tiny-GGUF");
        fs::create_dir_all(&folder).unwrap();
        let file = model(&folder, Shape::TinyMixtral, 1);
        fs::rename(file, folder.join("tiny-Q4_K_M.gguf")).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self) -> Command {
        let mut command = hypura();
        for name in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path())
            .env("HYPURA_MODELS", self.path().join("own"))
            .env("HYPURA_DEMO", "/nowhere");
        command
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Finished {
        finish(self.command().args(arguments))
    }
}

const TINY: &str = "someone/Tiny-GGUF:Q4_K_M";

#[test]
fn a_model_in_full_precision_is_quantised_when_it_is_made() {
    let home = Home::new();
    let at = |name: &str| home.path().join(name).display().to_string();
    home.run(["synth", "tiny-mixtral", "--quant", "f16", "--out", &at("full.gguf")]).assert_success();
    fs::write(at("Modelfile"), "FROM ./full.gguf\nDRAFT ./full.gguf\nSYSTEM hi").unwrap();
    let made = home.run(["create", "small", "-f", &at("Modelfile"), "-q", "q8_0"]).assert_success();
    for part in ["quantizing F16 model to Q8_0", "success"] {
        assert!(made.stderr.contains(part), "{part:?} is not in {}", made.stderr);
    }
    let show = home.run(["show", "small"]).assert_success().stdout;
    assert!(show.contains("Q8_0"), "{show}");
    let stats = home
        .run([
            "run",
            "small",
            "hi",
            "-n",
            "9",
            "--memory",
            "1GiB",
            "--ignore-eos",
            "--draft-fixed=2",
            "--stats-json=-",
        ])
        .assert_success();
    assert!(stats.stdout.contains("\"proposed\": "), "it drafts: {}", stats.stdout);
    assert_eq!(fs::read_dir(home.path().join("own/incoming")).unwrap().count(), 0);
    // What is quantised would only get worse, and some types need what we do not have.
    fs::write(at("Again"), "FROM small").unwrap();
    let error = |arguments: &[&str], part: &str| home.run(arguments).assert_error(1, &[part]);
    error(&["create", "x", "-f", &at("Again"), "-q", "Q4_0"], "only supported for F16 and F32");
    fs::write(at("Full"), "FROM ./full.gguf").unwrap();
    error(&["create", "x", "-f", &at("Full"), "-q", "IQ2_XXS"], "unsupported quantization type IQ2_XXS");
}

#[test]
fn a_list_has_names_and_sizes() {
    let home = Home::new();
    let list = home.run(["list"]).assert_success();
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "ID", "SIZE", "MODIFIED"]);
    assert!(lines[1].starts_with(TINY) && lines[1].ends_with("ago"), "{}", lines[1]);
    assert_eq!(home.run(["list", "nothing"]).assert_success().stdout.lines().count(), 1);
    let json: Value = serde_json::from_str(&home.run(["ls", "--json"]).assert_success().stdout).unwrap();
    assert_eq!(json["models"][0]["name"], TINY);
    assert_eq!(json["models"][0]["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn a_verbose_list_says_what_was_skipped_and_why() {
    let home = Home::new();
    fs::write(home.path().join(".lmstudio/models/someone/Tiny-GGUF/half-00001-of-00002.gguf"), "").unwrap();
    let list = home.run(["list", "--verbose"]).assert_success();
    assert!(list.stdout.contains("LM Studio"), "{}", list.stdout);
    assert!(list.stderr.contains("shard 2 of 2: it is missing"), "{}", list.stderr);
    assert!(!home.run(["list"]).assert_success().stderr.contains("skipped"));
}

#[test]
fn show_tells_all_or_a_part() {
    let home = Home::new();
    let show = home.run(["show", "someone/tiny-gguf"]).assert_success();
    for part in ["Model", "architecture", "llama", "context length", "Capabilities", "completion"] {
        assert!(show.stdout.contains(part), "{part} is not in {}", show.stdout);
    }
    let json: Value =
        serde_json::from_str(&home.run(["show", TINY, "--json"]).assert_success().stdout).unwrap();
    assert_eq!(json["model_info"]["general.architecture"], "llama");
    assert!(json["modified_at"].is_string() && json.get("tensors").is_none());
    let verbose = home.run(["show", TINY, "--json", "--verbose"]).assert_success();
    let verbose: Value = serde_json::from_str(&verbose.stdout).unwrap();
    assert!(verbose["tensors"].as_array().unwrap().len() > 3);
    let modelfile = home.run(["show", TINY, "--modelfile"]).assert_success();
    assert!(modelfile.stdout.contains(&format!("FROM {TINY}")), "{}", modelfile.stdout);
    home.run(["show", "absent"]).assert_error(1, &["model 'absent' not found"]);
    home.run(["show", TINY, "--system", "--license"]).assert_error(2, &["cannot be used with"]);
}

#[test]
fn a_modelfile_makes_a_model_that_runs_by_its_name() {
    let home = Home::new();
    let modelfile = home.path().join("Modelfile");
    let text = format!(
        "FROM {TINY}\nSYSTEM \"\"\"You are\nMario.\"\"\"\nPARAMETER temperature 0\nPARAMETER num_predict 3\nPARAMETER num_ctx 256\n"
    );
    fs::write(&modelfile, text).unwrap();
    let create =
        home.run([OsStr::new("create"), OsStr::new("mario"), OsStr::new("-f"), modelfile.as_os_str()]);
    assert!(create.assert_success().stderr.contains("success"));
    assert_eq!(home.run(["show", "mario", "--system"]).assert_success().stdout, "You are\nMario.\n");
    let parameters = home.run(["show", "mario", "--parameters"]).assert_success().stdout;
    assert!(parameters.contains("num_predict                    3"), "{parameters}");

    let stats = home.path().join("stats.json");
    let stats_of = |name: &str| -> Value {
        let arguments = [
            OsStr::new("run"),
            OsStr::new(name),
            OsStr::new("hi"),
            OsStr::new("--stats-json"),
            stats.as_os_str(),
        ];
        let mut command = home.command();
        command.args(arguments).args(["-n", "3", "--temperature", "0"]);
        finish(&mut command).assert_success();
        serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap()
    };
    let (mario, plain) = (stats_of("Mario"), stats_of(TINY));
    assert_eq!(mario["generated_tokens"], 3);
    let tokens = |stats: &Value| stats["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&mario) > tokens(&plain), "the system prompt is part of the prompt");

    home.run(["cp", "mario", "luigi"]).assert_success();
    home.run(["rm", "mario"]).assert_success();
    home.run(["run", "mario", "hi"]).assert_error(1, &["no model and no file called mario", "hypura list"]);
    assert_eq!(home.run(["show", "luigi", "--system"]).assert_success().stdout, "You are\nMario.\n");
    home.run(["rm", "luigi"]).assert_success();
    home.run(["rm", TINY]).assert_error(1, &["belongs to LM Studio"]);
}

#[test]
fn num_predict_of_a_modelfile_counts_without_a_flag() {
    let home = Home::new();
    let modelfile = home.path().join("Modelfile");
    fs::write(&modelfile, format!("FROM {TINY}\nPARAMETER num_predict 2\n")).unwrap();
    let mut create = home.command();
    finish(create.args(["create", "short", "-f"]).arg(&modelfile)).assert_success();
    let stats = home.path().join("stats.json");
    let mut run = home.command();
    finish(run.args(["run", "short", "hi", "--stats-json"]).arg(&stats)).assert_success();
    let stats: Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
    assert!(stats["generated_tokens"].as_u64().unwrap() <= 2, "{stats}");
}

#[test]
fn a_modelfile_names_a_file_beside_it() {
    let home = Home::new();
    let folder = home.path().join("work");
    fs::create_dir_all(&folder).unwrap();
    model(&folder, Shape::TinyLlama, 2);
    let first = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).min().unwrap();
    fs::write(folder.join("Modelfile"), format!("FROM ./{}\n", first.to_str().unwrap())).unwrap();
    let mut create = home.command();
    finish(create.args(["create", "two-shards"]).current_dir(&folder)).assert_success();
    fs::remove_dir_all(&folder).unwrap();
    // The weights are linked, and open as shards.
    home.run(["run", "two-shards", "hi", "-n", "1"]).assert_success();
}

#[test]
fn what_is_wrong_with_a_modelfile_is_told() {
    let home = Home::new();
    let modelfile = home.path().join("Modelfile");
    let create = |text: &str| {
        fs::write(&modelfile, text).unwrap();
        let mut command = home.command();
        finish(command.args(["create", "x", "-f"]).arg(&modelfile))
    };
    create("SYSTEM hi").assert_error(1, &["Modelfile", "no FROM line"]);
    create("FROM nothing").assert_error(1, &["model 'nothing' not found"]);
    create("FROM ./absent.gguf").assert_error(1, &["absent.gguf", "missing"]);
    create(&format!("FROM {TINY}\nTEMPLATE {{{{ html .Prompt }}}}"))
        .assert_error(1, &["template error: the function html", "Jinja"]);
    create("FROM x\nADAPTER ./a.gguf").assert_error(1, &["adapters are not supported"]);
}

#[test]
fn without_a_server_there_is_nothing_to_ask_it() {
    let home = Home::new();
    home.run(["ps"]).assert_error(1, &["no server runs at http://127.0.0.1:1", "hypura serve"]);
    home.run(["stop", "x"]).assert_error(1, &["no server runs"]);
}

#[test]
fn shells_learn_the_commands() {
    let home = Home::new();
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef hypura"), ("fish", "complete -c hypura")]
    {
        let text = home.run(["completions", shell]).assert_success().stdout;
        assert!(text.contains(part) && text.contains("create"), "{shell}");
    }
    home.run(["completions", "tcsh"]).assert_error(2, &["tcsh"]);
}

#[test]
fn every_command_has_a_page_in_the_manual() {
    let home = Home::new();
    let page = home.run(["man"]).assert_success().stdout;
    assert!(page.contains(".TH hypura 1") && page.contains("hypura\\-run"), "{page}");
    let folder = home.path().join("man");
    let mut man = home.command();
    finish(man.args(["man", "--dir"]).arg(&folder)).assert_success();
    for name in ["hypura.1", "hypura-run.1", "hypura-create.1", "hypura-list.1"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains(".SH OPTIONS"), "{name}");
    }
    assert!(!folder.join("hypura-bench-arm.1").exists(), "hidden commands have none");
}
