//! llama.cpp alone gives what Hypura gives when a model fits, and is not to be had in a process whose device
//! is ours.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{session, settings, tiny};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::baseline::{Baseline, Experts, Weights};
use hypura_engine::session::GenerateOptions;
use hypura_engine::{SamplerOptions, Token};

/// What the model says after the prompt, the likeliest token each time.
fn greedy(model: &mut Baseline, prompt: &[Token], count: usize) -> Vec<Token> {
    model.prefill(prompt).unwrap();
    let mut chosen = Vec::new();
    loop {
        let logits = model.logits().unwrap();
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        chosen.push(Token::try_from(best).unwrap());
        if chosen.len() == count {
            return chosen;
        }
        model.decode(chosen[chosen.len() - 1], prompt.len() + chosen.len() - 1).unwrap();
    }
}

// One test, because a decorated device stays decorated.
#[test]
fn the_baseline_is_llama_cpp_alone() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let settings = settings(Residency::Auto).with_poison(false);
    let prompt = common::tokens(40, 200);
    let mut alone = Baseline::open(&model.path, &settings, Weights::Read, Experts::OnGpu).unwrap();
    assert!(alone.vocab_size() > 200);
    let said = greedy(&mut alone, &prompt, 12);
    let options = GenerateOptions {
        max_tokens: Some(12),
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let mut mapped = Baseline::open(&model.path, &settings, Weights::Mapped, Experts::OnGpu).unwrap();
    mapped.prefill(&prompt).unwrap();
    let mut ours = session(&model.path, settings.clone());
    assert_eq!(ours.generate(&prompt, &options, &mut |_| Ok(())).unwrap().tokens, said);
    // Planning has measured, with decorated devices.
    let refused = Baseline::open(&model.path, &settings, Weights::Read, Experts::OnGpu).err().unwrap();
    assert!(refused.to_string().contains("decorated"), "{refused}");
}
