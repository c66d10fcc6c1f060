//! The modules of the crates of this workspace, as they lie in files, and what names mean in them: enough of
//! Rust's name resolution to tell which type an `impl` is of and which module an import leads to. Macros are
//! not expanded and preludes not known, so a name that leads out of the crate, or into what a macro makes,
//! has no definition here.

mod names;

use anyhow::Result;
use syn::Item;

use crate::rust;
use crate::tree::Tree;

pub(crate) use names::{Definition, Import};

/// A crate of the workspace.
pub(crate) struct Crate {
    /// Where it lies, such as `crates/core`.
    pub(crate) folder: String,
    /// The root is the first.
    pub(crate) modules: Vec<Module>,
}

/// A module: a file, or a `mod { … }` inside of one.
pub(crate) struct Module {
    /// From the root, which is `crate`: `crate::cache::policy`.
    pub(crate) path: String,
    pub(crate) file: String,
    /// It, or a module around it, exists under `#[cfg(test)]` only.
    pub(crate) is_test: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) imports: Vec<Import>,
}

/// All crates that have a `src/lib.rs` or a `src/main.rs`; a package with both is two crates.
///
/// # Errors
/// A file that is no Rust.
pub(crate) fn crates(tree: &Tree) -> Result<Vec<Crate>> {
    let mut crates = Vec::new();
    for (manifest, _) in tree.texts("Cargo.toml") {
        let folder = manifest.trim_end_matches("Cargo.toml").trim_end_matches('/');
        for root in ["lib.rs", "main.rs"] {
            let file = format!("{folder}/src/{root}");
            if tree.text(&file).is_none() {
                continue;
            }
            let mut reader = Reader { tree, modules: Vec::new() };
            let place = Place { path: "crate".to_owned(), is_test: false, children: format!("{folder}/src") };
            reader.read_file(place, &file)?;
            crates.push(Crate { folder: folder.to_owned(), modules: reader.modules });
        }
    }
    Ok(crates)
}

/// Is this item there for tests only?
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let tokens = list.tokens.to_string();
        let mut words = tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
        list.path.is_ident("cfg")
            && words.clone().any(|word| word == "test")
            && words.all(|word| word != "not")
    })
}

/// Where a module stands: its path, and the folder that files of its children lie in.
struct Place {
    path: String,
    is_test: bool,
    children: String,
}

struct Reader<'a> {
    tree: &'a Tree,
    modules: Vec<Module>,
}

impl Reader<'_> {
    fn read_file(&mut self, place: Place, file: &str) -> Result<()> {
        // A file that is not there is the compiler's business.
        let Some(text) = self.tree.text(file) else { return Ok(()) };
        let items = rust::parse(file, text)?.items;
        self.read_items(place, file, items)
    }

    fn read_items(&mut self, place: Place, file: &str, items: Vec<Item>) -> Result<()> {
        let imports = names::imports(&items);
        let children: Vec<syn::ItemMod> = items.iter().filter_map(as_module).cloned().collect();
        self.modules.push(Module {
            path: place.path.clone(),
            file: file.to_owned(),
            is_test: place.is_test,
            items,
            imports,
        });
        for child in children {
            self.read_child(&place, file, child)?;
        }
        Ok(())
    }

    fn read_child(&mut self, parent: &Place, file: &str, child: syn::ItemMod) -> Result<()> {
        let name = child.ident.to_string();
        let place = Place {
            path: format!("{}::{name}", parent.path),
            is_test: parent.is_test || is_for_tests(&child.attrs),
            children: format!("{}/{name}", parent.children),
        };
        if let Some((_, items)) = child.content {
            return self.read_items(place, file, items);
        }
        if let Some(named) = path_attribute(&child.attrs) {
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let place = Place { children: folder.to_owned(), ..place };
            return self.read_file(place, &format!("{folder}/{named}"));
        }
        let beside = format!("{}.rs", place.children);
        let within = format!("{}/mod.rs", place.children);
        let file = if self.tree.text(&beside).is_some() { beside } else { within };
        self.read_file(place, &file)
    }
}

fn as_module(item: &Item) -> Option<&syn::ItemMod> {
    match item {
        Item::Mod(module) => Some(module),
        _ => None,
    }
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests;
