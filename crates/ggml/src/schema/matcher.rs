//! Where in a schema an answer is: which tokens may come next, and whether it may end.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use crate::vocab::Token;

/// Follows one JSON value. What llguidance cannot go on with (a schema that becomes too large while it is
/// followed) allows nothing more.
#[derive(Clone)]
pub(crate) struct SchemaMatcher(Matcher);

impl SchemaMatcher {
    pub fn new(matcher: Matcher) -> Self {
        Self(matcher)
    }

    /// Whether the token goes on from here. Tokens that end a text do not.
    pub fn allows(&mut self, token: Token) -> bool {
        let Ok(token) = u32::try_from(token) else { return false };
        !self.0.is_stopped() && self.0.validate_tokens(&[token]).is_ok_and(|valid| valid == 1)
    }

    /// Goes on; false where the token is not allowed.
    pub fn accept(&mut self, token: Token) -> bool {
        self.allows(token) && self.0.consume_token(token.cast_unsigned()).is_ok()
    }

    /// Whether the value may end here.
    pub fn may_end(&mut self) -> bool {
        self.0.is_accepting().unwrap_or(false)
    }

    /// Whether the value cannot go on.
    pub fn must_end(&self) -> bool {
        self.0.is_stopped() && self.0.stop_reason().is_ok()
    }

    /// All tokens that go on from here.
    pub fn mask(&mut self) -> Option<SimpleVob> {
        if self.0.is_stopped() { None } else { self.0.compute_mask().ok() }
    }
}
