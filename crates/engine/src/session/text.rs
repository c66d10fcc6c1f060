//! From bytes of tokens to text that may be shown: whole characters only, and nothing that may turn out to be
//! a stop string.

/// Collects pieces and gives out what is certain.
#[derive(Debug, Default)]
pub struct TextStream {
    /// Bytes of a character that is not whole yet.
    partial: Vec<u8>,
    /// Whole characters that may be the beginning of a stop string.
    held: String,
    stops: Vec<String>,
}

/// What a piece brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Text to show now; may be empty.
    pub text: String,
    /// The stop string that was met: the generation is over, and neither it nor anything after it is shown.
    pub stop: Option<String>,
}

impl TextStream {
    /// Ends at any of these strings (empty ones are ignored).
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, ..Self::default() }
    }

    /// Adds the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Shown {
        self.partial.extend_from_slice(bytes);
        let whole = take_whole(&mut self.partial);
        self.held.push_str(&whole);
        let met = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = met.min_by_key(|(at, _)| *at) {
            let (text, stop) = (self.held[..at].to_owned(), stop.clone());
            self.held.clear();
            self.partial.clear();
            return Shown { text, stop: Some(stop) };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let text = self.held.drain(..self.held.len() - keep).collect();
        Shown { text, stop: None }
    }

    /// The generation ended: what was held back is text after all. A piece of a character that never became
    /// whole is not.
    pub fn finish(&mut self) -> String {
        self.partial.clear();
        std::mem::take(&mut self.held)
    }
}

/// Takes everything that can be decoded; bytes that can never become a character turn into replacement
/// characters.
fn take_whole(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[..valid]));
                let Some(bad) = error.error_len() else {
                    bytes.drain(..valid);
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                bytes.drain(..valid + bad);
            }
        }
    }
}

/// Length of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(at, _)| at).skip(1).filter(|at| text.ends_with(&stop[..*at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let shown = stream.push(piece);
            text.push_str(&shown.text);
            if shown.stop.is_some() {
                return (text, true);
            }
        }
        text.push_str(&stream.finish());
        (text, false)
    }

    #[test]
    fn a_character_split_over_tokens_comes_whole() {
        let mut stream = TextStream::new(&[]);
        assert_eq!(stream.push(&[0xf0, 0x9f]).text, "");
        assert_eq!(stream.push(&[0xa6]).text, "");
        assert_eq!(stream.push(&[0x80, b'!']).text, "🦀!");
    }

    #[test]
    fn impossible_bytes_become_replacement_characters_and_do_not_block() {
        assert_eq!(run(&[], &[&[0xff, b'a', 0xc3], b"b"]), ("\u{fffd}a\u{fffd}b".to_owned(), false));
    }

    #[test]
    fn a_piece_of_a_character_at_the_end_is_dropped() {
        assert_eq!(run(&[], &[&[b'a', 0xe2, 0x82]]), ("a".to_owned(), false));
        assert_eq!(run(&["zz"], &[&[b'z', 0xf0, 0x9f, 0xa6]]), ("z".to_owned(), false));
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_never_shown() {
        assert_eq!(run(&["<end>"], &[b"one <e", b"nd", b"> two"]), ("one ".to_owned(), true));
        assert_eq!(run(&["<end>"], &[b"one <e", b"lse>"]), ("one <else>".to_owned(), false));
        assert_eq!(run(&["aab"], &[b"aaa", b"ab"]), ("aa".to_owned(), true));
        assert_eq!(run(&["b", "ab"], &[b"xab"]), ("x".to_owned(), true));
    }

    proptest! {
        #[test]
        fn pieces_never_change_the_text(text in "\\PC{0,40}", cuts in prop::collection::vec(0usize..120, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&["zq"], &pieces), match text.find("zq") {
                Some(at) => (text[..at].to_owned(), true),
                None => (text.clone(), false),
            });
        }
    }
}
