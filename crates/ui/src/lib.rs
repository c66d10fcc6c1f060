//! The page at `/ui`: what it consists of, as bytes. The sources are in `web`; what is built of them is
//! committed in `assets`, so that building the program needs no node. Knows neither HTTP nor the server.
//!
//! Invariants: nothing refers to another server; there is no script and no style in the page itself, so that
//! [`SECURITY_POLICY`] holds; a file's name changes with its contents.
#![forbid(unsafe_code)]

mod asset;
mod bundle;

pub use asset::Asset;

/// What the page may do (Content-Security-Policy): run and load this server's own files, show pictures and
/// sounds that are in it, talk to this server. HTML gets into it through the sanitiser alone, where browsers
/// know Trusted Types.
pub const SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; media-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify";

/// The page.
#[must_use]
pub const fn page() -> &'static Asset {
    &bundle::PAGE
}

/// The file of a name.
#[must_use]
pub fn file(name: &str) -> Option<&'static Asset> {
    bundle::FILES.iter().find(|asset| asset.name == name)
}

/// All files, the page among them.
pub fn all() -> impl Iterator<Item = &'static Asset> {
    std::iter::once(page()).chain(bundle::FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(asset: &Asset) -> &str {
        std::str::from_utf8(asset.bytes).unwrap()
    }

    #[test]
    fn the_page_names_its_files_and_nothing_else() {
        let page = text(page());
        let mut named = 0;
        for part in page.split(['"', '\'']).filter(|part| part.contains("/ui/")) {
            assert!(file(part.strip_prefix("/ui/").unwrap()).is_some(), "{part}");
            named += 1;
        }
        assert_eq!(named, bundle::FILES.len());
        assert!(!page.contains("://"), "it loads from nowhere else");
    }

    #[test]
    fn there_is_nothing_inline_that_the_policy_forbids() {
        let page = text(page());
        let handlers = page.split_ascii_whitespace().filter(|word| word.starts_with("on"));
        assert_eq!(handlers.count(), 0, "handlers of events");
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("<script>"));
        assert!(!SECURITY_POLICY.contains("unsafe"));
        let style = all().find(|asset| asset.content_type.starts_with("text/css")).unwrap();
        assert!(!text(style).contains("@import") && !text(style).contains("url("));
    }
}
