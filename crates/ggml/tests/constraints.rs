//! What answers are held to: values of JSON schemas, alone and where chat templates have them. Texts are said
//! token by token, as the model's tokenizer cuts them.
#![expect(clippy::unwrap_used, reason = "tests")]

use hypura_ggml::{
    ChatError, ChatParser, ChatRequest, ChatTemplates, Grammar, LoadMode, LoadOptions, Model, ReasoningSplit,
    SampleError, Sampler, SamplerOptions, Token, ToolChoice, Vocab,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;

const QWEN: &str = include_str!("templates/qwen.jinja");
const LLAMA3: &str = include_str!("templates/llama3.jinja");
const HARMONY: &str = include_str!("templates/harmony.jinja");
const R1: &str = include_str!("templates/r1.jinja");
const MISTRAL: &str = include_str!("templates/mistral.jinja");
const TAGGED: &str = include_str!("templates/tagged.jinja");

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf");
    let options = LoadOptions::on_cpu(path, LoadMode::VocabOnly);
    Model::load(&options).unwrap().fill(|_| Ok::<_, ()>(())).unwrap()
});

fn vocab() -> Vocab {
    MODEL.vocab()
}

fn sampler(grammar: &Grammar) -> Sampler {
    Sampler::with_grammar(&vocab(), &SamplerOptions::default(), grammar).unwrap()
}

/// Says a text and ends; how much of it was taken before a token was refused, or nothing if none was.
fn refused_after(grammar: &Grammar, text: &str) -> Option<String> {
    let (vocab, mut sampler) = (vocab(), sampler(grammar));
    let mut said = String::new();
    let tokens = vocab.tokenize(text, false, true).into_iter().chain(vocab.eos());
    for token in tokens {
        if sampler.accept(token).is_err() {
            return Some(said);
        }
        said.push_str(&String::from_utf8_lossy(&vocab.piece(token, true)));
    }
    None
}

#[track_caller]
fn takes(grammar: &Grammar, text: &str) {
    assert_eq!(refused_after(grammar, text), None, "{text}");
}

#[track_caller]
fn refuses(grammar: &Grammar, text: &str, after: &str) {
    let said = refused_after(grammar, text);
    assert!(said.as_ref().is_some_and(|said| said.contains(after)), "{text}: {said:?}");
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]+$"},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null]}, "maxItems": 2},
        },
        "required": ["name", "age"],
    })
}

