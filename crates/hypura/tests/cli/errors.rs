//! Bad input: one line that names the thing, the cause and the way out; 1 for runtime errors, 2 for wrong
//! usage.

use crate::kit::{Finished, demo, finish, hypura, model, run, wait};
use hypura_core::gguf::{HeaderBuilder, read_header};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const SOME_TOKENS: [&str; 4] = ["-n", "4", "--threads", "1"];

fn run_file(path: &Path) -> Finished {
    run([Path::new("run"), path, Path::new("hi")])
}

fn run_bytes(bytes: &[u8]) -> (Finished, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.gguf");
    fs::write(&path, bytes).unwrap();
    (run_file(&path), path.display().to_string())
}

#[test]
fn a_file_that_is_no_gguf() {
    let (finished, path) = run_bytes(&[b'x'; 5000]);
    finished.assert_error(1, &[&path, "not a GGUF file"]);
}

#[test]
fn an_empty_file() {
    let (finished, path) = run_bytes(b"");
    finished.assert_error(1, &[&path, "truncated"]);
}

#[test]
fn a_truncated_header() {
    let (finished, path) = run_bytes(&fs::read(demo()).unwrap()[..1000]);
    finished.assert_error(1, &[&path, "truncated", "download it again"]);
}

#[test]
fn truncated_weights() {
    let bytes = fs::read(demo()).unwrap();
    let (finished, path) = run_bytes(&bytes[..bytes.len() / 2]);
    finished.assert_error(1, &[&path, "tensor", "download it again"]);
}

/// Offsets of the counts in a GGUF header: magic and version come first, four bytes each.
const TENSOR_COUNT_AT: usize = 8;
const KEY_COUNT_AT: usize = 16;
/// Length of the first key.
const FIRST_KEY_AT: usize = 24;

#[test]
fn lying_lengths() {
    for at in [TENSOR_COUNT_AT, KEY_COUNT_AT, FIRST_KEY_AT] {
        for lie in [u64::MAX, u64::MAX / 2, 1 << 40] {
            let mut bytes = fs::read(demo()).unwrap();
            bytes[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            let (finished, path) = run_bytes(&bytes);
            finished.assert_error(1, &[&path]);
        }
    }
}

#[test]
fn an_unknown_architecture() {
    let mut bytes = fs::read(demo()).unwrap();
    for at in 0..100_000 {
        if bytes[at..].starts_with(b"qwen3moe") {
            bytes[at..at + 8].copy_from_slice(b"qwen9moe");
        }
    }
    let (finished, path) = run_bytes(&bytes);
    finished.assert_error(1, &[&path, "unknown model architecture", "qwen9moe"]);
}

#[test]
fn a_missing_file_is_told_before_an_empty_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.gguf");
    let path = path.to_str().unwrap();
    // Standard input is empty here.
    for flags in [&[][..], &["--image", "x.png"], &["--stats-json", "/not/there/x.json"]] {
        run([&["run", path], flags].concat()).assert_error(1, &[path, "No such file"]);
    }
}

/// The header of a model whose metadata name a pooling, over weights that nobody reads.
fn embedder(folder: &Path) -> PathBuf {
    let plan = SynthPlan::new(&SynthOptions::new(Shape::TinyQwen2, Quant::Q4_K)).unwrap();
    let shard = &plan.shards()[0];
    let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
    let mut builder = HeaderBuilder::new();
    for (key, value) in header.metadata.iter() {
        builder.set(key, value.clone());
    }
    builder.set("qwen2.pooling_type", 3_u32);
    for tensor in &header.tensors {
        builder.tensor(&tensor.name, &tensor.shape, tensor.ty);
    }
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    bytes.resize(layout.file_bytes as usize, 0);
    let path = folder.join("embedder.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_model_for_embeddings_says_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = embedder(folder.path());
    run_file(&path).assert_error(1, &[path.to_str().unwrap(), "embeddings", "/api/embed"]);
    let path = path.to_str().unwrap();
    run(["bench", path, "--against", "none", "--no-predict"]).assert_error(1, &[path, "embeddings"]);
}

#[test]
fn a_shard_under_another_name_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = model(folder.path(), Shape::TinyMixtral, 2);
    let second = PathBuf::from(first.to_str().unwrap().replace("-00001-of", "-00002-of"));
    let renamed = folder.path().join("mixtral.gguf");
    fs::copy(&first, &renamed).unwrap();
    run_file(&renamed)
        .assert_error(1, &[renamed.to_str().unwrap(), "shard 1 of 2", "mixtral-00001-of-00002.gguf"]);
    fs::copy(&first, &second).unwrap();
    run_file(&first).assert_error(1, &[second.to_str().unwrap(), "shard 1 of 2", "-00001-of-00002.gguf"]);
}

