//! What a name in a module means: an item there, a child, or what an import leads to.

use syn::{Item, UseTree};

use super::{Crate, Module};

/// How many imports one name may lead through. More would be a circle of glob imports.
const LONGEST_CHAIN: usize = 12;

/// One name that a `use` brings into a module, or, without a name, all of a module.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) name: Option<String>,
    /// As it is written, split at `::`, without the `*`.
    pub(crate) target: Vec<String>,
    /// Something that this module offers to others (`pub use`), which need not mean that it uses it.
    pub(crate) is_reexport: bool,
}

/// Where something is defined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Definition {
    /// Path of the module.
    pub(crate) module: String,
    /// Name of the item, empty if the module itself is meant.
    pub(crate) item: String,
}

impl Crate {
    /// What `path`, written in the module `from`, means, if that is something of this crate.
    pub(crate) fn definition(&self, from: &str, path: &[String]) -> Option<Definition> {
        self.look_up(from, path, LONGEST_CHAIN)
    }

    fn module(&self, path: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.path == path)
    }

    fn look_up(&self, from: &str, path: &[String], hops: usize) -> Option<Definition> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend("crate", rest, hops),
            "self" => self.descend(from, rest, hops),
            "super" => {
                let (parent, _) = from.rsplit_once("::")?;
                // `super::super::x`: the rest begins with another step up.
                match rest.first().map(String::as_str) {
                    Some("super") => self.look_up(parent, rest, hops),
                    _ => self.descend(parent, rest, hops),
                }
            }
            _ => self.descend(from, path, hops),
        }
    }

    fn descend(&self, at: &str, path: &[String], hops: usize) -> Option<Definition> {
        let module = self.module(at)?;
        let Some((first, rest)) = path.split_first() else {
            return Some(Definition { module: at.to_owned(), item: String::new() });
        };
        let child = format!("{at}::{first}");
        if self.module(&child).is_some() {
            return self.descend(&child, rest, hops);
        }
        if module.items.iter().any(|item| item_name(item).is_some_and(|name| *name == **first)) {
            return Some(Definition { module: at.to_owned(), item: first.clone() });
        }
        let hops = hops.checked_sub(1)?;
        let named = module.imports.iter().filter(|import| import.name.as_ref() == Some(first));
        let of_named = named.map(|import| [&import.target, rest].concat());
        let globs = module.imports.iter().filter(|import| import.name.is_none());
        let of_globs = globs.map(|import| [&import.target, path].concat());
        of_named.chain(of_globs).find_map(|target| self.look_up(at, &target, hops))
    }
}

/// The imports of a module.
pub(super) fn imports(items: &[Item]) -> Vec<Import> {
    let mut imports = Vec::new();
    for item in items {
        if let Item::Use(item) = item {
            let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
            collect(&item.tree, &mut Vec::new(), is_reexport, &mut imports);
        }
    }
    imports
}

fn collect(tree: &UseTree, before: &mut Vec<String>, is_reexport: bool, imports: &mut Vec<Import>) {
    let mut add = |name: Option<String>, last: Option<String>| {
        // `use a::b::{self}` brings `b`.
        let last = last.filter(|last| last != "self" || before.is_empty());
        let name =
            name.map(|name| if name == "self" { before.last().cloned().unwrap_or(name) } else { name });
        let target = before.iter().cloned().chain(last).collect();
        imports.push(Import { name, target, is_reexport });
    };
    match tree {
        UseTree::Name(name) => add(Some(name.ident.to_string()), Some(name.ident.to_string())),
        UseTree::Rename(name) => add(Some(name.rename.to_string()), Some(name.ident.to_string())),
        UseTree::Glob(_) => add(None, None),
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            collect(&path.tree, before, is_reexport, imports);
            before.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                collect(tree, before, is_reexport, imports);
            }
        }
    }
}

fn item_name(item: &Item) -> Option<&syn::Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}
