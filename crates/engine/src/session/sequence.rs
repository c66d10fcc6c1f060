//! One request while it runs: its tokens, its sampler, its text, and what it measured.
//!
//! A sequence knows nothing of batches or of memory. It says which tokens it has, takes the logits of the
//! last of them, and answers with text and either a further token or an end.
//!
//! Somebody may propose drafts: tokens that are likely to come next. They are computed beside the last token,
//! each gets a row of logits, and those are kept that the sequence would have chosen anyway, in order, up to
//! the first that it would not. So drafts never change what is said.

use hypura_core::speculate::Verdict;
use hypura_ggml::{DecodeError, Sampler, Token, Vocab};
use std::time::{Duration, Instant};

use super::logprobs::{Likely, Logprobs};
use super::repeats::Repeats;
use super::text::TextStream;
use crate::error::GenerateError;
use crate::media::prompt::Placed;
use crate::media::{MediaPrompt, PromptMedia};
use crate::request::{Finish, LogitsHash, Options, Outcome, TokenInfo};
use crate::stream::StreamStats;

/// What to run, and how.
pub(crate) struct Setup {
    /// Prompt; not empty.
    pub prompt: MediaPrompt,
    /// The request's options.
    pub options: Options,
    /// Chooses the tokens; has seen the prompt.
    pub sampler: Sampler,
    /// Hash all logits of every decoded position.
    pub hash_logits: bool,
    /// Feed these tokens instead of the chosen ones; generation ends with them.
    pub forced: Option<Vec<Token>>,
    /// Tell of every token, also when it brought no text.
    pub every_token: bool,
}

/// A running request.
pub(crate) struct Sequence {
    /// Prompt and generated tokens.
    tokens: Vec<Token>,
    /// What may come next.
    drafts: Vec<Token>,
    prompt: usize,
    media: PromptMedia,
    options: Options,
    sampler: Sampler,
    text: TextStream,
    forced: Option<Vec<Token>>,
    repeats: Option<Repeats>,
    hash: Option<LogitsHash>,
    every_token: bool,
    /// Tokens whose text is not certain yet.
    held: Vec<TokenInfo>,
    start: Instant,
    last: Instant,
    stats_at_start: StreamStats,
    /// Taken when the prompt was done.
    stats_at_decode: Option<StreamStats>,
    outcome: Outcome,
}

/// Rows of logits of a step: of a sequence's last token, and of the drafts after it.
pub(crate) trait LogitRows {
    /// How many there are.
    fn count(&self) -> usize;
    /// One of them, with a logit for each token of the vocabulary.
    fn row(&mut self, at: usize) -> Result<&[f32], DecodeError>;
}

/// What a step's rows of logits led to.
#[derive(Debug, Default)]
pub(crate) struct Advanced {
    /// Drafts that came true, and after which the sequence goes on.
    pub accepted: usize,
    /// What each row led to that was of use: one more than drafts came true.
    pub rows: Vec<Advance>,
}

impl Advanced {
    /// What became of so many drafts.
    pub fn verdict(&self, tried: usize) -> Verdict {
        let ended = self.rows.last().is_some_and(|advance| advance.finish.is_some());
        Verdict { accepted: self.accepted, rejected: self.accepted < tried && !ended }
    }
}

/// What a row of logits led to.
#[derive(Debug, Default)]
pub(crate) struct Advance {
    /// Text that is certain now; may be empty.
    pub text: String,
    /// The tokens it came from.
    pub tokens: Vec<TokenInfo>,
    /// Why the sequence is over, when it is.
    pub finish: Option<Finish>,
}

