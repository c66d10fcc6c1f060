//! The schemas of JSONSchemaBench with the instances of its MaskBench, over a real vocabulary: what can be
//! said, and what a mask costs. The data are not here; see `tests/json-schema-test-suite/README.md`.

use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SchemaCompiler;
use super::matcher::SchemaMatcher;
use super::rewrite::Extras;
use super::suite_tests::respelled;

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

/// Where a reference within a schema leads.
fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..8 {
        let target = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        match target.and_then(|target| root.pointer(target)) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

/// The parts of a schema that describe the same value.
fn parts<'a>(root: &'a Value, schema: &'a Value, depth: usize) -> Vec<&'a Value> {
    let schema = resolved(root, schema);
    let others =
        ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|keyword| schema[keyword].as_array()).flatten();
    let others = others.filter(|_| depth < 8).flat_map(|part| parts(root, part, depth + 1));
    std::iter::once(schema).chain(others).collect()
}

/// The same value with its properties in the order of the schema, which is the one in which they are written.
fn in_order(root: &Value, schema: &Value, value: &Value) -> Value {
    let parts = parts(root, schema, 0);
    match value {
        Value::Object(fields) => {
            let listed: Vec<(&String, &Value)> =
                parts.iter().filter_map(|part| part["properties"].as_object()).flatten().collect();
            let place = |key: &String| listed.iter().position(|(name, _)| *name == key);
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_by_key(|key| place(key).unwrap_or(usize::MAX));
            let of_key = |key: &String| {
                let own = place(key).map(|place| listed[place].1);
                let other = || {
                    parts.iter().map(|part| &part["additionalProperties"]).find(|schema| schema.is_object())
                };
                own.or_else(other).unwrap_or(&Value::Null)
            };
            keys.into_iter().map(|key| (key.clone(), in_order(root, of_key(key), &fields[key]))).collect()
        }
        Value::Array(all) => {
            let items = parts.iter().map(|part| &part["items"]).find(|schema| schema.is_object());
            all.iter().map(|item| in_order(root, items.unwrap_or(&Value::Null), item)).collect()
        }
        _ => respelled(value, &[]),
    }
}

/// What became of the instances.
#[derive(Debug, Default)]
struct Tally {
    possible: usize,
    impossible: usize,
    /// Valid, and cannot be said.
    missed: Vec<String>,
    /// Invalid, and can be said.
    broken: Vec<String>,
}

impl Tally {
    fn count(&mut self, named: impl FnOnce() -> String, valid: bool, sayable: bool) {
        match (valid, sayable) {
            (true, true) => self.possible += 1,
            (false, false) => self.impossible += 1,
            (true, false) => self.missed.push(named()),
            (false, true) => self.broken.push(named()),
        }
    }

    fn tell(&self, what: &str) {
        let Self { possible, impossible, missed, broken } = self;
        println!(
            "{what}: {possible} possible, {} missed; {impossible} impossible, {} broken",
            missed.len(),
            broken.len()
        );
        for (what, all) in [("missed", missed), ("broken", broken)] {
            all.iter().take(25).for_each(|name| println!("  {what}: {name}"));
        }
    }
}

#[test]
#[ignore = "#20: needs data that are not here"]
fn json_schema_bench() {
    let compiler = compiler();
    let step: usize = std::env::var(STEP).ok().and_then(|step| step.parse().ok()).unwrap_or(1);
    let (mut compiles, mut masks, mut refused) = (Times::default(), Times::default(), BTreeMap::new());
    let (mut closed, mut open, mut schemas) = (Tally::default(), Tally::default(), 0);
    for line in std::fs::read_to_string(variable(DATA)).unwrap().lines().step_by(step) {
        let group: Value = serde_json::from_str(line).unwrap();
        let schema = &group["schema"];
        schemas += 1;
        let began = Instant::now();
        let matcher = compiler.matcher(&schema.to_string());
        compiles.0.push(began.elapsed());
        let matcher = match matcher {
            Ok(matcher) => matcher,
            Err(error) => {
                *refused.entry(error.reason.chars().take(60).collect::<String>()).or_insert(0) += 1;
                continue;
            }
        };
        let as_written = compiler.compile(schema, Extras::AsWritten).ok().map(SchemaMatcher::new);
        for test in group["tests"].as_array().unwrap() {
            let text = in_order(schema, schema, &test["data"]).to_string();
            let valid = test["valid"] == true;
            let named = || format!("{}: {}", group["name"], text.chars().take(160).collect::<String>());
            closed.count(named, valid, says(&compiler, &matcher, &text, valid.then_some(&mut masks)));
            if let Some(matcher) = &as_written {
                open.count(named, valid, says(&compiler, matcher, &text, None));
            }
        }
    }
    let count: usize = refused.values().sum();
    println!("{schemas} schemas, {count} refused: {refused:#?}");
    println!("compiling: {}\nmasks: {}", compiles.told(), masks.told());
    closed.tell("objects closed");
    open.tell("as written");
    assert!(open.broken.len() * 100 <= open.impossible, "instances that break their schema can be said");
}
