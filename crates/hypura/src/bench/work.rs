//! What arms compute, and what each of them did.

use hypura_engine::Token;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::snapshot::Phase;
use super::soak::Soak;
use super::tokens::RandomTokens;

/// What an arm computes; the same in every arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens decoded after it before the measurement begins.
    pub warmup: usize,
    /// Tokens decoded and measured.
    pub generate: usize,
    /// Seed of all tokens.
    pub seed: u64,
    /// After that, prompts of many lengths for so many seconds.
    #[serde(default)]
    pub soak_s: u64,
    /// Bytes of llama.cpp's own cache of experts on the GPU, in arms that have it.
    #[serde(default)]
    pub moe_cache_bytes: u64,
    /// Percent of the answer's tokens that repeat the prompt, in runs: an edit of a text.
    #[serde(default)]
    pub repeat_percent: u64,
}

/// What an arm did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmRun {
    /// How the model ran, as the plan names it.
    pub mode: String,
    /// Name of the reader; `None` when nothing was read by ours.
    pub reader: Option<String>,
    /// What the loader had to say.
    pub notes: Vec<String>,
    /// The budget; `None` for arms without one.
    pub budget_bytes: Option<u64>,
    /// What the plan expected to use; `None` for arms without a budget.
    pub planned_bytes: Option<u64>,
    /// Weights that can stream in this mode.
    pub streamable_bytes: u64,
    /// Their share with room in memory.
    pub cached_fraction: f64,
    /// Opening, planning and loading.
    pub load_ms: f64,
    /// Of that, opening and planning: no weights are read.
    #[serde(default)]
    pub prepare_ms: f64,
    /// Processor time of loading, in milliseconds.
    #[serde(default)]
    pub load_cpu_ms: Option<f64>,
    /// The prompt.
    pub prefill: Phase,
    /// The measured tokens.
    pub decode: Phase,
    /// Time of each measured token.
    pub token_ms: Vec<f64>,
    /// The largest resident set of the process (mapped pages of files included).
    pub peak_rss_bytes: Option<u64>,
    /// What came after the measured tokens, if anything.
    #[serde(default)]
    pub soak: Option<Soak>,
}

/// Tokens of an answer after which a run that repeats the prompt begins anew.
const RUN: u64 = 50;

impl Work {
    /// Positions that the context must hold: the last token's logits are never used, but it is decoded.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.prompt + self.warmup + self.generate + 1
    }

    /// Pseudo-random tokens, the same for the same seed and vocabulary.
    pub(super) fn tokens(&self, vocab: usize) -> Vec<Token> {
        let mut random = RandomTokens::new(self.seed);
        let mut tokens: Vec<Token> = (0..self.positions()).map(|_| random.token(vocab)).collect();
        for at in self.prompt..tokens.len() {
            let of_answer = at - self.prompt;
            if (of_answer as u64 % RUN) * 100 < self.repeat_percent * RUN {
                tokens[at] = tokens[of_answer % self.prompt.max(1)];
            }
        }
        tokens
    }
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let work = Work {
            prompt: 20,
            warmup: 3,
            generate: 40,
            seed: 7,
            soak_s: 0,
            moe_cache_bytes: 0,
            repeat_percent: 0,
        };
        let tokens = work.tokens(1000);
        assert_eq!(tokens.len(), 64);
        assert_eq!(tokens, work.tokens(1000));
        assert_ne!(tokens, Work { seed: 8, ..work }.tokens(1000));
        let longer = Work { generate: 50, ..work }.tokens(1000);
        assert!(longer.starts_with(&tokens), "more tokens change none of those before");
    }

    #[test]
    fn an_edit_repeats_its_share_of_the_prompt() {
        let work = Work { prompt: 500, generate: 399, repeat_percent: 80, ..Work::default() };
        let tokens = work.tokens(1000);
        let (prompt, answer) = tokens.split_at(500);
        let same = prompt.iter().zip(answer).filter(|(one, other)| one == other).count();
        assert!((320..=326).contains(&same), "{same}");
    }

    proptest! {
        #[test]
        fn tokens_are_of_the_vocabulary(seed: u64, vocab in 1usize..200_000) {
            let work = Work { prompt: 5, warmup: 1, generate: 5, seed, soak_s: 0, moe_cache_bytes: 0, repeat_percent: 0 };
            prop_assert!(work.tokens(vocab).iter().all(|token| (0..vocab as i64).contains(&i64::from(*token))));
        }
    }
}
