//! Drafts: whatever is proposed, a request says what it says without, and the KV cache holds what its rows
//! say.

use hypura_core::plan::{CacheSize, Residency};
use hypura_ggml::{Grammar, Sampler, SamplerOptions, Token};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::batcher::{Batcher, DraftError, Emit, Step};
use super::sequence::Setup;
use crate::error::GenerateError;
use crate::load::{LoadSettings, load, prepare};
use crate::prompt::tokenize_parts;
use crate::request::{Event, Finish, Options, Outcome, TokenInfo};
use crate::source::ModelSource;

#[path = "../../tests/common/mamba.rs"]
mod mamba;

/// Tokens of an answer.
const ANSWER: u32 = 24;

fn demo_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf")
}

fn batcher_of(path: &Path, settings: LoadSettings) -> Batcher {
    // With the usual kernels several rows of a sequence round otherwise than one, which flips near ties.
    let settings = settings.with_ubatch(24).with_threads(1).with_poison(true).with_reference_kernels(true);
    let planned = prepare(ModelSource::open(path).unwrap(), settings).unwrap();
    Batcher::new(load(planned, &mut |_, _| {}).unwrap())
}

fn batcher(sequences: u32) -> Batcher {
    let settings =
        LoadSettings::default().with_choice(Residency::Resident).with_context(256).with_sequences(sequences);
    batcher_of(&demo_path(), settings)
}

fn greedy() -> Options {
    let sampler = SamplerOptions { temperature: 0.0, ..SamplerOptions::default() };
    Options { sampler, max_tokens: Some(ANSWER), ignore_end: true, ..Options::default() }
}

fn question(batcher: &Batcher, text: &str) -> Vec<Token> {
    tokenize_parts(batcher.vocab(), std::iter::once((text, false)))
}

fn setup(batcher: &Batcher, prompt: &[Token], options: &Options) -> Setup {
    let vocab = batcher.vocab();
    let mut sampler = match &options.grammar {
        Some(grammar) => Sampler::with_grammar(vocab, &options.sampler, grammar).unwrap(),
        None => Sampler::new(vocab, &options.sampler),
    };
    prompt.iter().for_each(|token| sampler.accept_prompt(*token));
    Setup {
        prompt: prompt.to_vec().into(),
        options: options.clone(),
        sampler,
        hash_logits: false,
        forced: None,
        every_token: true,
    }
}

/// What requests were told.
#[derive(Default)]
struct Heard {
    text: HashMap<u64, String>,
    tokens: HashMap<u64, Vec<TokenInfo>>,
    done: HashMap<u64, Outcome>,
}

impl Emit for Heard {
    fn event(&mut self, id: u64, event: Event) -> bool {
        match event {
            Event::Text { text, tokens } => {
                self.text.entry(id).or_default().push_str(&text);
                self.tokens.entry(id).or_default().extend(tokens);
            }
            Event::Done(outcome) => drop(self.done.insert(id, *outcome)),
            Event::Started { .. } | Event::Progress { .. } | Event::Failed(_) => {}
        }
        true
    }

    fn failed(&mut self, id: u64, error: GenerateError) {
        unreachable!("request {id}: {error}");
    }
}

