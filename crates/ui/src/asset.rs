//! What a file of the page is.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its name below `/ui/`; empty: the page itself.
    pub name: &'static str,
    /// Its type.
    pub content_type: &'static str,
    /// Its contents.
    pub bytes: &'static [u8],
    /// By its contents, quoted as HTTP wants it.
    pub etag: &'static str,
}