impl Sequence {
    /// Begins. `stats` are the counters of streaming now.
    pub fn new(setup: Setup, stats: StreamStats) -> Self {
        let Setup { prompt, mut options, mut sampler, hash_logits, forced, every_token } = setup;
        let MediaPrompt { tokens: prompt, media } = prompt;
        if !media.is_empty() {
            // A medium cannot be left out in part, nor moved: the answer ends where the context is full.
            options.shift = None;
        }
        if forced.is_none() {
            sampler.prepare();
        }
        let now = Instant::now();
        Self {
            text: TextStream::new(&options.stops),
            prompt: prompt.len(),
            outcome: Outcome::new(prompt.len()),
            tokens: prompt,
            repeats: options.repeat_limit.map(Repeats::new),
            drafts: Vec::new(),
            media,
            options,
            sampler,
            forced,
            hash: hash_logits.then(LogitsHash::default),
            every_token,
            held: Vec::new(),
            start: now,
            last: now,
            stats_at_start: stats,
            stats_at_decode: None,
        }
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// What may come next.
    pub fn drafts(&self) -> &[Token] {
        &self.drafts
    }

    /// Proposes what comes next, in place of what was proposed before. More than the request may still
    /// generate are not kept.
    pub fn propose(&mut self, mut drafts: Vec<Token>) {
        drafts.truncate(self.most_drafts());
        self.drafts = drafts;
    }

    /// Drafts were looked for so long.
    pub fn note_drafting(&mut self, time: Duration) {
        self.outcome.speculation.drafting += time;
    }

    /// Drafts of which more are of no use: the last token of an answer is chosen and never computed.
    pub fn most_drafts(&self) -> usize {
        let left = |limit: u32| (limit as usize).saturating_sub(self.outcome.tokens.len() + 1);
        self.options.max_tokens.map_or(usize::MAX, left)
    }

    /// The tokens that a forced answer goes on with.
    pub fn forced_next(&self) -> &[Token] {
        let forced = self.forced.as_deref().unwrap_or_default();
        forced.get(self.outcome.tokens.len()..).unwrap_or_default()
    }

    /// The medium that row `at` is of.
    pub fn media_at(&self, at: usize) -> Option<&Placed> {
        self.media.at(at)
    }

    /// Tokens of the prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// The request's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Leaves out half of what comes after the tokens that are to be kept, so that a context has room again;
    /// returns how many tokens of the beginning stayed as they were.
    pub fn shift(&mut self, context: usize) -> usize {
        let wanted = self.options.shift.map_or(0, |keep| keep as usize);
        let keep = wanted.min(self.prompt).min(context.saturating_sub(2));
        let dropped = ((context - keep) / 2).max(1);
        self.tokens.drain(keep..(keep + dropped).min(self.tokens.len()));
        self.prompt = self.prompt.min(self.tokens.len());
        keep
    }

    /// Whether to tell of what a row of logits brought.
    pub fn tells(&self, advance: &Advance) -> bool {
        self.every_token || !advance.text.is_empty() || !advance.tokens.is_empty()
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many tokens of the prompt were in memory already.
    pub fn set_reused(&mut self, reused: usize) {
        self.outcome.reused_tokens = reused;
    }

    /// Tokens of the prompt that were in memory already.
    pub fn reused(&self) -> usize {
        self.outcome.reused_tokens
    }

    /// Whether no token was chosen yet.
    pub fn in_prompt(&self) -> bool {
        self.stats_at_decode.is_none()
    }

    /// Takes the logits of the last token and of as many drafts as there are further rows. `context` is how
    /// many tokens the sequence may have in memory. Whatever did not come true is forgotten.
    pub fn advance_many(
        &mut self,
        rows: &mut dyn LogitRows,
        vocab: &Vocab,
        context: usize,
        stats: &StreamStats,
    ) -> Result<Advanced, GenerateError> {
        let drafts = std::mem::take(&mut self.drafts);
        let generated = self.outcome.tokens.len();
        let mut advanced = Advanced::default();
        for at in 0..rows.count() {
            let advance = self.advance(rows.row(at)?, vocab, context, stats)?;
            let ends = advance.finish.is_some();
            advanced.rows.push(advance);
            if ends || at + 1 == rows.count() || self.tokens.last() != drafts.get(at) {
                break;
            }
            advanced.accepted += 1;
        }
        self.outcome.speculation.count(rows.count().saturating_sub(1), advanced.accepted);
        self.note_times(self.outcome.tokens.len() - generated);
        if self.forced.is_none() && advanced.rows.last().is_some_and(|advance| advance.finish.is_none()) {
            self.sampler.prepare();
        }
        Ok(advanced)
    }

    /// Takes the logits of the last token.
    fn advance(
        &mut self,
        logits: &[f32],
        vocab: &Vocab,
        context: usize,
        stats: &StreamStats,
    ) -> Result<Advance, GenerateError> {
        if self.stats_at_decode.is_none() {
            self.stats_at_decode = Some(*stats);
            self.outcome.prefill = self.start.elapsed();
        }
        if self.at_limit() {
            return Ok(self.end(Finish::Length));
        }
        if let Some(hash) = &mut self.hash {
            hash.add(logits);
        }
        let Some(token) = self.choose(logits)? else {
            return Ok(self.end(Finish::Length));
        };
        self.tokens.push(token);
        self.outcome.tokens.push(token);
        if vocab.is_end(token) && !self.options.ignore_end {
            return Ok(self.end(Finish::End));
        }
        let piece = vocab.piece(token, self.options.special_pieces);
        let shown = self.text.push(&piece);
        if let Some(stop) = shown.stop {
            self.outcome.stop = Some(stop);
            let tokens = std::mem::take(&mut self.held);
            return Ok(Advance { text: shown.text, tokens, finish: Some(Finish::StopString) });
        }
        let repeats = self.repeats.as_mut().is_some_and(|repeats| repeats.too_often(&piece));
        let info = self.describe(token, piece, logits, vocab);
        self.held.push(info);
        let finish = if repeats {
            Some(Finish::Repeats)
        } else if self.at_limit() {
            Some(Finish::Length)
        } else if self.tokens.len() > context && self.options.shift.is_none() {
            Some(Finish::ContextFull)
        } else {
            None
        };
        if let Some(finish) = finish {
            let mut ended = self.end(finish);
            ended.text.insert_str(0, &shown.text);
            return Ok(ended);
        }
        let tokens = if shown.text.is_empty() { Vec::new() } else { std::mem::take(&mut self.held) };
        Ok(Advance { text: shown.text, tokens, finish: None })
    }

    /// The measurements of a sequence that ended.
    pub fn finished(mut self, finish: Finish, stats: &StreamStats) -> Outcome {
        let decode_from = self.stats_at_decode.unwrap_or(*stats);
        self.outcome.finish = finish;
        self.outcome.prefill_stats = decode_from.since(&self.stats_at_start);
        self.outcome.decode_stats = stats.since(&decode_from);
        self.outcome.total = self.start.elapsed();
        if self.stats_at_decode.is_none() {
            self.outcome.prefill = self.outcome.total;
        }
        if self.outcome.tokens.is_empty() {
            self.outcome.first_token = self.outcome.total;
        }
        self.outcome.logits_hash = self.hash;
        self.outcome
    }

    fn at_limit(&self) -> bool {
        self.options.max_tokens.is_some_and(|limit| self.outcome.tokens.len() >= limit as usize)
    }

    fn end(&mut self, finish: Finish) -> Advance {
        Advance { text: self.text.finish(), tokens: std::mem::take(&mut self.held), finish: Some(finish) }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<Option<Token>, GenerateError> {
        if let Some(forced) = &self.forced {
            return Ok(forced.get(self.outcome.tokens.len()).copied());
        }
        if !are_usable(logits) {
            return Err(GenerateError::NotFinite);
        }
        let token = self.sampler.sample(logits)?;
        self.sampler.accept(token)?;
        Ok(Some(token))
    }

    /// A step brought so many tokens: each took its part of the time.
    fn note_times(&mut self, tokens: usize) {
        let Ok(count @ 1..) = u32::try_from(tokens) else { return };
        let now = Instant::now();
        let is_first = self.outcome.tokens.len() == tokens;
        let (each, timed) = if is_first {
            self.outcome.first_token = now - self.start;
            (Duration::ZERO, tokens - 1)
        } else {
            ((now - self.last) / count, tokens)
        };
        self.outcome.token_times.extend(std::iter::repeat_n(each, timed));
        self.last = now;
    }

    fn describe(&self, token: Token, bytes: Vec<u8>, logits: &[f32], vocab: &Vocab) -> TokenInfo {
        let Some(top) = self.options.logprobs else {
            return TokenInfo { token, bytes, logprob: None, top: Vec::new() };
        };
        let logprobs = Logprobs::new(logits);
        let likely = logprobs.top(top as usize).into_iter();
        let top =
            likely.map(|Likely { token, logprob }| (token, vocab.piece(token, true), logprob)).collect();
        TokenInfo { token, bytes, logprob: Some(logprobs.of(token)), top }
    }
}

/// Whether a token can be chosen: tokens may be impossible, but not all of them, and nothing else may be
/// infinite or no number.
fn are_usable(logits: &[f32]) -> bool {
    // Not a number is less than nothing.
    logits.iter().all(|logit| *logit < f32::INFINITY) && logits.iter().any(|logit| *logit > f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::are_usable;

    #[test]
    fn logits_that_are_no_numbers_choose_no_token() {
        const NONE: f32 = f32::NEG_INFINITY;
        assert!(are_usable(&[0.0, -1.0]) && are_usable(&[NONE, 3.0]) && are_usable(&[f32::MAX]));
        for bad in [&[f32::NAN, 1.0][..], &[1.0, f32::INFINITY], &[NONE, NONE], &[]] {
            assert!(!are_usable(bad), "{bad:?}");
        }
    }
}
