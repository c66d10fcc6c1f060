//! Choosing the next token: a chain of llama.cpp's samplers over one row of logits, and a grammar beside it.
//!
//! The grammar is asked about the chosen token first and applied to the whole row only when it says no: that
//! is many times cheaper, and gives the same distribution as long as the first choice is allowed.

use crate::constraint::Constraint;
use crate::grammar::{Grammar, GrammarKind, patterns_and_tokens};
use crate::mask_thread::MaskedConstraint;
use crate::rules::{Owned, array_of};
use crate::schema::with_marks;
use crate::sys;
use crate::vocab::{Token, Vocab};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString, c_char};

/// How to sample. The defaults are llama.cpp's and Ollama's common ground.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplerOptions {
    /// 0 is greedy: the likeliest token, always.
    pub temperature: f32,
    /// Keep only the k likeliest tokens; 0 keeps all.
    pub top_k: i32,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this fraction of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Keep tokens about as surprising as expected that together reach this probability; 1 keeps all.
    pub typical_p: f32,
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
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// Why a sampler cannot be built or cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// llama.cpp cannot read the grammar.
    #[error("the grammar cannot be used: {0}")]
    BadGrammar(String),
    /// The vocabulary has no token that the grammar allows next.
    #[error("the grammar allows no token here")]
    Stuck,
}

/// A sampler with its history.
pub struct Sampler {
    chain: Owned,
    grammar: Option<GrammarState>,
    /// Reused from token to token.
    candidates: Vec<sys::llama_token_data>,
}

struct GrammarState {
    rules: MaskedConstraint,
    /// Only applies once a trigger was met.
    lazy: bool,
    /// Knows whether the model is reasoning, where a lazy or forced grammar must sleep.
    reasoning: Option<Owned>,
    /// Begins reasoning, which may come before what a forced grammar asks for; only as the first token.
    may_think: Option<Token>,
}

impl Sampler {
    /// Builds the chain: penalties, then either greedy, or top-k → typical → top-p → min-p → temperature →
    /// draw.
    #[must_use]
    pub fn new(vocab: &Vocab, options: &SamplerOptions) -> Self {
        Self { chain: chain(vocab, options), grammar: None, candidates: Vec::new() }
    }

    /// The same, and every generated token obeys a grammar.
    ///
    /// # Errors
    /// [`SampleError::BadGrammar`] with llama.cpp's reason.
    pub fn with_grammar(
        vocab: &Vocab,
        options: &SamplerOptions,
        grammar: &Grammar,
    ) -> Result<Self, SampleError> {
        let state = GrammarState::new(vocab, grammar)?;
        Ok(Self { grammar: Some(state), ..Self::new(vocab, options) })
    }

    /// Chooses a token from a row of logits, one per token of the vocabulary. It is not remembered: penalties
    /// and the grammar go on from it once it is [accepted](Self::accept). Where tokens are drawn, the next
    /// random number is used up.
    ///
    /// # Errors
    /// [`SampleError::Stuck`] when the grammar allows nothing.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Token, SampleError> {
        let token = self.choose(logits, false)?;
        let refused = |grammar: &mut GrammarState| grammar.applies() && !grammar.allows(token);
        if self.grammar.as_mut().is_some_and(refused) { self.choose(logits, true) } else { Ok(token) }
    }

    /// Goes on from a generated token: the grammar moves past it, and penalties count it.
    ///
    /// # Errors
    /// [`SampleError::Stuck`] when the grammar does not allow it.
    pub fn accept(&mut self, token: Token) -> Result<(), SampleError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        self.accept_prompt(token);
        Ok(())
    }

    /// Counts a token of the prompt for penalties. Grammars begin after the prompt.
    pub fn accept_prompt(&mut self, token: Token) {
        // SAFETY: the chain is alive.
        unsafe { sys::llama_sampler_accept(self.chain.0, token) };
    }

    /// Nothing more is accepted before the next row of logits: what a grammar allows then is computed
    /// meanwhile, by a thread of its own, and waited for only where it is needed.
    pub fn prepare(&mut self) {
        if let Some(grammar) = self.grammar.as_mut().filter(|grammar| grammar.applies()) {
            grammar.rules.compute_ahead(grammar.lazy);
        }
    }

    fn choose(&mut self, logits: &[f32], constrained: bool) -> Result<Token, SampleError> {
        self.candidates.clear();
        let rows = (0i32..).zip(logits);
        self.candidates.extend(rows.map(|(id, logit)| sys::llama_token_data { id, logit: *logit, p: 0.0 }));
        if let Some(GrammarState { rules, .. }) = self.grammar.as_mut().filter(|_| constrained) {
            rules.apply(&mut self.candidates);
            if self.candidates.iter().all(|candidate| candidate.logit == f32::NEG_INFINITY) {
                return Err(SampleError::Stuck);
            }
        }
        let mut array = array_of(&mut self.candidates);
        // SAFETY: chain and array are alive; samplers sort and shrink the array within its memory or move
        // `data` to memory of their own that lives until their next call.
        let chosen = unsafe {
            sys::llama_sampler_apply(self.chain.0, &raw mut array);
            let at = usize::try_from(array.selected).ok().filter(|at| *at < array.size);
            at.map(|at| (*array.data.add(at)).id)
        };
        chosen.ok_or(SampleError::Stuck)
    }
}

