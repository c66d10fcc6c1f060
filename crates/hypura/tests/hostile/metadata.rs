//! Changes of the metadata.

use crate::draft::Draft;
use crate::mutate::Choices;
use crate::value::{Raw, id};
use crate::words::{ARCHITECTURES, KEYS};

/// A key that is there and no tokeniser's: those have changes of their own.
fn some_key(draft: &Draft, choices: &mut Choices) -> String {
    let all: Vec<String> = draft
        .metadata
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key).into_owned())
        .filter(|key| !key.starts_with("tokenizer"))
        .collect();
    if all.is_empty() { "general.name".to_owned() } else { choices.of(&all).clone() }
}

/// Something else of the same type.
fn odd(value: &Raw, choices: &mut Choices) -> Raw {
    match value {
        Raw::Number(id::F32, _) => Raw::f32(choices.float()),
        Raw::Number(id, bytes) => {
            let near = value.as_u64().unwrap_or(0);
            let number = choices.number(near).to_le_bytes();
            Raw::Number(*id, number[..bytes.len()].to_vec())
        }
        Raw::Text(text) => Raw::Text(match choices.below(4) {
            0 => Vec::new(),
            1 => choices.bytes(40),
            2 => text.repeat(choices.below(2000)),
            _ => [text, b"\0x".as_slice()].concat(),
        }),
        Raw::List(id, elements) => {
            let mut elements = elements.clone();
            match choices.below(4) {
                0 => elements.clear(),
                1 => elements.truncate(choices.below(elements.len() + 1)),
                2 => elements.extend(elements.clone()),
                _ => elements.iter_mut().for_each(|element| {
                    if choices.one_in(4) {
                        *element = odd(element, choices);
                    }
                }),
            }
            Raw::List(*id, elements)
        }
    }
}

pub fn odd_value(draft: &mut Draft, choices: &mut Choices) -> String {
    let key = some_key(draft, choices);
    let Some(value) = draft.get(&key).map(|value| odd(value, choices)) else { return "nothing".to_owned() };
    let told = format!("{key} = {}", shown(&value));
    draft.set(&key, value);
    told
}

fn shown(value: &Raw) -> String {
    match value {
        Raw::Text(text) => format!("{:?}", String::from_utf8_lossy(&text[..text.len().min(40)])),
        Raw::List(id, elements) => format!("list of {} of type {id}", elements.len()),
        Raw::Number(id, bytes) => match (value.as_u64(), bytes.as_slice()) {
            (Some(number), _) => format!("{number} of type {id}"),
            (None, [a, b, c, d]) => format!("{}", f32::from_le_bytes([*a, *b, *c, *d])),
            (None, _) => format!("{bytes:?}"),
        },
    }
}

/// Any value.
fn any(choices: &mut Choices) -> Raw {
    match choices.below(8) {
        0 => Raw::i32(choices.number(1) as i32),
        1 => Raw::f32(choices.float()),
        2 => Raw::truth(choices.one_in(2)),
        3 => Raw::text(["", "none", "yarn", "longrope", "mystery", "2"][choices.below(6)]),
        4 => Raw::Number(id::U64, choices.number(4).to_le_bytes().to_vec()),
        5 => {
            let length = [0, 1, 2, 3, 4, 512, 513][choices.below(7)];
            Raw::List(id::U32, (0..length).map(|_| Raw::u32(choices.number(2) as u32)).collect())
        }
        _ => Raw::u32(choices.number(4) as u32),
    }
}

pub fn another_type(draft: &mut Draft, choices: &mut Choices) -> String {
    let key = some_key(draft, choices);
    let value = any(choices);
    let told = format!("{key} = {}", shown(&value));
    draft.set(&key, value);
    told
}

pub fn added_key(draft: &mut Draft, choices: &mut Choices) -> String {
    let key = format!("{}.{}", draft.architecture(), choices.word(KEYS));
    let value = any(choices);
    let told = format!("{key} = {}", shown(&value));
    draft.set(&key, value);
    told
}

pub fn removed_key(draft: &mut Draft, choices: &mut Choices) -> String {
    let key = some_key(draft, choices);
    draft.remove(&key);
    format!("no {key}")
}

pub fn repeated_key(draft: &mut Draft, choices: &mut Choices) -> String {
    let key = some_key(draft, choices);
    draft.metadata.push((key.clone().into_bytes(), any(choices)));
    format!("{key} twice")
}

/// A number for all layers becomes one for each.
pub fn per_layer(draft: &mut Draft, choices: &mut Choices) -> String {
    let names = [
        "attention.head_count",
        "attention.head_count_kv",
        "feed_forward_length",
        "expert_used_count",
        "expert_count",
        "attention.sliding_window_pattern",
        "attention.key_length",
        "rope.dimension_count",
        "expert_feed_forward_length",
    ];
    let key = format!("{}.{}", draft.architecture(), choices.of(&names));
    let near = draft.get(&key).and_then(Raw::as_u64).unwrap_or(2);
    let count = [0, 1, 2, 2, 2, 2, 3, 600][choices.below(8)];
    let number = |choices: &mut Choices| if choices.one_in(3) { choices.number(near) } else { near } as u32;
    let values: Vec<u32> = (0..count).map(|_| number(choices)).collect();
    let told = format!("{key} = {:?}", &values[..values.len().min(3)]);
    draft.set(&key, Raw::List(id::U32, values.into_iter().map(Raw::u32).collect()));
    told
}

pub fn another_architecture(draft: &mut Draft, choices: &mut Choices) -> String {
    let (old, new) = (draft.architecture(), choices.word(ARCHITECTURES).to_owned());
    let prefix = format!("{old}.");
    for (key, _) in &mut draft.metadata {
        if let Some(name) = key.strip_prefix(prefix.as_bytes()) {
            *key = [new.as_bytes(), b".", name].concat();
        }
    }
    draft.set("general.architecture", Raw::text(&new));
    format!("architecture {new}")
}
