//! Changes of the vocabulary and of the chat template.

use crate::draft::Draft;
use crate::mutate::Choices;
use crate::value::{Raw, id};
use crate::words::{PRE, SPECIAL, SWITCHES, TEMPLATES, TOKENIZERS};

const TOKENS: &str = "tokenizer.ggml.tokens";

fn count(draft: &Draft) -> usize {
    match draft.get(TOKENS) {
        Some(Raw::List(_, tokens)) => tokens.len(),
        _ => 0,
    }
}

pub fn another_tokenizer(draft: &mut Draft, choices: &mut Choices) -> String {
    let pre = choices.word(PRE);
    draft.set("tokenizer.ggml.pre", Raw::text(pre));
    if choices.one_in(2) {
        return format!("pre {pre}");
    }
    let model = choices.word(TOKENIZERS);
    draft.set("tokenizer.ggml.model", Raw::text(model));
    if choices.one_in(2) {
        let scores = (0..count(draft)).map(|at| Raw::f32(-(at as f32))).collect();
        draft.set("tokenizer.ggml.scores", Raw::List(id::F32, scores));
    }
    if choices.one_in(2) {
        byte_tokens(draft);
    }
    if choices.one_in(3) {
        let map = choices.bytes(300).into_iter().map(|byte| Raw::Number(0, vec![byte])).collect();
        draft.set("tokenizer.ggml.precompiled_charsmap", Raw::List(0, map));
    }
    format!("tokenizer {model}, pre {pre}")
}

/// The first tokens are bytes, as SentencePiece has them.
fn byte_tokens(draft: &mut Draft) {
    let Some(Raw::List(_, mut tokens)) = draft.get(TOKENS).cloned() else { return };
    for (byte, token) in tokens.iter_mut().enumerate().take(256) {
        *token = Raw::text(&format!("<0x{byte:02X}>"));
    }
    let types = (0..tokens.len()).map(|at| Raw::i32(if at < 256 { 6 } else { 1 })).collect();
    draft.set("tokenizer.ggml.token_type", Raw::List(id::I32, types));
    draft.set(TOKENS, Raw::List(id::TEXT, tokens));
}

pub fn special_ids(draft: &mut Draft, choices: &mut Choices) -> String {
    let mut told = Vec::new();
    for _ in 0..=choices.below(3) {
        let key = format!("tokenizer.ggml.{}", choices.word(SPECIAL));
        let near = count(draft) as u64;
        if choices.one_in(4) {
            draft.remove(&key);
            told.push(format!("no {key}"));
        } else {
            let number = choices.number(near) as u32;
            draft.set(&key, if choices.one_in(4) { Raw::i32(number as i32) } else { Raw::u32(number) });
            told.push(format!("{key} = {number}"));
        }
        let switch = format!("tokenizer.ggml.{}", choices.word(SWITCHES));
        draft.set(&switch, Raw::truth(choices.one_in(2)));
    }
    told.join(", ")
}

pub fn tokens(draft: &mut Draft, choices: &mut Choices) -> String {
    let Some(Raw::List(_, mut tokens)) = draft.get(TOKENS).cloned() else { return "nothing".to_owned() };
    let most = tokens.len().max(1);
    let told = match choices.below(6) {
        0 => {
            tokens.truncate(choices.below(most));
            format!("{} tokens", tokens.len())
        }
        1 => {
            let more = choices.below(3000);
            tokens.extend((0..more).map(|at| Raw::text(&format!("more{at}"))));
            format!("{more} tokens more")
        }
        2 => {
            tokens.iter_mut().for_each(|token| {
                if choices.one_in(20) {
                    *token = Raw::Text(choices.bytes(12));
                }
            });
            "texts of random bytes".to_owned()
        }
        3 => {
            let at = choices.below(most);
            let text = b"lynx ".repeat(choices.below(100_000));
            if let Some(token) = tokens.get_mut(at) {
                *token = Raw::Text(text);
            }
            format!("token {at} is long")
        }
        4 => {
            let odd = ["", "\0", "<|im_end|>", "[EMPTY_3]", "\u{fffd}", " ", "\n"];
            for _ in 0..choices.below(6) {
                let at = choices.below(most);
                if let Some(token) = tokens.get_mut(at) {
                    *token = Raw::text(odd[choices.below(odd.len())]);
                }
            }
            "odd texts".to_owned()
        }
        _ => {
            tokens = vec![Raw::text("a")];
            "one token".to_owned()
        }
    };
    draft.set(TOKENS, Raw::List(id::TEXT, tokens));
    told
}

/// Merges, types, scores.
pub fn lists(draft: &mut Draft, choices: &mut Choices) -> String {
    match choices.below(4) {
        0 => {
            let odd: [&[u8]; 8] = [b"", b" ", b"a", b"a b c", b"zz yy", b"\xff \xfe", b"a\0 b", b"h e"];
            let count = choices.below(40);
            draft.set("tokenizer.ggml.merges", Raw::texts((0..count).map(|_| choices.of(&odd).to_vec())));
            "odd merges".to_owned()
        }
        1 => {
            draft.remove("tokenizer.ggml.merges");
            "no merges".to_owned()
        }
        2 => {
            let length = [0, 1, count(draft), count(draft), count(draft) + 1][choices.below(5)];
            let types = (0..length).map(|_| Raw::i32(choices.below(9) as i32 - 1)).collect();
            draft.set("tokenizer.ggml.token_type", Raw::List(id::I32, types));
            format!("{length} types")
        }
        _ => {
            let length = [0, 1, count(draft)][choices.below(3)];
            let scores = (0..length).map(|_| Raw::f32(choices.float())).collect();
            draft.set("tokenizer.ggml.scores", Raw::List(id::F32, scores));
            format!("{length} scores")
        }
    }
}

pub fn template(draft: &mut Draft, choices: &mut Choices) -> String {
    let template = match choices.below(TEMPLATES.len() + 3) {
        at if at < TEMPLATES.len() => Raw::text(TEMPLATES[at]),
        at if at == TEMPLATES.len() => Raw::text(&format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000))),
        at if at == TEMPLATES.len() + 1 => Raw::text(&format!("{{{{ {}1 }}}}", "not ".repeat(50_000))),
        _ => Raw::Text(choices.bytes(500)),
    };
    let told = match &template {
        Raw::Text(text) => format!("template {:?}", String::from_utf8_lossy(&text[..text.len().min(60)])),
        _ => String::new(),
    };
    draft.set("tokenizer.chat_template", template);
    told
}
