//! Choosing the next token: a chain of llama.cpp's samplers.

use crate::context::Context;
use crate::sys;
use crate::vocab::{Token, Vocab};

/// How to sample. The defaults are llama.cpp's and Ollama's common ground.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// 0 is greedy: the likeliest token, always.
    pub temperature: f32,
    /// Keep only the k likeliest tokens; 0 keeps all.
    pub top_k: i32,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this fraction of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divide logits of recent tokens by this; 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens are penalised; −1 is the whole context.
    pub repeat_last: i32,
    /// Subtracted from the logit of a token for each time it occurred recently.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that occurred recently.
    pub presence_penalty: f32,
    /// Same seed, same choices.
    pub seed: u32,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// A sampler with its history.
pub struct Sampler {
    chain: *mut sys::llama_sampler,
}
// SAFETY: a chain is used by one owner at a time and keeps no thread-local state.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Builds the chain: penalties, then either greedy, or top-k → top-p → min-p → temperature → draw.
    #[must_use]
    pub fn new(vocab: &Vocab, options: &SamplerOptions) -> Self {
        // SAFETY: a chain owns the samplers added to it; each constructor takes plain numbers.
        let chain = unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            let penalised = options.repeat_last != 0
                && (differs(options.repeat_penalty, 1.0)
                    || differs(options.frequency_penalty, 0.0)
                    || differs(options.presence_penalty, 0.0));
            if penalised {
                let penalties = sys::llama_sampler_init_penalties(
                    i32::try_from(vocab.len()).unwrap_or(i32::MAX),
                    options.repeat_last,
                    options.repeat_penalty,
                    options.frequency_penalty,
                    options.presence_penalty,
                );
                sys::llama_sampler_chain_add(chain, penalties);
            }
            if options.temperature <= 0.0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_greedy());
            } else {
                if options.top_k > 0 {
                    sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_k(options.top_k));
                }
                if options.top_p < 1.0 {
                    sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_p(options.top_p, 1));
                }
                if options.min_p > 0.0 {
                    sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_min_p(options.min_p, 1));
                }
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_temp(options.temperature));
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_dist(options.seed));
            }
            chain
        };
        Self { chain }
    }

    /// Chooses a token from the logits of batch entry `index` (−1: the last) and remembers it.
    pub fn sample(&mut self, context: &mut Context, index: i32) -> Token {
        // SAFETY: chain and context are alive; the caller decoded a batch with logits at `index`.
        unsafe { sys::llama_sampler_sample(self.chain, context.raw(), index) }
    }

    /// Remembers a token that was not sampled here (the prompt).
    pub fn accept(&mut self, token: Token) {
        // SAFETY: the chain is alive.
        unsafe { sys::llama_sampler_accept(self.chain, token) };
    }
}

fn differs(value: f32, neutral: f32) -> bool {
    (value - neutral).abs() > f32::EPSILON
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made by llama_sampler_chain_init, freed once, and with it the samplers it owns.
        unsafe { sys::llama_sampler_free(self.chain) };
    }
}