fn chain(vocab: &Vocab, options: &SamplerOptions) -> Owned {
    let finite = |value: f32, neutral: f32| if value.is_finite() { value } else { neutral };
    let repeat =
        Some(options.repeat_penalty).filter(|value| value.is_normal() && *value > 0.0).unwrap_or(1.0);
    let frequency = finite(options.frequency_penalty, 0.0);
    let presence = finite(options.presence_penalty, 0.0);
    let most = i32::try_from(vocab.context_train()).unwrap_or(i32::MAX).max(64);
    let last = if options.repeat_last < 0 { most } else { options.repeat_last.min(most) };
    // SAFETY: a chain owns the samplers added to it; each constructor takes plain numbers.
    let chain = unsafe {
        let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
        if last != 0 && (differs(repeat, 1.0) || differs(frequency, 0.0) || differs(presence, 0.0)) {
            let tokens = i32::try_from(vocab.len()).unwrap_or(i32::MAX);
            let penalties = sys::llama_sampler_init_penalties(tokens, last, repeat, frequency, presence);
            sys::llama_sampler_chain_add(chain, penalties);
        }
        if options.temperature > 0.0 && options.temperature.is_finite() {
            if options.top_k > 0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_k(options.top_k));
            }
            if options.typical_p < 1.0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_typical(options.typical_p, 1));
            }
            if options.top_p < 1.0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_p(options.top_p, 1));
            }
            if options.min_p > 0.0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_min_p(options.min_p, 1));
            }
            sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_temp(options.temperature));
            // The largest number has llama.cpp draw a seed of its own.
            let seed = options.seed.min(u32::MAX - 1);
            sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_dist(seed));
        } else {
            sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_greedy());
        }
        chain
    };
    Owned(chain)
}

impl GrammarState {
    fn new(vocab: &Vocab, grammar: &Grammar) -> Result<Self, SampleError> {
        let bad = |reason: &str| SampleError::BadGrammar(reason.to_owned());
        let nul = |_| bad("it contains a NUL byte");
        let schemas = if grammar.schemas.is_empty() {
            None
        } else {
            let compiler = vocab.schema_compiler().map_err(|reason| bad(&reason))?;
            Some((compiler, grammar.schemas.clone()))
        };
        let text = CString::new(with_marks(&grammar.gbnf, grammar.schemas.len())).map_err(nul)?;
        let (patterns, tokens) = patterns_and_tokens(&grammar.triggers);
        let patterns = patterns.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(nul)?;
        check(vocab, &text, grammar.lazy, &patterns)?;
        let mut pointers: Vec<*const c_char> = patterns.iter().map(|pattern| pattern.as_ptr()).collect();
        // SAFETY: every string is NUL-terminated and every array passed with its length; `check` saw that
        // llama.cpp throws on none of them.
        let rules = unsafe {
            if grammar.lazy {
                sys::llama_sampler_init_grammar_lazy_patterns(
                    vocab.raw(),
                    text.as_ptr(),
                    c"root".as_ptr(),
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    tokens.as_ptr(),
                    tokens.len(),
                )
            } else {
                sys::llama_sampler_init_grammar(vocab.raw(), text.as_ptr(), c"root".as_ptr())
            }
        };
        if rules.is_null() {
            return Err(bad("it cannot be read"));
        }
        let rules = Constraint::new(vocab, Owned(rules), schemas);
        let rules = MaskedConstraint::new(rules, vocab.mask_thread());
        let mut state = Self { rules, lazy: grammar.lazy, reasoning: None, may_think: None };
        let written = written_tokens(vocab, &grammar.generation_prompt);
        if !grammar.lazy && !grammar.forced && grammar.kind != GrammarKind::User {
            for token in &written {
                state.accept(*token).map_err(|_| bad("it does not fit what the chat template wrote"))?;
            }
        }
        let thinks = !grammar.thinking_start.is_empty() && !grammar.thinking_ends.is_empty();
        if (grammar.lazy || grammar.forced) && thinks {
            state.reasoning = reasoning(vocab, grammar, &written);
        }
        if grammar.forced && thinks && !grammar.generation_prompt.contains(grammar.thinking_start.trim()) {
            // Several tokens could also be the beginning of what is forced.
            if let [token] = vocab.tokenize(grammar.thinking_start.trim(), false, true).as_slice() {
                state.may_think = Some(*token);
            }
        }
        Ok(state)
    }