/// llama.cpp has of each row what is written down, and of a running request nothing that it has not said.
fn check_rows(batcher: &Batcher) {
    for (at, row) in batcher.kv().rows().all().iter().enumerate() {
        let held = batcher.loaded().context.positions(i32::try_from(at).unwrap());
        let expected = row.cached.len().checked_sub(1).map(|last| (0, i32::try_from(last).unwrap()));
        assert_eq!(held, expected, "row {at}");
        let sequence = row.owner.and_then(|id| batcher.find(id));
        assert!(sequence.is_none_or(|sequence| sequence.tokens().starts_with(&row.cached)), "row {at}");
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    outcome: Outcome,
    text: String,
    tokens: Vec<TokenInfo>,
    steps: usize,
}

/// Runs one request; `propose` gets what was generated so far.
fn answer(
    batcher: &mut Batcher,
    prompt: &[Token],
    options: &Options,
    mut propose: impl FnMut(&[Token]) -> Vec<Token>,
) -> Answer {
    const ID: u64 = 7;
    let mut heard = Heard::default();
    let setup = setup(batcher, prompt, options);
    batcher.admit(ID, setup, &mut heard);
    let mut steps = 0;
    let mut said = Vec::new();
    while batcher.active() > 0 {
        let drafts = propose(&said);
        batcher.propose(ID, drafts).unwrap();
        let before = batcher.find(ID).unwrap().tokens().to_vec();
        assert!(matches!(batcher.step(&mut heard), Step::Done));
        check_rows(batcher);
        steps += 1;
        if let Some(sequence) = batcher.find(ID)
            && sequence.tokens().starts_with(&before)
        {
            said.extend_from_slice(&sequence.tokens()[before.len()..]);
        }
    }
    Answer {
        outcome: heard.done.remove(&ID).unwrap(),
        text: heard.text.remove(&ID).unwrap_or_default(),
        tokens: heard.tokens.remove(&ID).unwrap_or_default(),
        steps,
    }
}

fn without_drafts(batcher: &mut Batcher, prompt: &[Token], options: &Options) -> Answer {
    answer(batcher, prompt, options, |_| Vec::new())
}

/// The next `count` tokens of an answer that is known.
fn next_of(known: &[Token], said: &[Token], count: usize) -> Vec<Token> {
    known.iter().skip(said.len()).take(count).copied().collect()
}

/// Another token than this.
fn other(token: Token) -> Token {
    if token == 100 { 101 } else { 100 }
}

/// Drafts of `right` tokens that come true, and then some that do not.
fn right_then_wrong(known: &[Token], said: &[Token], right: usize) -> Vec<Token> {
    let mut drafts = next_of(known, said, right + 2);
    drafts.iter_mut().skip(right).for_each(|token| *token = other(*token));
    drafts
}

fn assert_same(drafted: &Answer, plain: &Answer) {
    assert_eq!(drafted.outcome.tokens, plain.outcome.tokens);
    assert_eq!(drafted.text, plain.text);
    assert_eq!((drafted.outcome.finish, &drafted.outcome.stop), (plain.outcome.finish, &plain.outcome.stop));
    assert_eq!(drafted.outcome.token_times.len(), plain.outcome.token_times.len());
    let logprobs = |answer: &Answer| -> Vec<Option<u32>> {
        answer.tokens.iter().map(|token| token.logprob.map(f32::to_bits)).collect()
    };
    assert_eq!(logprobs(drafted), logprobs(plain), "bit for bit");
    assert_eq!(drafted.tokens.len(), plain.tokens.len());
}

/// Steps of an answer of so many tokens when each accepts so many drafts; the prompt's last step brings the
/// first token.
fn steps_with(tokens: usize, accepted: usize, prompt_steps: usize) -> usize {
    prompt_steps + (tokens - 1).div_ceil(accepted + 1)
}

#[test]
fn drafts_that_come_true_save_steps_and_change_nothing() {
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let expected = without_drafts(&mut plain, &prompt, &greedy());
    let known = expected.outcome.tokens.clone();
    assert_eq!((known.len(), expected.steps), (ANSWER as usize, ANSWER as usize));
    for count in [1, 3, 8] {
        let drafted = answer(&mut batcher(1), &prompt, &greedy(), |said| {
            // Not beside the prompt: its step is the same in both.
            if said.is_empty() { Vec::new() } else { next_of(&known, said, count) }
        });
        assert_same(&drafted, &expected);
        assert_eq!(drafted.steps, steps_with(known.len(), count, 1), "{count} drafts");
    }
}

#[test]
fn drafts_beside_the_last_tokens_of_a_prompt_come_true_too() {
    let mut plain = batcher(1);
    // Two ubatches.
    let prompt = question(&plain, &"What is a lynx? ".repeat(5));
    assert!(prompt.len() > 24 && prompt.len() < 44, "{}", prompt.len());
    let expected = without_drafts(&mut plain, &prompt, &greedy());
    let known = expected.outcome.tokens.clone();
    let drafted = answer(&mut batcher(1), &prompt, &greedy(), |said| next_of(&known, said, 4));
    assert_same(&drafted, &expected);
    // The prompt's last step brings one token and four drafts.
    assert_eq!(drafted.steps, 2 + (known.len() - 5).div_ceil(5));
}

#[test]
fn drafts_that_do_not_come_true_are_taken_back_at_the_right_place() {
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let expected = without_drafts(&mut plain, &prompt, &greedy());
    let known = expected.outcome.tokens.clone();
    for right in [0, 1, 3] {
        let drafted = answer(&mut batcher(1), &prompt, &greedy(), |said| {
            if said.is_empty() { Vec::new() } else { right_then_wrong(&known, said, right) }
        });
        assert_same(&drafted, &expected);
        assert_eq!(drafted.steps, steps_with(known.len(), right, 1), "{right} right drafts");
    }
}

#[test]
fn drafts_of_streamed_weights_change_nothing() {
    let stream = || {
        let cache = Some(CacheSize::Percent(33.0));
        let settings =
            LoadSettings::default().with_choice(Residency::Stream).with_cache(cache).with_context(256);
        batcher_of(&demo_path(), settings)
    };
    let mut plain = stream();
    let prompt = question(&plain, "What is a lynx?");
    let expected = without_drafts(&mut plain, &prompt, &greedy());
    let known = expected.outcome.tokens.clone();
    for right in [0, 2] {
        let drafted = answer(&mut stream(), &prompt, &greedy(), |said| right_then_wrong(&known, said, right));
        assert_same(&drafted, &expected);
    }
}

#[test]
fn drafts_beside_other_requests_change_neither() {
    let mut plain = batcher(3);
    let prompts =
        ["What is a lynx?", "What is Rust?", "What is a vector?"].map(|text| question(&plain, text));
    let expected: Vec<Vec<Token>> =
        prompts.iter().map(|prompt| without_drafts(&mut plain, prompt, &greedy()).outcome.tokens).collect();
    let mut together = batcher(3);
    let mut heard = Heard::default();
    for (id, prompt) in (0..).zip(&prompts) {
        let setup = setup(&together, prompt, &greedy());
        together.admit(id, setup, &mut heard);
    }
    let mut steps = 0;
    while together.active() > 0 {
        // The first is always right, the second always wrong, the third has no drafts.
        for (id, wrong_from) in [(0, 9), (1, 0)] {
            let Some(sequence) = together.find(id) else { continue };
            let at = usize::try_from(id).unwrap();
            let said = sequence.tokens()[prompts[at].len()..].to_vec();
            together.propose(id, right_then_wrong(&expected[at], &said, wrong_from)).unwrap();
        }
        assert!(matches!(together.step(&mut heard), Step::Done));
        check_rows(&together);
        steps += 1;
    }
    for (id, expected) in (0..).zip(&expected) {
        assert_eq!(&heard.done[&id].tokens, expected, "request {id}");
    }
    assert!(steps < 2 * ANSWER as usize);
}

#[test]
fn drafts_under_a_grammar_change_nothing_and_break_no_rule() {
    let grammar = Grammar::user(r#"root ::= "A lynx is " ("big" | "small") ", " [a-z ]+ "!""#);
    let options = Options { grammar: Some(grammar), ignore_end: false, ..greedy() };
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let expected = without_drafts(&mut plain, &prompt, &options);
    assert!(expected.text.starts_with("A lynx is "), "{}", expected.text);
    let known = expected.outcome.tokens.clone();
    for right in [0, 1, 4] {
        let drafted =
            answer(&mut batcher(1), &prompt, &options, |said| right_then_wrong(&known, said, right));
        assert_same(&drafted, &expected);
    }
}

#[test]
fn drafts_under_penalties_and_chance_change_nothing() {
    let penalties = SamplerOptions {
        repeat_penalty: 1.5,
        frequency_penalty: 0.4,
        presence_penalty: 0.2,
        ..greedy().sampler
    };
    let chance = SamplerOptions { temperature: 0.8, seed: 5, ..penalties.clone() };
    for sampler in [penalties, chance] {
        let options = Options { sampler, ..greedy() };
        let mut plain = batcher(1);
        let prompt = question(&plain, "What is a lynx?");
        let expected = without_drafts(&mut plain, &prompt, &options);
        let known = expected.outcome.tokens.clone();
        for right in [0, 2, 6] {
            let drafted =
                answer(&mut batcher(1), &prompt, &options, |said| right_then_wrong(&known, said, right));
            assert_same(&drafted, &expected);
        }
    }
}

#[test]
fn drafts_leave_log_probabilities_as_they_are() {
    let options = Options { logprobs: Some(3), ..greedy() };
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let expected = without_drafts(&mut plain, &prompt, &options);
    assert!(expected.tokens.iter().all(|token| token.logprob.is_some()));
    let known = expected.outcome.tokens.clone();
    let drafted = answer(&mut batcher(1), &prompt, &options, |said| right_then_wrong(&known, said, 3));
    assert_same(&drafted, &expected);
    let ids = |answer: &Answer| -> Vec<Token> { answer.tokens.iter().map(|token| token.token).collect() };
    assert_eq!(ids(&drafted), ids(&expected));
    assert!(drafted.tokens.iter().all(|token| token.top.len() == 3 && token.top[0].0 == token.token));
}

#[test]
fn an_answer_ends_within_its_drafts_where_it_ends_without() {
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let whole = without_drafts(&mut plain, &prompt, &greedy());
    let known = whole.outcome.tokens.clone();
    let middle: String = whole.text.chars().skip(whole.text.chars().count() / 2).take(6).collect();
    let stop = Options { stops: vec![middle], ..greedy() };
    let short = Options { max_tokens: Some(10), ..greedy() };
    let none = Options { max_tokens: Some(0), ..greedy() };
    for (options, finish) in [(stop, Finish::StopString), (short, Finish::Length), (none, Finish::Length)] {
        let expected = without_drafts(&mut batcher(1), &prompt, &options);
        assert_eq!(expected.outcome.finish, finish);
        let mut again = batcher(1);
        let drafted = answer(&mut again, &prompt, &options, |said| next_of(&known, said, 7));
        assert_same(&drafted, &expected);
        // What is left in memory is of use to the next turn: the prompt, and the answer but for its last
        // token.
        let cached = &again.kv().rows().row(0).cached;
        let kept = prompt.len() + drafted.outcome.tokens.len().saturating_sub(1);
        assert_eq!(*cached, [prompt.as_slice(), &drafted.outcome.tokens].concat()[..kept]);
    }
}

#[test]
fn drafts_stay_within_the_context_also_where_it_is_shifted() {
    let small = || {
        let settings = LoadSettings::default().with_choice(Residency::Resident).with_context(48);
        batcher_of(&demo_path(), settings)
    };
    for (shift, finish) in [(None, Finish::ContextFull), (Some(4), Finish::Length)] {
        let options = Options { max_tokens: Some(400), shift, ..greedy() };
        let mut plain = small();
        let prompt = question(&plain, "What is a lynx?");
        let expected = without_drafts(&mut plain, &prompt, &options);
        assert_eq!(expected.outcome.finish, finish);
        assert!(shift.is_none() || plain.kv().context_tokens() < 400, "it was shifted");
        let known = expected.outcome.tokens.clone();
        // Not across the shift: a prompt's step has other bits than the steps of its tokens.
        let drafted = answer(&mut small(), &prompt, &options, |said| right_then_wrong(&known, said, 3));
        assert_eq!(drafted.outcome.finish, finish);
        let same = drafted.outcome.tokens.iter().zip(&known).take_while(|(one, two)| one == two).count();
        assert!(same >= 48 - prompt.len(), "{same}");
        assert_eq!(drafted.outcome.tokens.len(), known.len());
    }
}

#[test]
fn a_step_with_drafts_that_is_stopped_never_happened() {
    const ID: u64 = 3;
    let mut plain = batcher(1);
    let prompt = question(&plain, "What is a lynx?");
    let known = without_drafts(&mut plain, &prompt, &greedy()).outcome.tokens;
    let mut batcher = batcher(1);
    let mut heard = Heard::default();
    let setup = setup(&batcher, &prompt, &greedy());
    batcher.admit(ID, setup, &mut heard);
    while batcher.active() > 0 {
        let said = batcher.find(ID).unwrap().tokens()[prompt.len()..].to_vec();
        batcher.propose(ID, right_then_wrong(&known, &said, 2)).unwrap();
        batcher.loaded().abort.store(true, Ordering::Relaxed);
        assert!(matches!(batcher.step(&mut heard), Step::Aborted));
        assert_eq!(batcher.find(ID).unwrap().tokens()[prompt.len()..], said);
        check_rows(&batcher);
        batcher.loaded().abort.store(false, Ordering::Relaxed);
        assert!(matches!(batcher.step(&mut heard), Step::Done));
        check_rows(&batcher);
    }
    assert_eq!(heard.done[&ID].tokens, known);
}

#[test]
fn drafts_that_cannot_be_tried_are_refused() {
    let mut demo = batcher(1);
    assert_eq!(demo.propose(1, vec![5]), Err(DraftError::NoRequest));
    let prompt = question(&demo, "What is a lynx?");
    let setup_of_demo = setup(&demo, &prompt, &greedy());
    demo.admit(1, setup_of_demo, &mut Heard::default());
    let beyond = Token::try_from(demo.vocab().len()).unwrap();
    assert_eq!(demo.propose(1, vec![5, beyond]), Err(DraftError::BadToken(beyond)));
    assert_eq!(demo.propose(1, vec![-2]), Err(DraftError::BadToken(-2)));
    assert_eq!(demo.propose(1, vec![5]), Ok(()));
}

#[test]
fn drafts_are_refused_where_a_recurrent_state_cannot_be_rewound() {
    let folder = tempfile::tempdir().unwrap();
    let demo = ModelSource::open(&demo_path()).unwrap();
    let path = mamba::mamba(folder.path(), &demo.metadata, demo.shape.vocab);
    let settings = LoadSettings::default().with_choice(Residency::Resident).with_context(256);
    let mut batcher = batcher_of(&path, settings);
    let prompt = question(&batcher, "What is a lynx?");
    let setup = setup(&batcher, &prompt, &greedy());
    batcher.admit(1, setup, &mut Heard::default());
    let refused = batcher.propose(1, vec![5]).unwrap_err();
    assert_eq!(refused, DraftError::Recurrent { architecture: "mamba".to_owned() });
    assert!(refused.to_string().contains("mamba"), "{refused}");
}

#[test]
fn an_answer_that_repeats_itself_ends() {
    let mut batcher = batcher(1);
    let prompt = question(&batcher, "What is a lynx?");
    let token = question(&batcher, " a")[0];
    let options = Options { max_tokens: None, repeat_limit: Some(10), ..greedy() };
    let repeated = Setup { forced: Some(vec![token; 40]), ..setup(&batcher, &prompt, &options) };
    let mut heard = Heard::default();
    batcher.admit(7, repeated, &mut heard);
    while batcher.active() > 0 {
        assert!(matches!(batcher.step(&mut heard), Step::Done));
    }
    let outcome = heard.done.remove(&7).unwrap();
    assert_eq!(
        (outcome.finish, outcome.tokens.len()),
        (Finish::Repeats, 12),
        "said, and ten times again, and once more"
    );
}
