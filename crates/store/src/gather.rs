//! Finds models in all places by names of files alone: nothing is opened here but small manifests.

use hypura_core::gguf::ShardName;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::files::shown_name;
use super::layout::{Layout, children};
use super::name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName};
use super::places::{Origin, Places};
use super::projectors::{best_projector, is_projector_name, projector_beside};
use super::quantization::quantization_in;
use super::unusable::Unusable;

/// How deep snapshots of Hugging Face are searched.
const MAX_SNAPSHOT_DEPTH: usize = 4;

/// A model that seems to be there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub name: ModelName,
    pub origin: Origin,
    pub source: Source,
    /// The projector beside its files; one in a manifest is found there.
    pub projector: Option<PathBuf>,
}

/// What it consists of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A manifest in a layout.
    Manifest(Layout, PathBuf),
    /// GGUF files, all the shards in order.
    Files(Vec<PathBuf>),
}

/// Something that looks like a model and cannot be used.
#[derive(Debug)]
pub struct Skipped {
    /// Whose store it is in.
    pub origin: Origin,
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub why: Unusable,
}

/// What all places have.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub found: Vec<Found>,
    pub skipped: Vec<Skipped>,
}

impl Gathered {
    /// Looks everywhere. Of equal names the first one counts: given files, then our own store, then others'.
    pub fn from(places: &Places, given: &[PathBuf]) -> Self {
        let mut all = Self::default();
        for file in given {
            all.plain_file(Origin::Given, file);
        }
        for (origin, folder) in places.existing() {
            match origin {
                Origin::Own | Origin::Ollama => all.layout(origin, &Layout::new(folder)),
                Origin::HuggingFace => all.hugging_face(folder),
                Origin::LmStudio => all.lm_studio(folder),
                Origin::Given | Origin::Demo => {}
            }
        }
        if let (Some(file), Ok(name)) = (&places.demo, ModelName::parse("demo")) {
            let source = Source::Files(vec![file.clone()]);
            all.found.push(Found { name, origin: Origin::Demo, source, projector: None });
        }
        all.drop_doubles();
        all
    }

    fn drop_doubles(&mut self) {
        let mut seen = HashSet::new();
        let (kept, doubles): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.found).into_iter().partition(|found| seen.insert(found.name.key()));
        self.found = kept;
        for double in doubles {
            let why = Unusable::NameTaken(double.name);
            let path = match double.source {
                Source::Manifest(_, path) => path,
                Source::Files(files) => files.into_iter().next().unwrap_or_default(),
            };
            self.skip(double.origin, path, why);
        }
    }

    fn skip(&mut self, origin: Origin, path: impl Into<PathBuf>, why: Unusable) {
        self.skipped.push(Skipped { origin, path: path.into(), why });
    }

    fn add(
        &mut self,
        name: Option<ModelName>,
        origin: Origin,
        files: Vec<PathBuf>,
        projector: Option<PathBuf>,
    ) {
        match name {
            Some(name) => self.found.push(Found { name, origin, source: Source::Files(files), projector }),
            None => {
                let path = files.into_iter().next().unwrap_or_default();
                self.skip(origin, path, Unusable::NoName);
            }
        }
    }

    fn layout(&mut self, origin: Origin, layout: &Layout) {
        for manifest in layout.manifests() {
            match manifest {
                Ok((name, path)) => {
                    let source = Source::Manifest(layout.clone(), path);
                    self.found.push(Found { name, origin, source, projector: None });
                }
                Err(path) => self.skip(origin, path, Unusable::PathIsNoName),
            }
        }
    }

    fn plain_file(&mut self, origin: Origin, file: &Path) {
        let stem = shown_name(file);
        let stem = ShardName::parse(&stem).map_or(stem, |shard| shard.prefix);
        let stem = stem.strip_suffix(".gguf").unwrap_or(&stem);
        let name = ModelName::from_foreign(DEFAULT_HOST, DEFAULT_NAMESPACE, stem, DEFAULT_TAG);
        match shards_of(file) {
            Ok(files) => self.add(name, origin, files, projector_beside(file)),
            Err(why) => self.skip(origin, file, why),
        }
    }

    /// `models--ORG--REPO/snapshots/REVISION/**/FILE.gguf`, which are links into `blobs`.
    fn hugging_face(&mut self, cache: &Path) {
        for (folder, path) in children(cache) {
            let Some(repository) = folder.strip_prefix("models--") else { continue };
            let (org, repo) = repository.split_once("--").unwrap_or(("", repository));
            let org = if org.is_empty() { DEFAULT_NAMESPACE } else { org };
            if let Some(snapshot) = current_snapshot(&path) {
                let mut files = Vec::new();
                ggufs_below(&snapshot, MAX_SNAPSHOT_DEPTH, &mut files);
                self.repository(Origin::HuggingFace, files, "hf.co", org, repo);
            }
        }
    }

    /// `PUBLISHER/REPO/FILE.gguf`.
    fn lm_studio(&mut self, folder: &Path) {
        for (publisher, path) in children(folder) {
            for (repo, path) in children(&path) {
                let mut files = Vec::new();
                ggufs_below(&path, 1, &mut files);
                self.repository(Origin::LmStudio, files, DEFAULT_HOST, &publisher, &repo);
            }
        }
    }

    /// The models among the GGUF files of one repository. The tag is the quantisation; where two files have
    /// the same one, the name of the file.
    fn repository(&mut self, origin: Origin, files: Vec<PathBuf>, host: &str, owner: &str, repo: &str) {
        let mut by_tag: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        // Projectors are parts of models: of all models of their repository.
        let (projectors, files): (Vec<PathBuf>, Vec<PathBuf>) =
            files.into_iter().partition(|file| is_projector_name(&shown_name(file)));
        for file in files {
            let name = shown_name(&file);
            // A model of several shards is named by one of them, the first that is there.
            if ShardName::parse(&name).is_some_and(|shard| {
                (0..shard.index).any(|index| file.with_file_name(shard.sibling(index)).exists())
            }) {
                continue;
            }
            let tag = quantization_in(&name).unwrap_or_else(|| DEFAULT_TAG.to_owned());
            by_tag.entry(tag).or_default().push(file);
        }
        for (tag, files) in by_tag {
            let several = files.len() > 1;
            for file in files {
                let stem = shown_name(&file);
                let stem = ShardName::parse(&stem).map_or(stem, |shard| shard.prefix);
                let stem = stem.strip_suffix(".gguf").unwrap_or(&stem);
                let name = ModelName::from_foreign(host, owner, repo, if several { stem } else { &tag });
                match shards_of(&file) {
                    Ok(files) => {
                        let projector = best_projector(&projectors, &file);
                        self.add(name, origin, files, projector);
                    }
                    Err(why) => self.skip(origin, file, why),
                }
            }
        }
    }
}

