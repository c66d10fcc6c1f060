//! Answers that say one thing over and over: small models come into such loops, and talk until their context
//! is full.

/// Counts how often the last piece came again.
#[derive(Debug)]
pub(super) struct Repeats {
    limit: u32,
    last: Vec<u8>,
    count: u32,
}

impl Repeats {
    /// Nothing was said. A piece may come again `limit` times.
    pub fn new(limit: u32) -> Self {
        Self { limit, last: Vec::new(), count: 0 }
    }

    /// The text of a token; whether that was once too often. Blanks around it do not count, as in Ollama's
    /// program.
    pub fn too_often(&mut self, piece: &[u8]) -> bool {
        let piece = piece.trim_ascii();
        if piece == self.last {
            self.count += 1;
        } else {
            self.last.clear();
            self.last.extend_from_slice(piece);
            self.count = 0;
        }
        self.count > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_may_come_again_so_often_and_no_more() {
        let mut repeats = Repeats::new(2);
        let pieces = ["a", " a", "a\n", "b", "b", "b", "c", "b", "b", "b", "b"];
        let told: Vec<bool> = pieces.iter().map(|piece| repeats.too_often(piece.as_bytes())).collect();
        assert_eq!(told.iter().position(|told| *told), Some(10), "{told:?}");
    }

    #[test]
    fn blank_pieces_are_equal() {
        let mut repeats = Repeats::new(3);
        let told: Vec<bool> =
            ["\n", " ", "", "\t"].iter().map(|piece| repeats.too_often(piece.as_bytes())).collect();
        assert_eq!(told, [false, false, false, true]);
    }
}