#[test]
fn a_missing_shard() {
    let folder = tempfile::tempdir().unwrap();
    let first = model(folder.path(), Shape::TinyMixtral, 2);
    let second = PathBuf::from(first.to_str().unwrap().replace("-00001-of", "-00002-of"));
    fs::remove_file(&second).unwrap();
    run_file(&first).assert_error(1, &[second.to_str().unwrap(), "No such file"]);
}

/// A file that may not be read. Root may read everything, so the program runs as nobody where the tests run
/// as root.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    permit(folder.path(), 0o755);
    let path = folder.path().join("secret.gguf");
    fs::copy(demo(), &path).unwrap();
    permit(&path, 0o000);
    // The program itself may lie where nobody may go.
    let program = folder.path().join("hypura");
    fs::copy(env!("CARGO_BIN_EXE_hypura"), &program).unwrap();
    permit(&program, 0o755);
    let mut command = std::process::Command::new(&program);
    command.env("HYPURA_HOST", "127.0.0.1:1").env("HOME", folder.path()).stdin(Stdio::null());
    if folder.path().metadata().unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let finished = finish(command.current_dir(folder.path()).arg("run").arg(&path).arg("hi"));
    finished.assert_error(1, &[path.to_str().unwrap(), "Permission denied"]);
}

#[test]
fn a_file_that_is_not_there_or_not_a_file() {
    run_file(Path::new("no-such.gguf")).assert_error(1, &["no-such.gguf", "No such file"]);
    let folder = tempfile::tempdir().unwrap();
    run_file(folder.path()).assert_error(1, &[folder.path().to_str().unwrap(), "not a regular file"]);
}

#[test]
fn no_demo_where_it_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let finished = finish(hypura().args(["run", "demo", "hi"]).env("HYPURA_DEMO", folder.path()));
    finished.assert_error(1, &["demo", folder.path().to_str().unwrap(), "HYPURA_DEMO"]);
}

#[test]
fn a_budget_below_the_floor_is_told_the_floor_which_works() {
    let finished = run(["run", "demo", "hi", "--memory", "20MiB"]);
    finished.assert_error(1, &["needs at least", "20.00 MiB", "--memory", "--ctx"]);
    let floor = finished.stderr.split("at least ").nth(1).unwrap().split(" MiB").next().unwrap();
    let enough = format!("{}MiB", floor.parse::<f64>().unwrap() + 0.01);
    let too_little = format!("{}MiB", floor.parse::<f64>().unwrap() - 0.02);
    run(["run", "demo", "hi", "--memory", &enough].iter().chain(&SOME_TOKENS)).assert_success();
    run(["run", "demo", "hi", "--memory", &too_little]).assert_error(1, &["needs at least"]);
}

#[test]
fn a_context_too_long_for_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let path = path.to_str().unwrap();
    let memory = ["run", path, "hi", "--memory", "60MiB", "--ctx"];
    run(memory.iter().chain(&["64"]).chain(&SOME_TOKENS)).assert_success();
    run(memory.iter().chain(&["4096"]))
        .assert_error(1, &["needs at least", "60.00 MiB", "shorter context (--ctx)"]);
}

#[test]
fn all_in_memory_that_does_not_fit() {
    run(["run", "demo", "hi", "--memory", "95MiB", "--residency", "resident"])
        .assert_error(1, &["--residency resident needs", "95.00 MiB", "leave it out"]);
}

#[test]
fn a_prompt_longer_than_the_context() {
    let long = "word ".repeat(400);
    run(["run", "demo", &long, "--ctx", "256"])
        .assert_error(1, &["prompt has", "the context holds 256", "shorten it or raise --ctx"]);
}

