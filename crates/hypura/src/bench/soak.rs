//! One arm for a long time: prompts of many lengths, answers of many lengths, conversations that go on and
//! such that begin anew. What is looked at is memory, not speed.

use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::{SamplerOptions, Token, machine};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

use super::tokens::RandomTokens;

/// Longest answer in tokens.
const MOST_ANSWER: usize = 48;
/// How often memory is looked at, as a number of looks over the whole time.
const LOOKS: u32 = 20;

/// What a soak did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// How long it took.
    pub seconds: f64,
    /// Prompts answered.
    pub prompts: u64,
    /// Their tokens.
    pub prompt_tokens: u64,
    /// The longest of them.
    pub longest_prompt: u64,
    /// Tokens that were in the KV cache already.
    pub reused_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// (seconds, largest resident set so far in bytes).
    pub peak_rss: Vec<(f64, u64)>,
}

/// Answers prompts until `time` is over. The same seed asks the same.
///
/// # Errors
/// What decoding says.
pub fn soak(session: &mut Session, time: Duration, seed: u64) -> anyhow::Result<Soak> {
    let start = Instant::now();
    let mut numbers = RandomTokens::new(seed);
    let vocab = session.vocab().len();
    let context = session.loaded().context.capacity() as usize;
    let mut done = Soak::default();
    let mut text: Vec<Token> = Vec::new();
    let mut looked = Duration::ZERO;
    while start.elapsed() < time {
        let answer = 1 + numbers.below(MOST_ANSWER.min(context / 4).max(1));
        // Two of three prompts begin anew, as long as they may be; the others go on with what was said.
        let mut room = context.saturating_sub(answer + 1).max(1);
        if numbers.below(3) > 0 || text.len() + 1 >= room {
            text.clear();
        }
        room -= text.len().min(room - 1);
        let length = log_uniform(&mut numbers, room);
        text.extend((0..length).map(|_| numbers.token(vocab)));
        let options = GenerateOptions {
            max_tokens: u32::try_from(answer).ok(),
            sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
            ignore_end: true,
            ..GenerateOptions::default()
        };
        let outcome = session.generate(&text, &options, &mut |_| Ok(()))?;
        done.prompts += 1;
        done.prompt_tokens += outcome.prompt_tokens as u64;
        done.longest_prompt = done.longest_prompt.max(outcome.prompt_tokens as u64);
        done.reused_tokens += outcome.reused_tokens as u64;
        done.generated_tokens += outcome.tokens.len() as u64;
        text.extend(outcome.tokens);
        if start.elapsed() >= looked {
            looked += time / LOOKS;
            done.peak_rss
                .extend(machine::peak_rss_bytes().ok().map(|rss| (start.elapsed().as_secs_f64(), rss)));
        }
    }
    done.seconds = start.elapsed().as_secs_f64();
    done.peak_rss.extend(machine::peak_rss_bytes().ok().map(|rss| (done.seconds, rss)));
    Ok(done)
}

/// 1 to `most`; each power of two as likely as the next, so that short prompts are as common as long ones.
fn log_uniform(numbers: &mut RandomTokens, most: usize) -> usize {
    let bits = (usize::BITS - most.leading_zeros()) as usize;
    let top = 1_usize << numbers.below(bits.max(1));
    (top + numbers.below(top)).min(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_range_and_of_every_order() {
        let mut numbers = RandomTokens::new(5);
        let lengths: Vec<usize> = (0..500).map(|_| log_uniform(&mut numbers, 2000)).collect();
        assert!(lengths.iter().all(|length| (1..=2000).contains(length)));
        assert!(lengths.iter().filter(|length| **length < 16).count() > 50);
        assert!(lengths.iter().filter(|length| **length > 1000).count() > 20);
        assert_eq!(log_uniform(&mut numbers, 1), 1);
    }
}
