//! Files of at most 500 lines, functions of at most 70, counted from `fn` to the closing brace. What is longer must be
//! listed in `xtask/ratchet.toml` with its exact number, which may only go down: growth is a finding, and so is a number
//! that is higher than the truth. Functions inside of macro calls (such as `proptest!`) are not seen.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::{Finding, Tree, rust};

const RATCHET: &str = "xtask/ratchet.toml";
const LONGEST_FILE_LINES: usize = 500;
const LONGEST_FUNCTION_LINES: usize = 70;

/// What was too long when it was listed: path, or `path::function` with the type of an `impl`, to lines.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ratchet {
    files: BTreeMap<String, usize>,
    functions: BTreeMap<String, usize>,
}

/// Something that has a length.
struct Measured {
    key: String,
    path: String,
    line: Option<usize>,
    length_lines: usize,
}

pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let ratchet: Ratchet = match tree.text(RATCHET) {
        Some(text) => toml::from_str(text).with_context(|| format!("cannot read {RATCHET}"))?,
        None => Ratchet::default(),
    };
    let mut files = Vec::new();
    let mut functions = Vec::new();
    for (path, text) in tree.texts(".rs") {
        let length_lines = text.lines().count();
        files.push(Measured { key: path.to_owned(), path: path.to_owned(), line: None, length_lines });
        functions.extend(measure_functions(path, text)?);
    }
    let mut findings = judge("the file", &files, LONGEST_FILE_LINES, &ratchet.files);
    findings.extend(judge("the function", &functions, LONGEST_FUNCTION_LINES, &ratchet.functions));
    Ok(findings)
}

fn judge(
    what: &str,
    measured: &[Measured],
    limit_lines: usize,
    listed: &BTreeMap<String, usize>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Of functions with one name (two impls of one trait, say) the longest counts.
    let mut longest: BTreeMap<&str, &Measured> = BTreeMap::new();
    for item in measured {
        let entry = longest.entry(&item.key).or_insert(item);
        if item.length_lines > entry.length_lines {
            *entry = item;
        }
    }
    for item in longest.values() {
        let length = item.length_lines;
        let message = match listed.get(&item.key) {
            None if length > limit_lines => {
                format!("{what} has {length} lines, more than {limit_lines}: split it")
            }
            Some(_) if length <= limit_lines => {
                format!("{what} has become short: remove `{}` from {RATCHET}", item.key)
            }
            Some(&number) if length > number => {
                format!("{what} has grown from {number} to {length} lines: shorten it")
            }
            Some(&number) if length < number => {
                format!(
                    "{what} has shrunk to {length} lines: set `{}` to it in {RATCHET}, now {number}",
                    item.key
                )
            }
            _ => continue,
        };
        findings.push(Finding { path: item.path.clone(), line: item.line, message });
    }
    findings.extend(
        listed
            .keys()
            .filter(|key| !longest.contains_key(key.as_str()))
            .map(|key| Finding::of_file(RATCHET, format!("{what} `{key}` is gone: remove it"))),
    );
    findings
}

fn measure_functions(path: &str, text: &str) -> Result<Vec<Measured>> {
    let mut functions = Functions { path, inside: Vec::new(), found: Vec::new() };
    functions.visit_file(&rust::parse(path, text)?);
    Ok(functions.found)
}

/// Collects the functions of a file, those inside of functions too.
struct Functions<'a> {
    path: &'a str,
    /// Names of the modules, types and functions around the current place.
    inside: Vec<String>,
    found: Vec<Measured>,
}

impl Functions<'_> {
    fn within(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.inside.push(name);
        visit(self);
        self.inside.pop();
    }

    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        let mut key = self.path.to_owned();
        for name in self.inside.iter().chain([&signature.ident.to_string()]) {
            key.push_str("::");
            key.push_str(name);
        }
        let length_lines = last.saturating_sub(first) + 1;
        self.found.push(Measured { key, path: self.path.to_owned(), line: Some(first), length_lines });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.within(module.ident.to_string(), |this| visit::visit_item_mod(this, module));
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let name = match &*block.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        // Types without a name (slices, tuples, references) are told apart by their line.
        let name = name.unwrap_or_else(|| format!("impl@{}", block.self_ty.span().start().line));
        self.within(name, |this| visit::visit_item_impl(this, block));
    }

    fn visit_item_trait(&mut self, definition: &'ast syn::ItemTrait) {
        self.within(definition.ident.to_string(), |this| visit::visit_item_trait(this, definition));
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        self.within(function.sig.ident.to_string(), |this| visit::visit_item_fn(this, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        self.within(function.sig.ident.to_string(), |this| visit::visit_impl_item_fn(this, function));
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        self.within(function.sig.ident.to_string(), |this| visit::visit_trait_item_fn(this, function));
    }
}

#[cfg(test)]
mod tests;