#[test]
fn an_empty_prompt() {
    run(["run", "demo", ""]).assert_error(1, &["the prompt is empty"]);
    run(["run", "demo", " \n"]).assert_error(1, &["the prompt is empty"]);
    // Standard input is empty here.
    run(["run", "demo"]).assert_error(1, &["the prompt is empty"]);
}

#[test]
fn a_prompt_that_is_no_text() {
    let mut child = hypura()
        .args(["run", "demo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\xff\xfe\x00").unwrap();
    Finished::of(child.wait_with_output().unwrap()).assert_error(1, &["standard input", "not UTF-8"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let cases: [(&[&str], &str); 11] = [
        (&["run"], "<MODEL>"),
        (&["runn", "demo"], "runn"),
        (&["run", "demo", "hi", "--no-such-flag"], "--no-such-flag"),
        (&["run", "demo", "hi", "--memory", "8XiB"], "8GiB"),
        (&["run", "demo", "hi", "--memory", "0"], "--memory"),
        (&["run", "demo", "hi", "--stream-cache", "101%"], "100%"),
        (&["run", "demo", "hi", "--residency", "maybe"], "auto, resident, stream"),
        (&["run", "demo", "hi", "--ctx", "0"], "--ctx"),
        (&["run", "demo", "hi", "--top-p", "1.5"], "between 0 and 1"),
        (&["run", "demo", "hi", "--residency", "resident", "--stream-cache", "10%"], "--stream-cache"),
        (&["synth", "no-such-shape", "--out", "x.gguf"], "tiny-mixtral"),
    ];
    for (arguments, part) in cases {
        run(arguments).assert_error(2, &[part]);
    }
    assert_eq!(run::<&str>([]).code, Some(2), "no command at all");
}

#[test]
fn statistics_that_cannot_be_written_are_refused_before_loading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let finished = run(["run", "demo", "hi", "--stats-json", path]);
    finished.assert_error(1, &["cannot write the statistics", path]);
    assert_eq!(finished.stdout, "");
}

#[test]
fn a_file_that_shrinks_while_running_ends_the_generation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shrinking.gguf");
    fs::copy(demo(), &path).unwrap();
    let flags = ["--residency", "stream", "--stream-cache", "5%", "--ignore-eos", "--temperature", "0"];
    let mut child = hypura()
        .arg("run")
        .arg(&path)
        .arg("What is a lynx?")
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // The first text: everything is loaded, and almost every expert is still to be read, again and again.
    stdout.read_exact(&mut [0]).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    assert_eq!(wait(&mut child), Some(1));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains(path.to_str().unwrap()), "{stderr}");
    // A read that meets the new end, or one of before whose file is looked at after it.
    let read = stderr.contains("ends early") && stderr.contains("offset");
    assert!(read || stderr.contains("was changed while it was in use"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[cfg(target_os = "linux")]
mod uring {
    use super::*;

    const EPERM: &str = "1";

    fn refused(flags: &[&str]) -> Finished {
        let mut command = hypura();
        command.args(["run", "demo", "hi", "--residency", "stream"]).args(SOME_TOKENS).args(flags);
        finish(command.args(["--simulate-uring-refusal", EPERM]))
    }

    #[test]
    fn refused_falls_back_to_pread_and_is_told_once_to_who_asks() {
        let verbose = refused(&["--verbose"]).assert_success();
        assert_eq!(verbose.stderr.matches("io_uring was refused").count(), 1, "{verbose:?}");
        assert!(verbose.stderr.contains("reader       pread"), "{verbose:?}");
        let quiet = refused(&[]).assert_success();
        assert!(!quiet.stderr.contains("io_uring"), "{quiet:?}");
    }

    #[test]
    fn refused_and_insisted_on_is_an_error() {
        refused(&["--reader", "uring"]).assert_error(1, &["io_uring was refused", "--reader pread"]);
    }
}

#[test]
fn a_full_output_device_is_told() {
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let mut command = hypura();
        command.args(["run", "demo", "hi"]).args(SOME_TOKENS).stdout(full).stderr(Stdio::piped());
        let finished = Finished::of(command.output().unwrap());
        finished.assert_error(1, &["cannot write", "No space left"]);
    }
}
