//! Tests of modules and names: files and inline modules are found, and names lead where the compiler would
//! go.

use super::*;

fn read(texts: &[(&str, &str)]) -> Result<Crate> {
    let mut all = vec![("a/Cargo.toml", "")];
    all.extend(texts);
    crates(&Tree::of_texts(&all))?.pop().ok_or_else(|| anyhow::anyhow!("no crate was found"))
}

/// `module::item` of what `path` means in `from`.
fn meaning(of: &Crate, from: &str, path: &str) -> Option<String> {
    let path: Vec<String> = path.split("::").map(str::to_owned).collect();
    of.definition(from, &path).map(|found| format!("{}::{}", found.module, found.item))
}

#[test]
fn modules_lie_beside_within_inline_and_where_an_attribute_says() -> Result<()> {
    let found = read(&[
        ("a/src/lib.rs", "mod beside; mod within; mod inline { mod deep; }"),
        ("a/src/beside.rs", "#[cfg(test)] #[path = \"beside_tests.rs\"] mod tests;"),
        ("a/src/beside_tests.rs", "mod helper {}"),
        ("a/src/within/mod.rs", "mod child;"),
        ("a/src/within/child.rs", ""),
        ("a/src/inline/deep.rs", ""),
        ("a/src/stray.rs", ""),
    ])?;
    let modules: Vec<(&str, &str, bool)> =
        found.modules.iter().map(|module| (&*module.path, &*module.file, module.is_test)).collect();
    assert_eq!(
        modules,
        [
            ("crate", "a/src/lib.rs", false),
            ("crate::beside", "a/src/beside.rs", false),
            ("crate::beside::tests", "a/src/beside_tests.rs", true),
            ("crate::beside::tests::helper", "a/src/beside_tests.rs", true),
            ("crate::within", "a/src/within/mod.rs", false),
            ("crate::within::child", "a/src/within/child.rs", false),
            ("crate::inline", "a/src/lib.rs", false),
            ("crate::inline::deep", "a/src/inline/deep.rs", false),
        ]
    );
    Ok(())
}

#[test]
fn only_what_exists_for_tests_is_for_tests() -> Result<()> {
    for (text, expected) in [
        ("#[cfg(test)] mod m;", true),
        ("#[cfg(all(test, unix))] mod m;", true),
        ("#[cfg(not(test))] mod m;", false),
        ("#[cfg(unix)] #[doc = \"test\"] mod m;", false),
    ] {
        let syn::Item::Mod(module) = syn::parse_str(text)? else { panic!("{text}") };
        assert_eq!(is_for_tests(&module.attrs), expected, "{text}");
    }
    Ok(())
}

#[test]
fn names_lead_through_imports_reexports_and_globs() -> Result<()> {
    let found = read(&[
        ("a/src/lib.rs", "pub mod up; mod other; pub use up::Thing; use std::fmt;"),
        ("a/src/up/mod.rs", "mod down; pub(crate) use down::Thing as Renamed; pub use down::{self, Thing};"),
        ("a/src/up/down.rs", "pub struct Thing; enum Choice { First } mod tests { use super::*; }"),
        ("a/src/other.rs", "use super::up::{self, Renamed}; use crate::Thing as Alias;"),
    ])?;
    let thing = Some("crate::up::down::Thing".to_owned());
    assert_eq!(meaning(&found, "crate", "Thing"), thing);
    assert_eq!(meaning(&found, "crate::other", "Renamed"), thing);
    assert_eq!(meaning(&found, "crate::other", "Alias"), thing);
    assert_eq!(meaning(&found, "crate::other", "up::Thing"), thing);
    assert_eq!(meaning(&found, "crate::up::down::tests", "Thing"), thing);
    assert_eq!(meaning(&found, "crate::up::down::tests", "super::super::super::Thing"), thing);
    assert_eq!(
        meaning(&found, "crate::up::down", "Choice::First"),
        Some("crate::up::down::Choice".to_owned())
    );
    assert_eq!(meaning(&found, "crate::other", "super::up::down"), Some("crate::up::down::".to_owned()));
    assert_eq!(meaning(&found, "crate", "fmt::Display"), None);
    assert_eq!(meaning(&found, "crate::other", "Thing"), None);
    Ok(())
}

#[test]
fn a_circle_of_globs_ends() -> Result<()> {
    let found = read(&[("a/src/lib.rs", "mod b { pub use super::c::*; } mod c { pub use super::b::*; }")])?;
    assert_eq!(meaning(&found, "crate::b", "Thing"), None);
    Ok(())
}
