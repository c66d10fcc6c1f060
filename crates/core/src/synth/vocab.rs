//! A usable byte-level BPE vocabulary of any size.
//!
//! Tokens 0 to 255 are the bytes, then come a few merged pieces of English, then filler words of syllables
//! that the tokenizer never produces but that read as words when sampled, then the special tokens at the very
//! end. So any text can be encoded and decoded, and the vocabulary has the shape's real size, as embedding
//! and output need it.

use super::dims::{Architecture, Dims};
use crate::gguf::{Array, Metadata};

/// `LLAMA_TOKEN_TYPE_NORMAL` and `LLAMA_TOKEN_TYPE_CONTROL` of `llama.h`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

const END_OF_TEXT: &str = "<|endoftext|>";
const TURN_START: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";

/// Merges in order of rank: two pieces, both already tokens, as in `tokenizer.json`. `Ġ` is the space.
const MERGES: &[(&str, &str)] = &[
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("h", "e"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "w"),
    ("Ġ", "o"),
    ("e", "n"),
    ("Ġ", "c"),
    ("i", "t"),
    ("i", "s"),
    ("a", "n"),
    ("o", "r"),
    ("e", "s"),
    ("Ġ", "b"),
    ("e", "d"),
    ("Ġ", "f"),
    ("in", "g"),
    ("Ġ", "p"),
    ("o", "u"),
    ("Ġa", "n"),
    ("Ġan", "d"),
    ("Ġo", "f"),
    ("Ġ", "in"),
    ("Ġt", "o"),
];

/// ChatML, in the Jinja that llama.cpp renders.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Adds the tokenizer's keys.
pub(super) fn describe(metadata: &mut Metadata, dims: &Dims) {
    let Tokenizer { pre, bos } = tokenizer(dims.architecture);
    let specials = specials(bos);
    let (tokens, types) = tokens(dims.vocab as usize, &specials);
    let id = |text: &str| tokens.iter().rposition(|token| token == text).unwrap_or_default() as u32;
    let (bos_id, end_of_text, turn_end) = (id(bos), id(END_OF_TEXT), id(TURN_END));
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect::<Vec<_>>();
    metadata.insert("tokenizer.ggml.model", "gpt2");
    metadata.insert("tokenizer.ggml.pre", pre);
    metadata.insert("tokenizer.ggml.tokens", tokens);
    metadata.insert("tokenizer.ggml.token_type", Array::I32(types));
    metadata.insert("tokenizer.ggml.merges", merges);
    metadata.insert("tokenizer.ggml.bos_token_id", bos_id);
    metadata.insert("tokenizer.ggml.eos_token_id", turn_end);
    metadata.insert("tokenizer.ggml.eot_token_id", turn_end);
    metadata.insert("tokenizer.ggml.padding_token_id", end_of_text);
    metadata.insert("tokenizer.ggml.add_bos_token", bos != END_OF_TEXT);
    metadata.insert("tokenizer.chat_template", CHAT_TEMPLATE);
}

struct Tokenizer {
    /// llama.cpp's name of the rule that cuts text into words (`tokenizer.ggml.pre`).
    pre: &'static str,
    bos: &'static str,
}

const fn tokenizer(architecture: Architecture) -> Tokenizer {
    match architecture {
        Architecture::Llama => Tokenizer { pre: "llama-bpe", bos: "<|begin_of_text|>" },
        Architecture::Qwen2
        | Architecture::Qwen2Vl
        | Architecture::Gemma3
        | Architecture::Gemma4
        | Architecture::Qwen3Moe
        | Architecture::Qwen4Exp => Tokenizer { pre: "qwen2", bos: END_OF_TEXT },
        Architecture::GptOss => Tokenizer { pre: "gpt-4o", bos: "<|startoftext|>" },
        Architecture::DeepSeek2 => Tokenizer { pre: "kimi-k2", bos: "[BOS]" },
        Architecture::DeepSeek41 => Tokenizer { pre: "deepseek-v3", bos: "<|begin_of_sentence|>" },
    }
}

fn specials(bos: &'static str) -> Vec<&'static str> {
    let mut specials = vec![END_OF_TEXT, TURN_START, TURN_END];
    if bos != END_OF_TEXT {
        specials.insert(0, bos);
    }
    specials
}

/// All `count` tokens and their types. The first 256 and the special ones are there whatever `count` is.
fn tokens(count: usize, specials: &[&str]) -> (Vec<String>, Vec<i32>) {
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| byte_symbol(byte).to_string()).collect();
    tokens.extend(MERGES.iter().map(|(left, right)| format!("{left}{right}")));
    let fillers = count.saturating_sub(tokens.len() + specials.len());
    tokens.extend((0..fillers).map(filler));
    let mut types = vec![NORMAL; tokens.len()];
    tokens.extend(specials.iter().map(|&special| special.to_owned()));
    types.resize(tokens.len(), CONTROL);
    (tokens, types)
}

/// The character that stands for a byte in byte-level BPE: itself if it is printable, otherwise one from
/// U+0100 on (`bytes_to_unicode` of GPT-2's `encoder.py`).
fn byte_symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Word number `index` of at least two syllables, with the space before it: no two are equal, and none is a
/// piece that the merges make.
fn filler(index: usize) -> String {
    const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
    const VOWELS: &[u8; 4] = b"aeio";
    let mut word = String::from("Ġ");
    let mut rest = index;
    for syllable in 0.. {
        word.push(char::from(CONSONANTS[rest % 16]));
        word.push(char::from(VOWELS[rest / 16 % 4]));
        rest /= 64;
        if syllable >= 1 {
            // Bijective from here on: `rest` counts the words that are longer.
            let Some(longer) = rest.checked_sub(1) else { break };
            rest = longer;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::synth::Shape;

    #[test]
    fn bytes_have_the_symbols_of_gpt2() {
        let all: HashSet<char> = (0..=u8::MAX).map(byte_symbol).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(byte_symbol(b' '), 'Ġ');
        assert_eq!(byte_symbol(b'\n'), 'Ċ');
        assert_eq!(byte_symbol(b'A'), 'A');
        assert_eq!(byte_symbol(0xad), 'Ń');
    }

    #[test]
    fn tokens_are_unique_and_as_many_as_asked_for() {
        for &shape in Shape::ALL {
            let dims = shape.dims();
            let specials = specials(tokenizer(dims.architecture).bos);
            let (tokens, types) = tokens(dims.vocab as usize, &specials);
            assert_eq!(tokens.len() as u64, dims.vocab, "{shape}");
            assert_eq!(types.len(), tokens.len());
            assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len(), "{shape}");
            assert_eq!(types.iter().filter(|&&ty| ty == CONTROL).count(), specials.len());
        }
    }

    #[test]
    fn merges_join_known_pieces() {
        let (tokens, _) = tokens(0, &[]);
        let mut known: HashSet<&str> = tokens[..256].iter().map(String::as_str).collect();
        for (at, (left, right)) in MERGES.iter().enumerate() {
            assert!(known.contains(left) && known.contains(right), "{left} {right}");
            known.insert(&tokens[256 + at]);
        }
    }

    #[test]
    fn a_quarter_of_a_million_fillers_differ() {
        let words: HashSet<String> = (0..300_000).map(filler).collect();
        assert_eq!(words.len(), 300_000);
    }
}
