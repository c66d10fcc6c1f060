//! Schemas that explode, loop or recurse: each is compiled or refused in a moment, because whoever else uses
//! the model waits for its process.

use llguidance::toktrie::{ApproximateTokEnv, SimpleVob};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

use super::SchemaCompiler;

/// `links` definitions, each made of the next one by `link`.
fn chain(links: usize, last: &Value, link: impl Fn(Value) -> Value) -> Value {
    let mut definitions = Map::new();
    for at in 0..links {
        let next =
            if at + 1 == links { last.clone() } else { json!({"$ref": format!("#/$defs/a{}", at + 1)}) };
        definitions.insert(format!("a{at}"), link(next));
    }
    json!({"$defs": definitions, "$ref": "#/$defs/a0"})
}

fn nested(levels: usize, inner: Value, link: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(inner, |inner, _| link(inner))
}

/// A schema and what it is.
type Bomb = (&'static str, Value);

fn text() -> Value {
    json!({"type": "string"})
}

fn several(keyword: &str, count: usize, part: &dyn Fn(usize) -> Value) -> Value {
    json!({keyword: (0..count).map(part).collect::<Vec<_>>()})
}

/// References that are followed again and again, and alternatives that are compared.
fn doubled() -> Vec<Bomb> {
    let text = text();
    let object = |part: Value| json!({"type": "object", "properties": {"x": part.clone(), "y": part}});
    vec![
        ("properties, doubled", chain(200, &text, object)),
        ("allOf, doubled", chain(40, &text, |part| json!({"allOf": [part.clone(), part]}))),
        (
            "allOf of objects, doubled",
            chain(
                40,
                &json!({"type": "object"}),
                |part| json!({"allOf": [part.clone(), {"properties": {"x": part.clone()}}, part]}),
            ),
        ),
        ("anyOf, doubled", chain(40, &text, |part| json!({"anyOf": [part.clone(), part]}))),
        (
            "anyOf in allOf",
            several(
                "allOf",
                24,
                &|at| json!({"anyOf": [{"properties": {format!("a{at}"): {"const": 1}}}, {"properties": {format!("b{at}"): {"const": 2}}}]}),
            ),
        ),
        (
            "oneOf, doubled",
            chain(40, &text, |part| json!({"oneOf": [part.clone(), {"type": "array", "items": part}]})),
        ),
        ("oneOf of many", several("oneOf", 3000, &|at| json!({"const": at}))),
        (
            "oneOf of references",
            chain(60, &json!({"const": 1}), |part| {
                json!({"oneOf": [{"type": "object", "required": ["k"], "properties": {"k": part.clone()}},
                             {"type": "object", "required": ["k"], "properties": {"k": part}}]})
            }),
        ),
        (
            "oneOf of two lists",
            several(
                "oneOf",
                2,
                &|at| json!({"enum": (0..20_000).map(|value| 2 * value + at).collect::<Vec<_>>()}),
            ),
        ),
        ("oneOf of references with many names", {
            let names: Vec<String> = (0..40).map(|at| format!("p{at}")).collect();
            let all = |of: &str| -> Map<String, Value> {
                names.iter().map(|name| (name.clone(), json!({"$ref": format!("#/$defs/{of}")}))).collect()
            };
            let object = |of: &str| json!({"type": "object", "required": names, "properties": all(of)});
            json!({"$defs": {"a": object("b"), "b": object("a")},
                   "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]})
        }),
    ]
}

/// References that lead to themselves.
fn loops() -> Vec<Bomb> {
    vec![
        ("a loop", json!({"$ref": "#"})),
        (
            "a loop of two",
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        (
            "a loop in allOf",
            json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}}, "$ref": "#/$defs/a"}),
        ),
        ("a loop in anyOf", json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        ("a loop in not", json!({"not": {"$ref": "#"}})),
        (
            "a loop that grows",
            json!({"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"b": {"$ref": "#"}}}]}),
        ),
        ("a loop through items", json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1000})),
    ]
}

/// Depth and numbers.
fn large() -> Vec<Bomb> {
    let text = text();
    vec![
        ("deep arrays", nested(120, text.clone(), |part| json!({"type": "array", "items": part}))),
        (
            "deep objects",
            nested(60, text.clone(), |part| json!({"type": "object", "properties": {"a": part}})),
        ),
        ("deep anyOf", nested(60, text.clone(), |part| json!({"anyOf": [part, {"type": "null"}]}))),
        ("many properties", {
            let all: Map<String, Value> = (0..20_000).map(|at| (format!("p{at}"), text.clone())).collect();
            json!({"type": "object", "properties": all})
        }),
        ("many values", json!({"enum": (0..100_000).map(|at| format!("v{at}")).collect::<Vec<_>>()})),
        ("many patterns", {
            let all: Map<String, Value> = (0..2000).map(|at| (format!("^p{at}"), text.clone())).collect();
            json!({"type": "object", "patternProperties": all})
        }),
    ]
}

/// Lengths, counts, patterns and bounds.
fn counting() -> Vec<Bomb> {
    let text = text();
    vec![
        ("long strings", json!({"type": "string", "minLength": 1_000_000_000})),
        ("bounded strings", json!({"type": "string", "minLength": 1_000_000, "maxLength": 1_000_001})),
        ("long arrays", json!({"type": "array", "minItems": 1_000_000_000, "items": text})),
        ("bounded arrays", json!({"type": "array", "minItems": 5000, "maxItems": 5001, "items": text})),
        (
            "nested counts",
            nested(
                6,
                text.clone(),
                |part| json!({"type": "array", "minItems": 1000, "maxItems": 1000, "items": part}),
            ),
        ),
        ("tuples", json!({"type": "array", "prefixItems": vec![text.clone(); 20_000]})),
        ("a pattern that counts", json!({"type": "string", "pattern": "^((a{0,1000}){0,1000}){0,1000}$"})),
        ("a pattern with overlaps", json!({"type": "string", "pattern": "^(a|b|ab)*c(.*a){20}$"})),
        ("a pattern that remembers", json!({"type": "string", "pattern": "^[ab]*a[ab]{200}$"})),
        (
            "patterns that meet",
            several(
                "allOf",
                12,
                &|at| json!({"type": "string", "pattern": format!("(a|b)*a(a|b){{{}}}", at + 8)}),
            ),
        ),
        (
            "a pattern with classes",
            json!({"type": "string", "pattern": "^(\\p{L}\\p{N}){1,500}[^\\p{L}]{500}$"}),
        ),
        ("large multiples", json!({"type": "integer", "multipleOf": 987_654_321, "minimum": 1})),
        (
            "multiples that meet",
            several("allOf", 12, &|at| json!({"type": "integer", "multipleOf": 1009 + 2 * at})),
        ),
        ("bounds of many digits", json!({"type": "number", "minimum": 1e-300, "maximum": 1e300})),
    ]
}

#[test]
fn no_schema_takes_long() {
    let compiler = SchemaCompiler::of_tokens(ApproximateTokEnv::single_byte_env()).unwrap();
    let mut slow = Vec::new();
    for (what, schema) in [doubled(), loops(), large(), counting()].concat() {
        let start = Instant::now();
        let text = schema.to_string();
        let made = compiler.matcher(&text);
        let took = start.elapsed();
        println!(
            "{what}: {took:?}, {}",
            made.as_ref().err().map_or("compiled".to_owned(), ToString::to_string)
        );
        if took > Duration::from_secs(5) {
            slow.push((what, took));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

/// Any value where a schema expects one of its own.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..20_i64).prop_map(Value::from),
        prop::sample::select(vec![
            "object", "array", "string", "integer", "number", "null", "", "a", "^a+$", "("
        ])
        .prop_map(Value::from),
        prop::sample::select(vec![
            "#",
            "#/$defs/a",
            "#/$defs/b",
            "#/properties/a",
            "date",
            "uuid",
            "http://x/y"
        ])
        .prop_map(Value::from),
    ];
    let keyword = prop::sample::select(vec![
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "enum",
        "const",
        "$ref",
        "$defs",
        "a",
        "b",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "multipleOf",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "discriminator",
        "propertyName",
        "unevaluatedProperties",
        "if",
        "then",
        "uniqueItems",
        "contains",
        "minProperties",
    ]);
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keyword.clone(), inner), 0..6).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
            }),
        ]
    })
}