#[test]
fn a_schema_alone_takes_what_fits_and_nothing_else() {
    let grammar = Grammar::json_schema(person().to_string());
    takes(&grammar, r#"{"name": "Ada", "age": 36}"#);
    takes(&grammar, r#"{"name":"Ada","age":36,"tags":["a",3]}"#);
    takes(&grammar, " {\n  \"name\": \"Ada\",\n  \"age\": 150,\n  \"tags\": []\n}");
    refuses(&grammar, r#"{"name": "ada", "age": 36}"#, "name");
    refuses(&grammar, r#"{"name": "Ada", "age": 151}"#, "age");
    refuses(&grammar, r#"{"name": "Ada", "age": 36.5}"#, "36");
    refuses(&grammar, r#"{"name": "Ada"}"#, "Ada");
    refuses(&grammar, r#"{"name": "Ada", "age": 3, "tags": ["a", "b", "a"]}"#, "\"b");
    refuses(&grammar, r#"{"name": "Ada", "age": 3, "more": 1}"#, "3");
    refuses(&grammar, r#"{"name": "Ada", "age": 3} and"#, "3}");
    refuses(&grammar, "\"hypura-schema-0-\"", "");
    refuses(&grammar, "\u{1}hypura-schema-0-", "");
    refuses(&grammar, &format!("{{{}\"name\"", " ".repeat(200)), "{");
    let number = Grammar::json_schema(r#"{"type":"integer","minimum":10}"#);
    takes(&number, "12");
    refuses(&number, "7", "");
    takes(&Grammar::json_schema("true"), r#"[1, {"x": null}]"#);
}

fn templates(source: &str) -> ChatTemplates {
    ChatTemplates::new(&MODEL, Some(source)).unwrap()
}

fn request() -> ChatRequest {
    ChatRequest::new(r#"[{"role":"user","content":"Hi"}]"#)
}

fn tools(parameters: &Value, strict: bool) -> String {
    let function = json!({"name": "note", "description": "d", "parameters": parameters, "strict": strict});
    let other = json!({"name": "now", "parameters": {"type": "object", "properties": {}}});
    json!([{"type": "function", "function": function}, {"type": "function", "function": other}]).to_string()
}

#[test]
fn an_answer_has_a_value_of_its_schema_where_the_template_has_answers() {
    let request = ChatRequest { json_schema: Some(person().to_string()), ..request() };
    let good = r#"{"name": "Ada", "age": 36}"#;
    for (template, before) in [
        (QWEN, ""),
        (QWEN, "<think>\nWho?\n</think>\n\n"),
        (LLAMA3, ""),
        (R1, "Who?\n</think>\n\n"),
        (MISTRAL, ""),
        (HARMONY, "<|channel|>analysis<|message|>Who?<|end|><|start|>assistant<|channel|>final<|message|>"),
    ] {
        let grammar = templates(template).apply(&request).unwrap().grammar.unwrap();
        assert_eq!(grammar.schemas, [person().to_string()]);
        takes(&grammar, &format!("{before}{good}"));
        refuses(&grammar, &format!("{before}{}", good.replace("36", "x")), "age");
        refuses(&grammar, &format!("{before}{}", good.replace("name", "nome")), before.trim());
    }
}

#[test]
fn calls_have_arguments_that_fit_where_they_are_json() {
    let request = ChatRequest { tools_json: Some(tools(&person(), false)), ..request() };
    let (good, bad) = (r#"{"name": "Ada", "age": 36}"#, r#"{"name": "Ada", "age": "x"}"#);
    for (template, before, after) in [
        (QWEN, "<tool_call>\n{\"name\": \"note\", \"arguments\": ", "}\n</tool_call>"),
        (LLAMA3, "{\"name\": \"note\", \"parameters\": ", "}"),
        (MISTRAL, "[TOOL_CALLS][{\"name\": \"note\", \"arguments\": ", ", \"id\": \"abcdefghi\"}]"),
    ] {
        for choice in [ToolChoice::Auto, ToolChoice::Required] {
            let request = ChatRequest { tool_choice: choice, ..request.clone() };
            let prompt = templates(template).apply(&request).unwrap();
            let Some(grammar) = prompt.grammar else {
                assert_eq!(
                    (choice, template),
                    (ToolChoice::Auto, LLAMA3),
                    "only its calls begin with nothing"
                );
                continue;
            };
            assert!(!prompt.text.contains("hypura-schema"), "{}", prompt.text);
            assert!(prompt.text.contains("maximum"), "the model reads the schema: {}", prompt.text);
            assert_eq!(grammar.schemas.len(), 2, "{}", grammar.gbnf);
            takes(&grammar, &format!("{before}{good}{after}"));
            takes(&grammar, &format!("{before}{}{after}", good.replace(": ", ":")));
            refuses(&grammar, &format!("{before}{bad}{after}"), "age");
        }
    }
}

#[test]
fn a_strict_tool_that_cannot_be_enforced_is_refused_by_name_and_another_takes_any_object() {
    let unsupported = json!({"type": "object", "properties": {"x": {"not": {"pattern": "x"}}}});
    for template in [QWEN, LLAMA3, MISTRAL, HARMONY] {
        let ask = |strict| ChatRequest {
            tools_json: Some(tools(&unsupported, strict)),
            tool_choice: ToolChoice::Required,
            ..request()
        };
        let error = templates(template).apply(&ask(true)).unwrap_err();
        assert!(matches!(error, ChatError::Schema(_)));
        for part in ["`note`", "parameters", "properties.x", "`not`"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(templates(template).apply(&ask(false)).unwrap().text.contains("note"));
    }
    let grammar = ChatRequest { tools_json: Some(tools(&unsupported, false)), ..request() };
    let grammar = templates(QWEN).apply(&grammar).unwrap().grammar.unwrap();
    takes(&grammar, "<tool_call>\n{\"name\": \"note\", \"arguments\": {\"any\": [1]}}\n</tool_call>");
    refuses(&grammar, "<tool_call>\n{\"name\": \"note\", \"arguments\": [1]}\n</tool_call>", "arguments");
}

#[test]
fn what_cannot_be_enforced_is_refused_with_its_place() {
    for (schema, parts) in [
        (
            json!({"properties": {"a": {"items": {"not": {"pattern": "x"}}}}}),
            &["properties.a.items", "`not`"][..],
        ),
        (
            json!({"properties": {"age": {"type": "integer", "minimum": 5, "maximum": 3}}}),
            &["properties.age", "minimum 5", "3"],
        ),
        (json!({"type": "array", "minItems": 2, "maxItems": 1}), &["minItems"]),
        (
            json!({"properties": {"a": {"if": {"const": 1}, "then": {"type": "null"}}}}),
            &["properties.a", "`if`"],
        ),
        (json!({"properties": {"a": {"uniqueItems": true}}}), &["properties.a", "`uniqueItems`"]),
        (
            json!({"properties": {"a": {"oneOf": [{"type": "string"}, {"minLength": 3}]}}}),
            &["properties.a", "`oneOf`"],
        ),
        (json!({"properties": {"a": {"$ref": "#/$defs/none"}}}), &["properties.a", "none"]),
        (json!({"type": "nonsense"}), &["nonsense"]),
        (json!({"properties": {"a": {"const": 9_007_199_254_740_993_u64}}}), &["properties.a", "740993"]),
        (json!(false), &["false"]),
        (json!([]), &["object"]),
    ] {
        let error = vocab().check_schema(&schema.to_string()).unwrap_err();
        for part in parts {
            assert!(error.to_string().contains(part), "{schema}: {error}");
        }
    }
}

/// Forms that pydantic, zod, schemars and TypeBox write.
#[test]
fn what_libraries_write_is_enforced() {
    let pet = |kind: &str, property: &str, schema: Value| {
        let properties = json!({"kind": {"const": kind, "default": kind}, property: schema});
        json!({"type": "object", "properties": properties, "required": [property]})
    };
    let cat = pet("cat", "lives", json!({"type": "integer"}));
    let dog = pet("dog", "good", json!({"type": "boolean"}));
    let either = json!([{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]);
    let union = json!({
        "$defs": {"Cat": cat, "Dog": dog},
        "properties": {"pet": {"discriminator": {"propertyName": "kind"}, "oneOf": either}},
        "required": ["pet"],
    });
    let grammar = Grammar::json_schema(union.to_string());
    takes(&grammar, r#"{"pet": {"kind": "cat", "lives": 9}}"#);
    refuses(&grammar, r#"{"pet": {"kind": "cat", "good": true}}"#, "cat");
    refuses(&grammar, r#"{"pet": {"lives": 9}}"#, "pet");
    let variant = |name: &str| {
        let properties = json!({name: {"type": "number"}});
        json!({"type": "object", "properties": properties, "required": [name], "additionalProperties": false})
    };
    let empty = json!({"type": "string", "enum": ["Empty"]});
    let tagged = json!({"oneOf": [variant("Circle"), variant("Square"), empty]});
    takes(&Grammar::json_schema(tagged.to_string()), r#"{"Square": 2.5}"#);
    let (names, numbers) = (json!({"type": "string"}), json!({"type": "number"}));
    let record = json!({"type": "object", "propertyNames": names, "additionalProperties": numbers});
    takes(&Grammar::json_schema(record.to_string()), r#"{"a": 1, "b": 2}"#);
    let unsigned = json!({"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX});
    let plain = json!({"$schema": "http://json-schema.org/schema#", "properties": {"n": unsigned}});
    takes(&Grammar::json_schema(plain.to_string()), r#"{"n": 12345678901}"#);
    let many = (0..1000).map(|n| (format!("p{n}"), json!({"type": "integer"})));
    let many: serde_json::Map<String, Value> = many.collect();
    vocab().check_schema(&json!({"type": "object", "properties": many}).to_string()).unwrap();
    vocab().check_schema(r#"{"type":"string","minLength":100,"maxLength":1000000}"#).unwrap();
}

/// A row of logits without sense, in which what ends strings and objects is likelier.
fn nonsense(random: &mut u64, vocab: &Vocab, endings: &[Token]) -> Vec<f32> {
    let mut row: Vec<f32> = (0..vocab.len())
        .map(|_| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*random >> 40) as f32 / (1 << 24) as f32 * 4.0
        })
        .collect();
    endings.iter().for_each(|token| row[usize::try_from(*token).unwrap()] += 4.0);
    row
}

#[test]
fn every_answer_that_ends_fits_its_schema() {
    let vocab = vocab();
    let is_ending = |token: &Token| {
        let piece = vocab.piece(*token, false);
        vocab.is_end(*token) || piece.iter().any(|byte| b"\"}],:".contains(byte))
    };
    let endings: Vec<Token> = (0..Token::try_from(vocab.len()).unwrap()).filter(is_ending).collect();
    let schemas = [
        person(),
        json!({"type": "array", "maxItems": 3,
            "items": {"type": "number", "exclusiveMinimum": -2, "maximum": 7.5}}),
        json!({"anyOf": [{"type": "null"}, {"type": "string", "format": "date-time"}, {"const": [1, "x"]}]}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2}),
        json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "required": ["v"], "properties": {
            "v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}}}}),
        json!({"type": "string", "minLength": 2, "maxLength": 9}),
        json!({"type": "object", "additionalProperties": false,
            "patternProperties": {"^x": {"type": "integer", "multipleOf": 7}}}),
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let mut ended = 0;
    for (at, schema) in schemas.iter().cycle().take(70).enumerate() {
        let seed = u32::try_from(at).unwrap();
        let options = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, seed, ..Default::default() };
        let grammar = Grammar::json_schema(schema.to_string());
        let mut sampler = Sampler::with_grammar(&vocab, &options, &grammar).unwrap();
        let mut said = Vec::new();
        for _ in 0..300 {
            let token = match sampler.sample(&nonsense(&mut random, &vocab, &endings)) {
                Ok(token) => token,
                Err(SampleError::Stuck) => {
                    panic!("{schema}: stuck after {:?}", String::from_utf8_lossy(&said))
                }
                Err(error) => panic!("{error}"),
            };
            sampler.accept(token).unwrap();
            if vocab.is_end(token) {
                let value: Value = serde_json::from_slice(&said).unwrap();
                let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
                assert!(validator.is_valid(&value), "{schema}: {value}");
                ended += 1;
                break;
            }
            said.extend(vocab.piece(token, false));
        }
    }
    assert!(ended >= 40, "{ended} of 70 answers ended");
}

#[test]
fn masks_made_ahead_choose_the_tokens_that_masks_in_line_do() {
    let asked = ChatRequest { tools_json: Some(tools(&person(), true)), ..request() };
    let forced = ChatRequest { tool_choice: ToolChoice::Required, ..asked.clone() };
    let of_template = |request: &ChatRequest| templates(QWEN).apply(request).unwrap().grammar.unwrap();
    for grammar in [
        Grammar::json_schema(person().to_string()),
        Grammar::json_schema("true"),
        Grammar::user("root ::= \"a\" [0-9]+ (\", \" root)? \".\""),
        of_template(&asked),
        of_template(&forced),
    ] {
        let (mut in_line, mut ahead) = (sampler(&grammar), sampler(&grammar));
        let mut random = 7;
        for step in 0..150_u64 {
            ahead.prepare();
            // The thread has finished, has just begun, or has not yet.
            if step % 3 == 0 {
                std::thread::sleep(std::time::Duration::from_micros(step * 10));
            }
            let logits = nonsense(&mut random, &vocab(), &[]);
            let token = in_line.sample(&logits);
            assert_eq!(ahead.sample(&logits), token, "step {step}");
            let Ok(token) = token else { break };
            if vocab().is_end(token) {
                break;
            }
            in_line.accept(token).unwrap();
            ahead.accept(token).unwrap();
        }
    }
}

#[test]
fn requests_that_end_while_a_mask_is_made_leave_nothing_behind() {
    let grammar = Grammar::json_schema(person().to_string());
    for _ in 0..50 {
        let mut one = sampler(&grammar);
        one.prepare();
        one.prepare();
        drop(one);
    }
    takes(&grammar, r#"{"name": "Ada", "age": 36}"#);
}

/// A call as templates write it that give each argument a tag.
fn tagged_call(arguments: &[(&str, &str)]) -> String {
    let one = |(name, value): &(&str, &str)| format!("<parameter={name}>\n{value}\n</parameter>\n");
    let all: String = arguments.iter().map(one).collect();
    format!("<tool_call>\n<function=note>\n{all}</function>\n</tool_call>")
}

#[test]
fn arguments_between_tags_fit_their_schemas() {
    let schema = json!({
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["celsius", "a \"b\""]},
            "text": {"type": "string", "description": "any"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "where": {"$ref": "#/$defs/place"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["unit", "days"],
        "$defs": {"place": {"type": "object", "required": ["lat"], "additionalProperties": false,
            "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90},
                "tags": {"type": "array", "items": {"pattern": "^[a-z]+$", "type": "string"}, "maxItems": 2}}}},
    });
    for (choice, strict) in
        [(ToolChoice::Auto, true), (ToolChoice::Required, true), (ToolChoice::Auto, false)]
    {
        let request =
            ChatRequest { tools_json: Some(tools(&schema, strict)), tool_choice: choice, ..request() };
        let mut prompt = templates(TAGGED).apply(&request).unwrap();
        assert!(!prompt.text.contains("hypura-") && prompt.text.contains("maximum"), "{}", prompt.text);
        let grammar = prompt.grammar.take().unwrap();
        assert_eq!(grammar.schemas.len(), 2, "{}", grammar.gbnf);
        takes(&grammar, &tagged_call(&[("unit", "celsius"), ("days", "14")]));
        takes(
            &grammar,
            &tagged_call(&[("days", "1"), ("unit", "a \"b\""), ("text", "<b>\n1</b>"), ("note", "x")]),
        );
        takes(
            &grammar,
            &tagged_call(&[
                ("unit", "celsius"),
                ("days", "2"),
                ("where", r#"{"lat": -9.5, "tags": ["ab"]}"#),
            ]),
        );
        for (arguments, after) in [
            (&[("unit", "kelvin"), ("days", "2")][..], "unit"),
            (&[("unit", "celsius"), ("days", "15")], "days"),
            (&[("unit", "celsius"), ("days", "two")], "days"),
            (&[("unit", "celsius")], "celsius"),
            (&[("unit", "celsius"), ("days", "2"), ("where", r#"{"lat": 91}"#)], "lat"),
            (&[("unit", "celsius"), ("days", "2"), ("where", r#"{"lat": 9, "tags": ["A"]}"#)], "tags"),
        ] {
            refuses(&grammar, &tagged_call(arguments), after);
        }
        // The parser knows the tools as they are: what is a text stays one.
        let mut parser = ChatParser::new(&prompt, ReasoningSplit::Separate);
        let mut deltas = parser.push(&tagged_call(&[("unit", "celsius"), ("days", "14")]));
        deltas.extend(parser.finish(true));
        let said = format!("{deltas:?}").replace('\\', "");
        assert!(said.contains(r#""celsius""#) && said.contains("14"), "{said}");
    }
}

#[test]
fn a_strict_tool_whose_texts_cannot_be_enforced_between_tags_is_refused_by_name() {
    let with = |property: Value| json!({"type": "object", "properties": {"x": property}, "required": ["x"]});
    for (schema, words) in [
        (with(json!({"type": "string", "pattern": "^a+$"})), "`pattern`"),
        (with(json!({"anyOf": [{"type": "string", "maxLength": 3}, {"const": "abc"}]})), "`maxLength`"),
        (with(json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 7}]})), "a text or JSON"),
        (json!({"type": "object", "properties": {}, "required": ["y"]}), "`y`"),
    ] {
        let ask = |strict| ChatRequest { tools_json: Some(tools(&schema, strict)), ..request() };
        let error = templates(TAGGED).apply(&ask(true)).unwrap_err().to_string();
        assert!(error.contains("`note`") && error.contains(words), "{error}");
        let grammar = templates(TAGGED).apply(&ask(false)).unwrap().grammar.unwrap();
        if schema["properties"]["x"].is_object() {
            takes(&grammar, &tagged_call(&[("x", "anything")]));
        }
    }
}
