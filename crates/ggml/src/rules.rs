//! A sampler of llama.cpp's that is owned, and what a grammar does as one.

use llguidance::toktrie::SimpleVob;

use crate::sys;
use crate::vocab::Token;

/// A llama.cpp sampler that is freed when dropped.
pub(crate) struct Owned(pub(crate) *mut sys::llama_sampler);
// SAFETY: a sampler is used by one owner at a time and keeps no thread-local state.
unsafe impl Send for Owned {}
impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by one of llama.cpp's constructors, freed once, and with it the samplers it owns.
        unsafe { sys::llama_sampler_free(self.0) };
    }
}

/// The sampler of a grammar, which `check` saw.
impl Owned {
    /// Whether a token may come next.
    pub fn allows(&self, token: Token) -> bool {
        let mut single = [sys::llama_token_data { id: token, logit: 1.0, p: 0.0 }];
        self.apply(&mut single);
        single[0].logit != f32::NEG_INFINITY
    }

    /// Goes on with a token that is allowed; false where llama.cpp throws.
    pub fn accept(&self, token: Token) -> bool {
        // SAFETY: the sampler is alive; the shim catches what llama.cpp throws.
        unsafe { sys::common_shim_sampler_accept_raw(self.0, token) == sys::LLAMA_SHIM_OK }
    }

    /// Takes from candidates what may not come next.
    pub fn apply(&self, candidates: &mut [sys::llama_token_data]) {
        let mut array = array_of(candidates);
        // SAFETY: the array describes `candidates`; a grammar only lowers logits in place.
        unsafe { sys::llama_sampler_apply(self.0, &raw mut array) };
    }

    /// Marks the tokens that may come next.
    pub fn mark(&self, mask: &mut SimpleVob) {
        let token = |id| sys::llama_token_data { id, logit: 1.0, p: 0.0 };
        let mut all: Vec<sys::llama_token_data> = (0..).map(token).take(mask.len()).collect();
        self.apply(&mut all);
        let allowed = all.iter().filter(|token| token.logit != f32::NEG_INFINITY);
        allowed.for_each(|token| mask.allow_token(token.id.cast_unsigned()));
    }

    /// Another one at the same place.
    pub fn cloned(&self) -> Self {
        // SAFETY: the sampler is alive; a grammar's clone has rules and stacks of its own.
        Self(unsafe { sys::llama_sampler_clone(self.0) })
    }
}

/// Candidates as llama.cpp wants them.
pub(crate) fn array_of(candidates: &mut [sys::llama_token_data]) -> sys::llama_token_data_array {
    sys::llama_token_data_array {
        data: candidates.as_mut_ptr(),
        size: candidates.len(),
        selected: -1,
        sorted: false,
    }
}