/// What is said next where a schema allows several tokens.
fn chosen(mask: &SimpleVob, choice: u32) -> Option<i32> {
    let allowed: Vec<u32> = mask.iter().collect();
    let at = (choice as usize).checked_rem(allowed.len())?;
    i32::try_from(allowed[at]).ok()
}

/// Compiles a schema, and says something of it, whatever the choices are.
fn follow(schema: &Value, choices: &[u32]) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let compiler = SchemaCompiler::of_tokens(ApproximateTokEnv::single_byte_env()).unwrap();
    if let Ok(mut matcher) = compiler.matcher(&schema.to_string()) {
        for choice in choices {
            let Some(token) = matcher.mask().and_then(|mask| chosen(&mask, *choice)) else { break };
            if matcher.may_end() && !matcher.allows(token) {
                break;
            }
            prop_assert!(matcher.accept(token), "the mask allows {token}");
        }
    }
    prop_assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    Ok(())
}

/// `make fuzz` sets HYPURA_FUZZ_SECONDS, and other schemas are made until so long is over.
#[test]
fn any_schema_is_compiled_or_refused_and_followed_in_a_moment() {
    let (start, seconds) = (Instant::now(), std::env::var("HYPURA_FUZZ_SECONDS").ok());
    let long = Duration::from_secs(seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0));
    let both = (anything(), prop::collection::vec(any::<u32>(), 0..40));
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < long {
        let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
        let followed = TestRunner::new(config).run(&both, |(schema, choices)| follow(&schema, &choices));
        followed.unwrap_or_else(|error| panic!("{error}"));
        rounds += 1;
    }
    println!("{} schemas", rounds * 500);
}
