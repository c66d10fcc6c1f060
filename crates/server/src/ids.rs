//! Ids that only need to differ.

use std::hash::{BuildHasher as _, RandomState};

/// So many random hexadecimal digits.
#[must_use]
pub fn random_hex(digits: usize) -> String {
    let mut out = String::with_capacity(digits + 16);
    while out.len() < digits {
        out.push_str(&format!("{:016x}", RandomState::new().hash_one(out.len())));
    }
    out.truncate(digits);
    out
}