/// All shards of the model that a file belongs to, in order.
///
/// # Errors
/// Which one is missing.
pub fn shards_of(file: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let name = shown_name(file);
    let Some(shard) = ShardName::parse(&name) else {
        return whole(file).map(|()| vec![file.to_path_buf()]);
    };
    let mut files = Vec::new();
    // Bounded by what is there: the first gap ends it.
    for index in 0..shard.count {
        let path = file.with_file_name(shard.sibling(index));
        whole(&path).map_err(|why| Unusable::Shard {
            number: u64::from(index) + 1,
            count: shard.count,
            why: Box::new(why),
        })?;
        files.push(path);
    }
    Ok(files)
}

fn whole(file: &Path) -> Result<(), Unusable> {
    match fs::metadata(file) {
        Ok(about) if about.is_file() => Ok(()),
        Ok(_) => Err(Unusable::NoFile),
        Err(error) if fs::symlink_metadata(file).is_ok() => Err(Unusable::DeadLink(error)),
        Err(error) => Err(Unusable::Missing(error)),
    }
}

/// The snapshot that `main` names, otherwise the newest one.
fn current_snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = super::files::read_bounded(&repository.join("refs/main"), 256).ok();
    let main = main.and_then(|revision| String::from_utf8(revision).ok());
    let all = children(&snapshots);
    let named = main.and_then(|main| all.iter().find(|(name, _)| name == main.trim()).cloned());
    let newest =
        || all.into_iter().max_by_key(|(_, path)| fs::metadata(path).and_then(|about| about.modified()).ok());
    named.or_else(newest).map(|(_, path)| path)
}

/// The GGUF files in a folder and, down to a depth, in those within. Links to folders are not followed.
fn ggufs_below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for (name, path) in children(folder) {
        if name.ends_with(".gguf") {
            files.push(path);
        } else if depth > 1 && fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir()) {
            ggufs_below(&path, depth - 1, files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_shards_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let shard = |index: u32| folder.path().join(format!("m-{index:05}-of-00003.gguf"));
        fs::write(shard(1), "").unwrap();
        fs::write(shard(3), "").unwrap();
        assert!(shards_of(&shard(3)).unwrap_err().to_string().starts_with("shard 2 of 3: it is missing"));
        fs::write(shard(2), "").unwrap();
        assert_eq!(shards_of(&shard(3)).unwrap(), [shard(1), shard(2), shard(3)]);
    }
}
