//! Vocabularies of RWKV's tokeniser, which takes the longest token that a text begins with.
//!
//! llama.cpp begins again at the start of the text where a first byte leads into tokens and none of them
//! fits, and never ends (`llm_tokenizer_rwkv_session::tokenize`). That cannot be where each first byte is a
//! token by itself, as in the vocabularies of real models.

/// Whether any text comes to its end.
pub(super) fn ends(tokens: &[String]) -> bool {
    let (mut first, mut single) = ([false; 256], [false; 256]);
    for token in tokens {
        let mut bytes = Unescaped(token.bytes());
        let Some(byte) = bytes.next() else { continue };
        first[usize::from(byte)] = true;
        single[usize::from(byte)] |= bytes.next().is_none();
    }
    first.iter().zip(single).all(|(first, single)| !first || single)
}

/// The bytes of a token, which is written like a string of Python.
struct Unescaped<I>(I);

impl<I: Iterator<Item = u8>> Iterator for Unescaped<I> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = self.0.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        match self.0.next()? {
            b't' => Some(b'\t'),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b'x' => {
                let digit =
                    |digit: u8| if digit >= b'a' { digit - b'a' + 10 } else { digit.wrapping_sub(b'0') };
                let (high, low) = (self.0.next()?, self.0.next()?);
                Some((digit(high) << 4).wrapping_add(digit(low)))
            }
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: &[&str]) -> bool {
        ends(&tokens.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_first_byte_is_a_token() {
        assert!(of(&["a", "ab", "\\n", "\\n\\n", "\\xe4", "\\xe4\\xb8\\xad", "\\\\", ""]));
        assert!(!of(&["a", "bc"]));
        assert!(!of(&["\\xe4\\xb8"]) && !of(&["\\n\\n"]));
        let all: Vec<String> = (0..=255_u8).map(|byte| format!("\\x{byte:02x}")).collect();
        assert!(ends(&all));
    }
}
