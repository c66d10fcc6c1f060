//! Models with recurrent state: what is remembered of them in memory and on disk, and what that may take.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::mamba::mamba;
use common::serve::{ask, greedy, runner_with, settled};
use common::{demo_path, settings, tokens};
use hypura_core::plan::Residency;
use hypura_engine::load::prepare;
use hypura_engine::request::Options;
use hypura_engine::serve::RunnerSettings;
use hypura_engine::source::ModelSource;
use std::path::{Path, PathBuf};

fn mamba_of_demo(folder: &Path) -> PathBuf {
    let demo = ModelSource::open(&demo_path()).unwrap();
    mamba(folder, &demo.metadata, demo.shape.vocab)
}

#[test]
fn recurrent_state_goes_to_disk_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let model = mamba_of_demo(folder.path());
    let start = |kv_cache_dir: Option<PathBuf>| {
        let settings = settings(Residency::Resident).with_context(512);
        runner_with(&model, settings, 1, RunnerSettings { kv_cache_dir, ..RunnerSettings::default() })
    };
    let kept = folder.path().join("kept");
    let options = Options { ignore_end: true, max_tokens: Some(16), ..greedy() };
    let first = start(Some(kept.clone()));
    let prompt = tokens(100, 400);
    let (_, finished) = ask(&first, prompt.clone(), options.clone());
    first.stop(true);
    let mut second = prompt;
    // The last token was never computed.
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(4, 300));
    let again = start(Some(kept));
    let (_, back) = ask(&again, second.clone(), options.clone());
    assert!(back.reused_tokens >= 115, "{}", back.reused_tokens);
    let (_, afresh) = ask(&start(None), second, options);
    assert_eq!(afresh.reused_tokens, 0);
    assert_eq!(back.tokens, afresh.tokens, "the state means the same");
}

#[test]
fn recurrent_state_of_remembered_conversations_takes_a_small_part_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let model = mamba_of_demo(folder.path());
    let plan = |idle_sequences| {
        let settings = settings(Residency::Resident).with_idle_sequences(idle_sequences);
        prepare(ModelSource::open(&model).unwrap(), settings).unwrap()
    };
    let (bare, wished) = (plan(0), plan(200));
    let more = wished.plan.total_bytes() - bare.plan.total_bytes();
    assert!(wished.plan.context.idle_sequences < 200, "{}", wished.plan.context.idle_sequences);
    assert!(more <= bare.source.file_bytes() / 50, "{more} of {}", bare.source.file_bytes());
    let runner =
        runner_with(&model, settings(Residency::Resident).with_context(256), 1, RunnerSettings::default());
    let (_, finished) = ask(&runner, tokens(40, 300), greedy());
    let mut second = tokens(40, 300);
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(3, 200));
    let (_, again) = ask(&runner, second.clone(), greedy());
    assert!(again.reused_tokens + 4 >= second.len(), "{} of {}", again.reused_tokens, second.len());
    // A part of a state is of no use.
    let (_, other) = ask(&runner, tokens(30, 300), greedy());
    assert_eq!(other.reused_tokens, 0);
    assert_eq!(settled(&runner).held.pins, 0);
}
