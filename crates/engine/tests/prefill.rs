//! What a prompt reads: every weight that it touches and that is not in memory once per ubatch, and no more.
//! Bytes are counted, nothing is timed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{TinyModel, forced_run, least_bytes, session, settings, streaming, tiny};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::session::Session;
use hypura_engine::stream::{Prefetch, StreamStats};

/// Bytes read may exceed the weights by this share: reads are of whole pages.
const PAGES: f64 = 1.05;

/// Experts of 34 pages in each part, so that the pages around them are less than 3% of them.
fn model() -> TinyModel {
    tiny(Shape::TinyMixtral, Quant::Q8_0, 1)
}

fn opened(model: &TinyModel, prompt: u32, ubatch: u32, percent: f64) -> Session {
    let context = prompt + 16;
    session(
        &model.path,
        streaming(percent).with_context(context).with_ubatch(ubatch).with_prefetch(Prefetch::Off),
    )
}

fn prompt(session: &mut Session, tokens: u32) -> StreamStats {
    session.clear();
    forced_run(session, tokens as usize, 1).unwrap().prefill_stats
}

fn expert_bytes(session: &Session) -> u64 {
    session.loaded().planned.source.shape.expert_layers[0].expert_bytes()
}

/// Experts in all layers together.
const EXPERTS: u64 = 8 * 4;

#[test]
fn a_prompt_reads_what_it_touches_once() {
    let model = model();
    for (tokens, percent) in
        [(32, 0.0), (32, 40.0), (128, 0.0), (128, 40.0), (512, 40.0), (2048, 0.0), (2048, 40.0), (4080, 40.0)]
    {
        let mut session = opened(&model, tokens, tokens, percent);
        let bytes = expert_bytes(&session);
        // The second prompt finds experts of the first in memory.
        for round in 0..2 {
            let stats = prompt(&mut session, tokens);
            let lookups = stats.lookups();
            let what = format!("{tokens} tokens, {percent}%, round {round}: {stats:?}");
            assert!(lookups.hits + lookups.misses <= EXPERTS, "one lookup for each expert: {what}");
            assert_eq!(lookups.hits > 0, round == 1 && percent > 0.0, "{what}");
            let touched = (lookups.misses * bytes) as f64;
            let read = stats.bytes_read as f64;
            assert!(touched <= read && read <= PAGES * touched, "{} {what}", read / touched);
        }
    }
}

#[test]
fn a_prompt_of_several_ubatches_is_one_pass_for_each() {
    let model = model();
    for percent in [0.0, 40.0] {
        let mut session = opened(&model, 1024, 256, percent);
        let bytes = expert_bytes(&session);
        let stats = prompt(&mut session, 1024);
        let read = stats.bytes_read as f64;
        assert!(stats.lookups().hits + stats.lookups().misses <= 4 * EXPERTS, "{stats:?}");
        assert!(read <= PAGES * (stats.lookups().misses * bytes) as f64, "{stats:?}");
        assert!(read <= PAGES * (4 * EXPERTS * bytes) as f64, "{stats:?}");
    }
}

#[test]
fn dense_weights_that_stream_are_read_once_for_each_ubatch() {
    let model = tiny(Shape::TinyMixtral, Quant::Q8_0, 1);
    let asked = settings(Residency::Stream).with_context(528).with_ubatch(256).with_prefetch(Prefetch::Off);
    let budget_bytes = least_bytes(&model.path, &asked);
    let mut session = session(&model.path, asked.with_budget_bytes(budget_bytes));
    let planned = &session.loaded().planned;
    let (weights, dense) = (
        planned.plan.streamed_dense().len() as u64,
        planned.plan.streamed_dense_bytes(&planned.source.shape),
    );
    let bytes = expert_bytes(&session);
    let stats = prompt(&mut session, 512);
    assert_eq!(stats.dense_weights, 2 * weights, "{stats:?}");
    // The ring reads ahead into the next ubatch: three weights at most.
    let most = stats.lookups().misses * bytes + 2 * dense + 3 * dense / weights * 4;
    assert!(stats.bytes_read as f64 <= 1.1 * most as f64, "{stats:?} {most}");
}
