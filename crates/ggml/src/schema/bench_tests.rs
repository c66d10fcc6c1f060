//! The schemas of JSONSchemaBench with the instances of its MaskBench, over a real vocabulary: what can be
//! said, and what a mask costs. The data are not here; see `tests/json-schema-test-suite/README.md`.

use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SchemaCompiler;
use super::matcher::SchemaMatcher;
use super::suite_tests::{names_in, respelled};

/// A line for each schema with its instances, and a line for each token, in base64.
const DATA: &str = "HYPURA_JSON_SCHEMA_BENCH";
const TOKENS: &str = "HYPURA_JSON_SCHEMA_BENCH_TOKENS";
/// Only each so many schemas.
const STEP: &str = "HYPURA_JSON_SCHEMA_BENCH_STEP";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

fn compiler() -> SchemaCompiler {
    let mut words: Vec<Vec<u8>> =
        std::fs::read_to_string(variable(TOKENS)).unwrap().lines().map(decoded).collect();
    words.push(b"\xff<end>".to_vec());
    let count = u32::try_from(words.len()).unwrap();
    let info = TokRxInfo::new(count, count - 1);
    SchemaCompiler::of_tokens(Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)))).unwrap()
}

/// Times, sorted when they are read.
#[derive(Debug, Default)]
struct Times(Vec<Duration>);

impl Times {
    fn told(&mut self) -> String {
        self.0.sort_unstable();
        let at = |share: f64| {
            let index = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
            self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let sum: Duration = self.0.iter().sum();
        let mean = sum.as_secs_f64() * 1e6 / self.0.len().max(1) as f64;
        format!(
            "{} times, mean {mean:.0} µs, p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, longest {:.0}",
            self.0.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
        )
    }
}

/// Says a text token by token, with the mask before each; whether it can be said.
fn says(compiler: &SchemaCompiler, matcher: &SchemaMatcher, text: &str, masks: Option<&mut Times>) -> bool {
    let mut matcher = matcher.clone();
    let mut times = masks;
    for token in compiler.tokens_of(text.as_bytes()) {
        if let Some(times) = &mut times {
            let began = Instant::now();
            let mask = matcher.mask();
            times.0.push(began.elapsed());
            let allowed = mask.is_some_and(|mask| mask.is_allowed(token.cast_unsigned()));
            assert_eq!(allowed, matcher.allows(token), "the mask says what the token does");
        }
        if !matcher.accept(token) {
            return false;
        }
    }
    matcher.may_end()
}

#[test]
#[ignore = "#20: needs data that are not here"]
fn json_schema_bench() {
    let compiler = compiler();
    let step: usize = std::env::var(STEP).ok().and_then(|step| step.parse().ok()).unwrap_or(1);
    let (mut compiles, mut masks, mut refused) = (Times::default(), Times::default(), BTreeMap::new());
    let (mut schemas, mut possible, mut impossible) = (0, 0, 0);
    let (mut missed, mut broken) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(variable(DATA)).unwrap().lines().step_by(step) {
        let group: Value = serde_json::from_str(line).unwrap();
        schemas += 1;
        let began = Instant::now();
        let matcher = compiler.matcher(&group["schema"].to_string());
        compiles.0.push(began.elapsed());
        let matcher = match matcher {
            Ok(matcher) => matcher,
            Err(error) => {
                *refused.entry(error.reason.chars().take(60).collect::<String>()).or_insert(0) += 1;
                continue;
            }
        };
        let mut names = Vec::new();
        names_in(&group["schema"], &mut names);
        for test in group["tests"].as_array().unwrap() {
            let text = respelled(&test["data"], &names).to_string();
            let valid = test["valid"] == true;
            let sayable = says(&compiler, &matcher, &text, valid.then_some(&mut masks));
            let named = || format!("{}: {}", group["name"], text.chars().take(200).collect::<String>());
            match (valid, sayable) {
                (true, true) => possible += 1,
                (false, false) => impossible += 1,
                (true, false) => missed.push(named()),
                (false, true) => broken.push(named()),
            }
        }
    }
    let count: usize = refused.values().sum();
    println!("{schemas} schemas, {count} refused: {refused:#?}");
    println!("compiling: {}\nmasks: {}", compiles.told(), masks.told());
    println!(
        "{possible} possible, {} missed; {impossible} impossible, {} broken",
        missed.len(),
        broken.len()
    );
    for (what, all) in [("missed", &missed), ("broken", &broken)] {
        all.iter().take(40).for_each(|name| println!("{what}: {name}"));
    }
    assert!(broken.len() * 100 <= impossible, "instances that break their schema can be said");
}
