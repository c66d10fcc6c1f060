//! Parsing of Rust files for the rules that need more than text.

use anyhow::{Result, anyhow};

/// Parses a whole file; the error names file, line and column.
pub(crate) fn parse(path: &str, text: &str) -> Result<syn::File> {
    syn::parse_file(text).map_err(|error| at(path, &error, error.span()))
}

/// The tokens of a whole file; the error names file, line and column.
pub(crate) fn tokens(path: &str, text: &str) -> Result<proc_macro2::TokenStream> {
    text.parse().map_err(|error: proc_macro2::LexError| at(path, &error, error.span()))
}

fn at(path: &str, error: &dyn std::fmt::Display, span: proc_macro2::Span) -> anyhow::Error {
    let start = span.start();
    anyhow!("{path}:{}:{}: not Rust as tidy knows it: {error}", start.line, start.column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_place() {
        let parse_error = parse("a.rs", "fn f() {}\nfn {}").err().map(|error| error.to_string());
        assert!(parse_error.is_some_and(|error| error.starts_with("a.rs:2:4: ")));
        let lex_error = tokens("a.rs", "fn f() {\n").err().map(|error| error.to_string());
        assert!(lex_error.is_some_and(|error| error.starts_with("a.rs:")));
    }
}
