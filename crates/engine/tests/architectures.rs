//! Every architecture with routed experts or tables that llama.cpp knows and that a tiny model can be made
//! of: streamed, with experts and tables on the disk, it gives the bits of the resident run. `docs/models.md`
//! has the list.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::archs::tiny_of;
use common::{forced_run, session, settings};
use hypura_core::plan::{CacheSize, Residency};
use hypura_engine::load::LoadSettings;
use std::path::Path;

/// A test for each architecture, named as in `general.architecture`.
macro_rules! architectures {
    ($($name:ident: $arch:literal)*) => {
        $(
            #[test]
            fn $name() {
                check($arch);
            }
        )*
    };
}

fn logits(path: &Path, settings: LoadSettings) -> (String, u64) {
    let mut session = session(path, settings);
    let outcome = forced_run(&mut session, 40, 8).unwrap();
    let stats = [outcome.prefill_stats, outcome.decode_stats];
    (outcome.logits_hash.unwrap().to_string(), stats.iter().map(|stats| stats.bytes_read).sum())
}

fn check(arch: &str) {
    let model = tiny_of(arch);
    let (resident, _) = logits(&model.path, settings(Residency::Resident));
    for percent in [0.0, 40.0] {
        let asked = settings(Residency::Stream).with_cache(Some(CacheSize::Percent(percent)));
        let (streamed, read) = logits(&model.path, asked.with_tables(Residency::Stream));
        assert!(streamed == resident && read > 0, "{arch}, {percent}%: {streamed} {resident}, {read} bytes");
    }
}

architectures! {
    afmoe: "afmoe"
    arctic: "arctic"
    bailingmoe: "bailingmoe"
    bailingmoe2: "bailingmoe2"
    bailingmoe3: "bailingmoe3"
    beam: "beam"
    cohere2moe: "cohere2moe"
    dbrx: "dbrx"
    deepseek: "deepseek"
    deepseek2: "deepseek2"
    deepseek32: "deepseek32"
    deepseek4: "deepseek4"
    deepseek41: "deepseek41"
    dots1: "dots1"
    dots3note: "dots3note"
    ernie4_5_moe: "ernie4_5-moe"
    exaone_moe: "exaone-moe"
    flint: "flint"
    gemma3n: "gemma3n"
    gemma4: "gemma4"
    glm_dsa: "glm-dsa"
    glm4moe: "glm4moe"
    glm5_next: "glm5-next"
    gpt_oss: "gpt-oss"
    granite_swa: "granite_swa"
    granitehybrid: "granitehybrid"
    granitemoe: "granitemoe"
    grok: "grok"
    grovemoe: "grovemoe"
    hunyuan_moe: "hunyuan-moe"
    hy_v3: "hy_v3"
    hy_v4: "hy_v4"
    jamba: "jamba"
    k2_horizon: "k2-horizon"
    kimi_k3: "kimi-k3"
    kimi_linear: "kimi-linear"
    kolibri1: "kolibri1"
    laguna: "laguna"
    lfm2moe: "lfm2moe"
    llada_moe: "llada-moe"
    llama: "llama"
    llama4: "llama4"
    maion_coder: "maion-coder"
    maple: "maple"
    mellum: "mellum"
    mimo2: "mimo2"
    minicpm: "minicpm"
    minimax_01: "minimax-01"
    minimax_m2: "minimax-m2"
    minimax_m3: "minimax-m3"
    mistral3: "mistral3"
    mistral4: "mistral4"
    mistral_large4: "mistral-large4"
    muse_spark: "muse-spark"
    nemotron_h_moe: "nemotron_h_moe"
    olmoe: "olmoe"
    phimoe: "phimoe"
    qwen2moe: "qwen2moe"
    qwen35moe: "qwen35moe"
    qwen3moe: "qwen3moe"
    qwen3next: "qwen3next"
    qwen3vlmoe: "qwen3vlmoe"
    qwen4exp: "qwen4exp"
    rnd1: "rnd1"
    smallthinker: "smallthinker"
    step35: "step35"
}
