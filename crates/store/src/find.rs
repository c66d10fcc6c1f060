//! From a name to what is there under it, with the liberties that Ollama and llama.cpp take.

use std::path::Path;

use crate::Store;
use crate::gather::{Found, Source};
use crate::layout::Layout;
use crate::name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName};
use crate::places::Origin;

impl Store {
    pub(crate) fn find(&self, name: &ModelName) -> Option<Found> {
        if let Some(found) = self.find_manifest(name) {
            return Some(found);
        }
        let mut all = self.gathered().found;
        if let Some(at) = all.iter().position(|found| found.name == *name) {
            return Some(all.swap_remove(at));
        }
        if !name.tag().eq_ignore_ascii_case(DEFAULT_TAG)
            || !is_hugging_face(name.host()) && !has_publisher(name)
        {
            return find_mirror(all, name);
        }
        // Ollama and llama.cpp take this one, too.
        let same = |found: &Found| same_repository(&found.name, name);
        let best =
            all.iter().position(|found| same(found) && found.name.tag().eq_ignore_ascii_case("Q4_K_M"));
        let at = best.or_else(|| all.iter().position(same))?;
        Some(all.swap_remove(at))
    }

    /// The quick way for most names: a manifest of our own store, if no given file has the name.
    fn find_manifest(&self, name: &ModelName) -> Option<Found> {
        if !self.given.is_empty() {
            return None;
        }
        let layouts = self.places.own.iter().map(|own| (Origin::Own, own));
        let layouts = layouts.chain(self.places.ollama.iter().map(|folder| (Origin::Ollama, folder)));
        for (origin, folder) in layouts {
            let layout = Layout::new(folder);
            if let Some(path) = layout.find(name) {
                let name = name_of_manifest(&path).unwrap_or_else(|| name.clone());
                let source = Source::Manifest(layout, path);
                return Some(Found { name, origin, source, projector: None });
            }
        }
        None
    }
}

/// A name as its manifest spells it.
fn name_of_manifest(path: &Path) -> Option<ModelName> {
    let mut parts: Vec<&str> = path.iter().rev().take(4).map_while(|part| part.to_str()).collect();
    parts.reverse();
    let [host, namespace, model, tag] = parts.as_slice() else { return None };
    ModelName::parse(&format!("{host}/{namespace}/{model}:{tag}")).ok()
}

fn is_hugging_face(host: &str) -> bool {
    ["hf.co", "huggingface.co"].iter().any(|known| known.eq_ignore_ascii_case(host))
}

fn has_publisher(name: &ModelName) -> bool {
    name.host().eq_ignore_ascii_case(DEFAULT_HOST)
        && !name.namespace().eq_ignore_ascii_case(DEFAULT_NAMESPACE)
}

fn same_repository(a: &ModelName, b: &ModelName) -> bool {
    let hosts =
        a.host().eq_ignore_ascii_case(b.host()) || is_hugging_face(a.host()) && is_hugging_face(b.host());
    hosts && a.namespace().eq_ignore_ascii_case(b.namespace()) && a.model().eq_ignore_ascii_case(b.model())
}

/// The same repository under Hugging Face's other name.
fn find_mirror(mut all: Vec<Found>, name: &ModelName) -> Option<Found> {
    let same = |found: &Found| {
        is_hugging_face(name.host())
            && same_repository(&found.name, name)
            && found.name.tag().eq_ignore_ascii_case(name.tag())
    };
    let at = all.iter().position(same)?;
    Some(all.swap_remove(at))
}
