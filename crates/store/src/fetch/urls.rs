//! URLs of GGUF files: the other shards, and what the model is called.

use crate::ModelName;
use crate::name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG};
use hypura_core::gguf::ShardName;

/// The URLs of all shards, whichever of them was named. What follows `?` stays.
pub(super) fn shard_urls(url: &str) -> Box<dyn Iterator<Item = String>> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    match ShardName::parse(path) {
        Some(shard) => Box::new((0..shard.count).map(move |index| shard.sibling(index) + &query)),
        None => Box::new(std::iter::once(url.to_owned())),
    }
}

/// What the model of a URL is called here: as its file is.
pub(super) fn name_of(url: &str) -> Option<ModelName> {
    let file = file_name(url);
    let stem = ShardName::parse(file).map_or_else(|| file.to_owned(), |shard| shard.prefix);
    let stem = stem.strip_suffix(".gguf").or_else(|| stem.strip_suffix(".GGUF")).unwrap_or(&stem);
    ModelName::from_foreign(DEFAULT_HOST, DEFAULT_NAMESPACE, stem, DEFAULT_TAG)
}

/// The last part of a URL's path.
pub(super) fn file_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_found_behind_queries_too() {
        let urls: Vec<String> = shard_urls("http://h/m-00002-of-00002.gguf?download=true").collect();
        let expected =
            ["http://h/m-00001-of-00002.gguf?download=true", "http://h/m-00002-of-00002.gguf?download=true"];
        assert_eq!(urls, expected);
        assert_eq!(shard_urls("http://h/m.gguf").collect::<Vec<_>>(), ["http://h/m.gguf"]);
        // Names may claim anything; none is made before it is asked for, and no more than a model can have.
        let claimed =
            |count: &str| shard_urls(&format!("http://h/m-00001-of-{count}.gguf")).take(100_000).count();
        assert_eq!((claimed("65535"), claimed("4294967295")), (65_535, 1));
    }
}