    /// Whether tokens must obey the rules now. A lazy grammar that sleeps allows everything by itself.
    fn applies(&self) -> bool {
        self.reasoning.as_ref().is_none_or(|reasoning| {
            // SAFETY: the sampler is alive; the shim looks at nothing else.
            let state = unsafe { sys::common_shim_reasoning_budget_get_state(reasoning.0) };
            state == sys::COMMON_SHIM_RBUDGET_IDLE.cast_signed()
                || state == sys::COMMON_SHIM_RBUDGET_DONE.cast_signed()
        })
    }

    fn allows(&mut self, token: Token) -> bool {
        self.may_think == Some(token) || self.rules.allows(token)
    }

    fn accept(&mut self, token: Token) -> Result<(), SampleError> {
        let applies = self.applies();
        let begins_to_think = self.may_think.take() == Some(token);
        if let Some(reasoning) = &self.reasoning {
            // SAFETY: the sampler is alive.
            unsafe { sys::llama_sampler_accept(reasoning.0, token) };
        }
        if !applies || begins_to_think {
            return Ok(());
        }
        if self.rules.accept(token) { Ok(()) } else { Err(SampleError::Stuck) }
    }
}

/// Has llama.cpp read a grammar behind a guard: its own constructors throw, and an exception must not cross
/// into Rust.
fn check(vocab: &Vocab, text: &CStr, lazy: bool, patterns: &[CString]) -> Result<(), SampleError> {
    const PATTERN: i32 = 2;
    crate::log::clear();
    // SAFETY: the parameters are made, filled and freed here; strings are NUL-terminated; the model is alive.
    unsafe {
        let params = sys::common_shim_sampler_params_init();
        if params.is_null() {
            return Err(SampleError::BadGrammar("no memory".to_owned()));
        }
        let kind = sys::COMMON_SHIM_GRAMMAR_USER.cast_signed();
        let mut good = sys::common_shim_sampler_params_set_grammar(params, text.as_ptr(), kind, lazy)
            == sys::LLAMA_SHIM_OK;
        for pattern in patterns {
            good &=
                sys::common_shim_sampler_params_add_grammar_trigger(params, PATTERN, pattern.as_ptr(), -1)
                    == sys::LLAMA_SHIM_OK;
        }
        let sampler = if good {
            sys::common_shim_sampler_init(vocab.model().raw(), params)
        } else {
            std::ptr::null_mut()
        };
        sys::common_shim_sampler_params_free(params);
        if sampler.is_null() {
            return Err(SampleError::BadGrammar(crate::log::take()));
        }
        sys::common_shim_sampler_free(sampler);
    }
    Ok(())
}

/// The tokens of what the template wrote at the beginning of the answer. Tokenizers that put a blank before
/// the first token would give one that nobody wrote.
fn written_tokens(vocab: &Vocab, prompt: &str) -> Vec<Token> {
    let mut tokens = if prompt.is_empty() { Vec::new() } else { vocab.tokenize(prompt, false, true) };
    if let Some(first) = tokens.first()
        && vocab.piece(*first, true).first().is_some_and(u8::is_ascii_whitespace)
        && !prompt.starts_with(|character: char| character.is_ascii_whitespace())
    {
        tokens.remove(0);
    }
    tokens
}

fn reasoning(vocab: &Vocab, grammar: &Grammar, written: &[Token]) -> Option<Owned> {
    let start = vocab.tokenize(&grammar.thinking_start, false, true);
    let ends: Vec<Vec<Token>> =
        grammar.thinking_ends.iter().map(|end| vocab.tokenize(end, false, true)).collect();
    let end_lengths: Vec<usize> = ends.iter().map(Vec::len).collect();
    let flat: Vec<Token> = ends.concat();
    let start_length = start.len();
    // SAFETY: every array is passed with its length; a budget without end never forces a token.
    let sampler = unsafe {
        sys::common_shim_reasoning_budget_init(
            vocab.raw(),
            start.as_ptr(),
            &raw const start_length,
            1,
            flat.as_ptr(),
            end_lengths.as_ptr(),
            end_lengths.len(),
            std::ptr::null(),
            0,
            i32::MAX,
            sys::COMMON_SHIM_RBUDGET_IDLE.cast_signed(),
        )
    };
    if sampler.is_null() {
        return None;
    }
    for token in written {
        // SAFETY: the sampler is alive.
        unsafe { sys::llama_sampler_accept(sampler, *token) };
    }
    Some(Owned(sampler))
}

fn differs(value: f32, neutral: f32) -> bool {
    (value - neutral).abs() > f32::EPSILON
}
