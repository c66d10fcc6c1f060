//! Counts over the files of crates, without what exists for tests only.

use std::collections::BTreeMap;

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::Item;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::modules::{self, Crate};
use crate::tree::Tree;

const WIDE_COLUMNS: usize = 100;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Lines of each file.
    pub files: Vec<usize>,
    /// Lines of each function.
    pub functions: Vec<usize>,
    pub lines: usize,
    /// Lines that are documentation (`///`, `//!`).
    pub doc_lines: usize,
    /// Calls of `unwrap` and `expect`.
    pub unwraps: usize,
    pub unsafe_blocks: usize,
    pub wide_lines: usize,
}

impl Counts {
    pub(super) fn add(&mut self, tree: &Tree, of: &Crate) -> Result<()> {
        // A file may hold several modules. The lines of those for tests do not count.
        let mut left_out: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        for module in of.modules.iter().filter(|module| !module.is_test) {
            let lines = left_out.entry(&module.file).or_default();
            for item in &module.items {
                if is_for_tests(item) {
                    lines.push((item.span().start().line, item.span().end().line));
                } else if !matches!(item, Item::Mod(_)) {
                    self.visit_item(item);
                    self.count_tokens(item.to_token_stream());
                }
            }
        }
        for (file, left_out) in left_out {
            let text = tree.text(file).unwrap_or_default();
            self.count_lines(text, &left_out);
        }
        Ok(())
    }

    fn count_lines(&mut self, text: &str, left_out: &[(usize, usize)]) {
        let is_left_out =
            |number: usize| left_out.iter().any(|&(first, last)| first <= number && number <= last);
        let mut count = 0;
        for (_, line) in (1..).zip(text.lines()).filter(|(number, _)| !is_left_out(*number)) {
            let words = line.trim_start();
            count += 1;
            self.doc_lines += usize::from(words.starts_with("///") || words.starts_with("//!"));
            self.wide_lines += usize::from(line.chars().count() > WIDE_COLUMNS);
        }
        self.lines += count;
        self.files.push(count);
    }

    /// What also counts inside of macro calls.
    fn count_tokens(&mut self, tokens: TokenStream) {
        let mut before: [Option<String>; 2] = [None, None];
        for token in tokens {
            let text = match &token {
                TokenTree::Ident(ident) => Some(ident.to_string()),
                TokenTree::Punct(punct) => Some(punct.as_char().to_string()),
                TokenTree::Literal(_) => None,
                TokenTree::Group(group) => {
                    let [dot, name] = &before;
                    let is_call = group.delimiter() == proc_macro2::Delimiter::Parenthesis
                        && dot.as_deref() == Some(".")
                        && matches!(name.as_deref(), Some("unwrap" | "expect"));
                    let is_unsafe = group.delimiter() == proc_macro2::Delimiter::Brace
                        && name.as_deref() == Some("unsafe");
                    self.unwraps += usize::from(is_call);
                    self.unsafe_blocks += usize::from(is_unsafe);
                    self.count_tokens(group.stream());
                    None
                }
            };
            before = [before[1].take(), text];
        }
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        self.functions.push(block.brace_token.span.close().end().line - first + 1);
    }
}

impl<'ast> Visit<'ast> for Counts {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    modules::is_for_tests(attributes)
}
