//! What a rule finds: where, and what is wrong there.

use std::fmt;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(super) path: String,
    pub(super) line: Option<usize>,
    pub(super) message: String,
    /// No rule is broken: something was made better, and the ratchet does not say so yet.
    pub(crate) is_stale: bool,
}

impl Finding {
    pub(super) fn of_file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into(), is_stale: false }
    }

    /// The same as something that does not break a rule.
    pub(super) fn stale(self) -> Self {
        Self { is_stale: true, ..self }
    }

    pub(super) fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), message: message.into(), is_stale: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_the_place() {
        assert_eq!(Finding::at("a.rs", 3, "is odd").to_string(), "a.rs:3: is odd");
        assert_eq!(Finding::of_file("a.rs", "is odd").to_string(), "a.rs: is odd");
    }
}
