//! Import cycles: modules that can all reach each other over their imports, found by Tarjan's algorithm (R.
//! Tarjan, "Depth-first search and linear graph algorithms", 1972).

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::modules::{Crate, Module};

/// Paths of modules to the modules that they use, and the names of what they use there.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Modules that can all reach each other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cycle {
    /// Their paths, in order.
    pub modules: Vec<String>,
    /// Who uses what of whom.
    pub edges: Vec<String>,
}

/// The cycles of a crate.
pub(crate) fn find(of: &Crate) -> Vec<Cycle> {
    let graph = graph(of);
    let mut search = Search { graph: &graph, numbers: BTreeMap::new(), path: Vec::new(), cycles: Vec::new() };
    for module in graph.keys() {
        if !search.numbers.contains_key(module.as_str()) {
            search.visit(module);
        }
    }
    search.cycles.sort();
    search.cycles
}

/// Which module uses which. Modules inside of a file belong to the file.
fn graph(of: &Crate) -> Graph {
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    for module in &of.modules {
        files.entry(&module.path).or_insert(&module.file);
    }
    let mut of_file: BTreeMap<&str, &str> = BTreeMap::new();
    for module in &of.modules {
        of_file.entry(&module.file).or_insert(&module.path);
    }
    let node = |path: &str| Some((*of_file.get(files.get(path)?)?).to_owned());
    let mut graph = Graph::new();
    for module in of.modules.iter().filter(|module| !module.is_test) {
        let Some(user) = node(&module.path) else { continue };
        let used = graph.entry(user.clone()).or_default();
        for path in paths_in(module) {
            // A path to a module, not to something in it, is how `use` begins and code goes on.
            let target = of.definition(&module.path, &path).filter(|found| !found.item.is_empty());
            let Some((found, other)) = target.and_then(|found| Some((node(&found.module)?, found))) else {
                continue;
            };
            if found != user {
                used.entry(found).or_default().insert(other.item);
            }
        }
    }
    graph
}

/// The paths that a module names in imports of its own and in code. What it offers to others it need not use.
fn paths_in(module: &Module) -> Vec<Vec<String>> {
    let mut paths = Paths { found: Vec::new() };
    for import in module.imports.iter().filter(|import| !import.is_reexport) {
        // All of a module counts as the module itself where it has no name; its parent's prelude is not a
        // use.
        paths.found.push(import.target.clone());
    }
    for item in &module.items {
        if !matches!(item, syn::Item::Use(_) | syn::Item::Mod(_)) {
            paths.visit_item(item);
        }
    }
    paths.found
}

struct Paths {
    found: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A single name is something that an import brought, or that stands in the module.
        if path.segments.len() > 1 {
            self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

/// Tarjan's search.
struct Search<'a> {
    graph: &'a Graph,
    /// Number of the visit, and the lowest number that can be reached; none once its cycle is complete.
    numbers: BTreeMap<&'a str, Option<(usize, usize)>>,
    path: Vec<&'a str>,
    cycles: Vec<Cycle>,
}

impl<'a> Search<'a> {
    /// Returns the lowest number that can be reached from the module.
    fn visit(&mut self, module: &'a str) -> usize {
        let number = self.numbers.len();
        let mut lowest = number;
        self.numbers.insert(module, Some((number, number)));
        self.path.push(module);
        for used in self.graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            match self.numbers.get(used.as_str()) {
                None => lowest = lowest.min(self.visit(used)),
                Some(Some((number, _))) => lowest = lowest.min(*number),
                Some(None) => {}
            }
        }
        if lowest == number {
            let start = self.path.iter().position(|other| *other == module).unwrap_or_default();
            let mut cycle: Vec<String> = self.path.drain(start..).map(str::to_owned).collect();
            for member in &cycle {
                if let Some(entry) = self.graph.get_key_value(member) {
                    self.numbers.insert(entry.0, None);
                }
            }
            if cycle.len() > 1 {
                cycle.sort();
                let edges = self.edges(&cycle);
                self.cycles.push(Cycle { modules: cycle, edges });
            }
        }
        lowest
    }

    fn edges(&self, cycle: &[String]) -> Vec<String> {
        let inside = |module: &String| {
            let used = self.graph.get(module).into_iter().flatten();
            let used = used.filter(|(other, _)| cycle.contains(other));
            used.map(|(other, names)| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!("{module} -> {other}: {}", names.join(", "))
            })
            .collect::<Vec<_>>()
        };
        cycle.iter().flat_map(inside).collect()
    }
}
