//! The sandbox profile of a runner on macOS, in the language of `sandbox_init` (SBPL): later rules win.
//!
//! Everything is allowed but what a model's process never needs, because Metal talks to services and drivers
//! whose names differ between versions of the system.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where files of people are: nothing of it is read but what is granted.
const PRIVATE: [&str; 4] = ["/Users", "/Volumes", "/private/var/root", "/private/tmp"];

/// A profile under which these and the system can be read, and these written.
pub(super) fn profile(read: &[PathBuf], written: &[PathBuf]) -> String {
    let mut text = String::from(
        "(version 1)\n(allow default)\n(deny network*)\n(deny process-exec*)\n(deny process-fork)\n\
         (deny signal (target others))\n(deny file-write*)\n",
    );
    rule(&mut text, "deny file-read-data", PRIVATE.iter().map(Path::new));
    rule(&mut text, "allow file-read*", read.iter().chain(written).map(PathBuf::as_path));
    rule(&mut text, "allow file-write*", written.iter().map(PathBuf::as_path).chain([Path::new("/dev")]));
    text
}

/// A rule about everything at and below these paths; none where there are none.
fn rule<'a>(text: &mut String, head: &str, paths: impl Iterator<Item = &'a Path>) {
    let paths: Vec<String> = paths.filter_map(literal).collect();
    if paths.is_empty() {
        return;
    }
    let _ = write!(text, "({head}");
    for path in paths {
        let _ = write!(text, "\n    (subpath {path})");
    }
    text.push_str(")\n");
}

/// A path as a string of the profile. One that is not UTF-8, or has control characters, is granted to nobody.
fn literal(path: &Path) -> Option<String> {
    let path = path.to_str().filter(|path| path.starts_with('/') && !path.chars().any(char::is_control))?;
    Some(format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_comes_after_what_is_denied() {
        let text = profile(&["/Users/a/m.gguf".into()], &["/Users/a/kv".into()]);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(at("(version 1)") < at("(allow default)"));
        assert!(at("(deny file-read-data\n    (subpath \"/Users\")") < at("(allow file-read*"));
        assert!(at("(deny file-write*)") < at("(allow file-write*\n    (subpath \"/Users/a/kv\")"));
        for denied in ["(deny network*)", "(deny process-exec*)", "(deny process-fork)"] {
            assert!(at("(allow default)") < at(denied));
        }
        assert!(!text[at("(allow file-write*")..].contains("m.gguf"), "a model is read only: {text}");
        assert_eq!(text.matches('(').count(), text.matches(')').count());
    }

    #[test]
    fn no_path_says_more_than_a_path() {
        for odd in ["/a\"))(allow default)(\"", "/a\\", "/a\nb", "relative", ""] {
            let text = profile(&[odd.into()], &[]);
            let granted = text.split("(allow file-read*").nth(1).unwrap_or_default();
            let strings = granted.replace("\\\\", "").replace("\\\"", "");
            assert_eq!(strings.matches('"').count() % 2, 0, "{text}");
            assert!(!strings.split('"').step_by(2).any(|outside| outside.contains("default")), "{text}");
        }
        assert!(!profile(&["relative".into()], &[]).contains("relative"));
    }
}
