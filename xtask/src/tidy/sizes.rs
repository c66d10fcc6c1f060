//! Functions of at most 70 lines, counted from `fn` to the closing brace; a `mod.rs`, which is a table of
//! contents, of at most 80. Longer ones must be listed in the [`super::ratchet`]. Functions inside
//! of macro calls (such as `proptest!`) are not seen.
//!
//! A file above 500 lines is worth a thought, not a failure: a cap on files is met by spreading one object
//! over several, which is worse than one long file. What bounds objects is the rule of
//! [`types`](super::types).

use anyhow::Result;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::Finding;
use super::ratchet::{self, Measured, Ratchet};
use crate::rust;
use crate::tree::Tree;

const LONG_FILE_LINES: usize = 500;
const LONGEST_FUNCTION_LINES: usize = 70;
const LONGEST_MODULE_LINES: usize = 80;

pub(crate) fn check(tree: &Tree, listed: &Ratchet) -> Result<Vec<Finding>> {
    let mut modules = Vec::new();
    let mut functions = Vec::new();
    for (path, text) in tree.texts(".rs") {
        if path.contains("/src/") && path.ends_with("/mod.rs") {
            let length_lines = text.lines().count();
            modules.push(Measured { key: path.to_owned(), path: path.to_owned(), line: None, length_lines });
        }
        functions.extend(functions_of(path, text)?);
    }
    let mut findings = ratchet::judge("the mod.rs", &modules, LONGEST_MODULE_LINES, &listed.modules);
    findings.extend(ratchet::judge("the function", &functions, LONGEST_FUNCTION_LINES, &listed.functions));
    Ok(findings)
}

/// The files that are long enough to ask whether they hold one idea.
pub(crate) fn advice(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|&(_, length)| length > LONG_FILE_LINES)
        .map(|(path, length)| {
            Finding::of_file(path, format!("{length} lines, more than {LONG_FILE_LINES}: is it one idea?"))
        })
        .collect()
}

/// All functions of a file with their lengths.
pub(crate) fn functions_of(path: &str, text: &str) -> Result<Vec<Measured>> {
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
