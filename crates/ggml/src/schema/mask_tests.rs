//! What a mask costs with a vocabulary of 150,000 tokens. The vocabulary is made here: words and pieces of
//! words in several cases, numbers, punctuation, code and letters of other scripts, in the proportions of the
//! tokenizers in use. Answers are walks over what masks allow, as a model without any sense would write them.

use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokRxInfo, TokTrie};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SchemaCompiler;

const TOKENS: usize = 150_000;

/// Numbers that look random and are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27) as usize % most
    }
}

fn words() -> Vec<Vec<u8>> {
    let mut random = Random(1);
    let mut all: BTreeSet<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    all.extend((0..1000).map(|number| number.to_string().into_bytes()));
    let signs = b" \n\t{}[]()\"':;,./\\_-=+*&|<>!?#@$%^~`";
    while all.len() < TOKENS - 1 {
        let letters: Vec<u8> =
            (0..2 + random.below(8)).map(|_| b"etaoinshrdlucmfwypvbgkqjxz"[random.below(26)]).collect();
        let word = match random.below(20) {
            0..8 => [b" ".as_slice(), &letters].concat(),
            8..13 => letters,
            13 | 14 => [&letters[..1].to_ascii_uppercase(), &letters[1..]].concat(),
            15 => letters.to_ascii_uppercase(),
            16 | 17 => (0..1 + random.below(5)).map(|_| signs[random.below(signs.len())]).collect(),
            18 => [&[signs[random.below(signs.len())]], letters.as_slice()].concat(),
            _ => {
                let letter = |at: usize| char::from_u32(0x400 + at as u32).unwrap_or('a');
                (0..1 + random.below(4))
                    .map(|_| letter(random.below(0x9000)))
                    .collect::<String>()
                    .into_bytes()
            }
        };
        all.insert(word);
    }
    all.into_iter().chain([b"\xff<end>".to_vec()]).collect()
}

fn schemas() -> Vec<Value> {
    let text = json!({"type": "string"});
    let person = json!({"type": "object", "required": ["name", "age"], "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 80},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "born": {"type": "string", "format": "date-time"}}});
    vec![
        json!({"type": "object"}),
        json!({"type": "array", "items": {"type": "number"}}),
        person.clone(),
        json!({"type": "object", "properties": {"people": {"type": "array", "items": person, "maxItems": 20}}}),
        json!({"type": "object", "required": ["path", "edits"], "properties": {
            "path": text, "dry": {"type": "boolean"},
            "edits": {"type": "array", "items": {"type": "object", "required": ["old", "new"],
                "properties": {"old": text, "new": text, "line": {"type": "integer"}}}}}}),
        json!({"type": "object", "properties": {"id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,8}$"},
            "note": {"type": "string", "pattern": "\\\\w+ (is|was) \\\\d"}}, "required": ["id", "note"]}),
        json!({"anyOf": [{"type": "object", "properties": {"a": text}, "required": ["a"]},
            {"type": "array", "items": text}, {"enum": ["yes", "no", null, 3.5]}]}),
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["value"], "properties": {
            "value": text, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}}),
        json!({"type": "object", "properties": (0..100).map(|at| (format!("field_{at}"), text.clone()))
            .collect::<serde_json::Map<_, _>>()}),
        json!({"type": "object", "patternProperties": {"^x-": text}, "additionalProperties": {"type": "integer"}}),
    ]
}

/// One of the tokens of a mask, none where only the end is left.
fn any_of(mask: &SimpleVob, random: &mut Random) -> Option<i32> {
    let all: Vec<u32> = mask.iter().filter(|token| (*token as usize) < TOKENS - 1).collect();
    (!all.is_empty()).then(|| all[random.below(all.len())].cast_signed())
}

#[test]
#[ignore = "#20: a measurement, for a quiet machine"]
fn masks_of_150_000_tokens() {
    let words = words();
    let info = TokRxInfo::new(TOKENS as u32, TOKENS as u32 - 1);
    let trie = TokTrie::from(&info, &words);
    let compiler = SchemaCompiler::of_tokens(Arc::new(ApproximateTokEnv::new(trie))).unwrap();
    let mut all = Vec::new();
    for schema in schemas() {
        let (mut times, mut random) = (Vec::new(), Random(2));
        for _ in 0..5 {
            let mut matcher = compiler.matcher(&schema.to_string()).unwrap();
            for _ in 0..200 {
                let began = Instant::now();
                let Some(mask) = matcher.mask() else { break };
                times.push(began.elapsed());
                let Some(token) = any_of(&mask, &mut random) else { break };
                assert!(matcher.accept(token));
            }
        }
        println!("{} {:.60}", percentiles(&mut times), schema.to_string());
        all.extend(times);
    }
    println!("{} all", percentiles(&mut all));
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
    format!(
        "{:5} masks, mean {mean:5.0} us, p50 {:5.0}, p90 {:5.0}, p99 {:5.0}",
        times.len(),
        at(50),
        at(90),
        at(99)
    )
}
