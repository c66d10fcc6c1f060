//! How scoped reads are cut into pieces.

use proptest::prelude::*;

use super::*;

proptest! {
    /// The pieces cover the range in order, direct ones are aligned, and staged ones fit their slot.
    #[test]
    fn pieces_cover_the_range(offset in 0..3_000_000_u64, lead in 0..PAGE, len in 0..40_000_000_usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = SourceFile::open(file.path()).unwrap();
        let memory = Arena::new(41_000_000, HugePages::No).unwrap();
        let read = ScopedRead { file: Arc::clone(&file), offset, dst: &memory.cells()[lead..lead + len] };
        let mut pieces = VecDeque::new();
        cut(0, &read, &mut pieces);
        let need = file.alignment();
        let mut at = 0;
        for piece in pieces {
            prop_assert_eq!(piece.start, at);
            prop_assert!(piece.len > 0);
            at += piece.len;
            let position = offset + piece.start as u64;
            if piece.staged {
                let window = Window::around(position, piece.len, need.offset);
                prop_assert!(window.len <= SLOT && window.lead + piece.len <= window.len);
                prop_assert!((position - window.lead as u64).is_multiple_of(need.offset as u64));
            } else {
                let address = read.dst.as_ptr() as usize + piece.start;
                prop_assert!(position.is_multiple_of(need.offset as u64) && piece.len.is_multiple_of(need.offset));
                prop_assert!(address.is_multiple_of(need.memory));
            }
        }
        prop_assert_eq!(at, len);
    }
}
