//! Which web pages may call: `OLLAMA_ORIGINS` and what Ollama allows by itself.

use super::address::stripped;

const ALWAYS: [&str; 24] = [
    "http://localhost",
    "https://localhost",
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1",
    "https://127.0.0.1",
    "http://127.0.0.1:*",
    "https://127.0.0.1:*",
    "http://0.0.0.0",
    "https://0.0.0.0",
    "http://0.0.0.0:*",
    "https://0.0.0.0:*",
    "http://[::1]",
    "https://[::1]",
    "http://[::1]:*",
    "https://[::1]:*",
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
    "chrome-extension://*",
    "moz-extension://*",
    "safari-web-extension://*",
];

/// Patterns of allowed origins; `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Default for Origins {
    fn default() -> Self {
        Self::of_list("")
    }
}

impl Origins {
    /// The origins of a list with commas, and those that are always allowed.
    #[must_use]
    pub fn of_list(list: &str) -> Self {
        let asked = stripped(list).split(',').map(|origin| stripped(origin).trim_end_matches('/'));
        let asked = asked.filter(|origin| !origin.is_empty());
        Self(asked.chain(ALWAYS).map(str::to_ascii_lowercase).collect())
    }

    /// Whether pages of this origin may call.
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.0.iter().any(|pattern| matches(pattern, &origin))
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_origins_that_are_always_allowed() {
        let origins = Origins::default();
        for origin in [
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:8080",
            "http://0.0.0.0",
            "app://obsidian.md",
            "file://x",
            "tauri://localhost",
            "vscode-webview://abc",
            "chrome-extension://abc",
        ] {
            assert!(origins.allow(origin), "{origin}");
        }
        for origin in
            ["http://evil.example", "http://localhost.evil.example", "https://127.0.0.1.evil", "null", ""]
        {
            assert!(!origins.allow(origin), "{origin}");
        }
    }

    #[test]
    fn http_origins_of_the_variable() {
        let origins = Origins::of_list(" \"https://a.example, https://*.b.example:*\" ");
        assert!(origins.allow("https://a.example"));
        assert!(origins.allow("https://x.b.example:80"));
        assert!(!origins.allow("https://c.example"));
        assert!(Origins::of_list("*").allow("https://anything.example"));
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_was_made_from(parts in prop::collection::vec("[a-z:/.]{0,5}", 1..5)) {
            let pattern = parts.join("*");
            prop_assert!(matches(&pattern, &parts.join("xyz")));
        }
    }
}
