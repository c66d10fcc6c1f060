//! Which projector belongs to a model, by names of files alone.
//!
//! In a repository of Hugging Face or LM Studio projectors belong to all its models. In other folders a
//! projector belongs to a model when its name says so (`gemma-3-4b-it-mmproj-F16.gguf`,
//! `mmproj-gemma-3-4b-it.gguf`), or when it names no model (`mmproj-F16.gguf`, `mmproj-model-f16.gguf`) and
//! there is only one model in the folder. Of several encodings of one projector F16 is taken before BF16,
//! Q8_0 and F32: pictures are encoded on the CPU, which has no fast way for BF16, and less than 8 bits can be
//! seen in the answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::shown_name;
use super::layout::children;
use super::quantization::quantization_in;
use hypura_core::gguf::ShardName;

/// Encodings in order of preference; all others come after them.
const PREFERRED: [&str; 5] = ["F16", "FP16", "BF16", "Q8_0", "F32"];

/// Whether a file of this name is a projector.
#[must_use]
pub fn is_projector_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".gguf") && name.contains("mmproj")
}

/// The projector in the folder of a model file, where exactly one belongs to it.
#[must_use]
pub fn projector_beside(model: &Path) -> Option<PathBuf> {
    if is_projector_name(&shown_name(model)) {
        return None;
    }
    let folder = model.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let files: Vec<(String, PathBuf)> = children(folder)
        .into_iter()
        .filter(|(name, path)| name.ends_with(".gguf") && path.is_file())
        .collect();
    let (projectors, models): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| is_projector_name(name));
    let base = base_name(&shown_name(model));
    let named: Vec<PathBuf> = projectors
        .iter()
        .filter(|(name, _)| model_named(name) == base)
        .map(|(_, path)| path.clone())
        .collect();
    if !named.is_empty() {
        return best(&named);
    }
    let bases: BTreeSet<String> = models.iter().map(|(name, _)| base_name(name)).collect();
    let bare: Vec<PathBuf> = projectors
        .iter()
        .filter(|(name, _)| matches!(model_named(name).as_str(), "" | "model"))
        .map(|(_, path)| path.clone())
        .collect();
    if bases.len() == 1 { best(&bare) } else { None }
}

/// The best of a repository's projectors: one in the model's own folder, if there is one.
pub(super) fn best_projector(projectors: &[PathBuf], model: &Path) -> Option<PathBuf> {
    let beside: Vec<PathBuf> =
        projectors.iter().filter(|path| path.parent() == model.parent()).cloned().collect();
    best(if beside.is_empty() { projectors } else { &beside })
}

fn best(projectors: &[PathBuf]) -> Option<PathBuf> {
    let rank = |path: &&PathBuf| {
        let name = shown_name(path);
        let quantization = quantization_of(&name);
        let rank = PREFERRED.iter().position(|known| quantization.as_deref() == Some(known));
        (rank.unwrap_or(PREFERRED.len()), name)
    };
    projectors.iter().min_by_key(rank).cloned()
}

/// Projectors say how they are encoded at the end, or before their `mmproj`.
fn quantization_of(name: &str) -> Option<String> {
    quantization_in(name).or_else(|| {
        let stem = name.strip_suffix(".gguf").unwrap_or(name).to_ascii_lowercase();
        let before = stem.strip_suffix("mmproj")?.trim_end_matches(['-', '.', '_']).to_owned();
        quantization_in(&before)
    })
}

/// A file name without extension, shard and encoding, in lower case.
fn base_name(name: &str) -> String {
    let stem = ShardName::parse(name).map_or_else(|| name.to_owned(), |shard| shard.prefix);
    let stem = stem.strip_suffix(".gguf").unwrap_or(&stem).to_ascii_lowercase();
    match quantization_in(&stem) {
        Some(quantization) => {
            let stem = stem.strip_suffix(&quantization.to_ascii_lowercase()).unwrap_or(&stem);
            stem.trim_end_matches(['-', '.', '_']).to_owned()
        }
        None => stem,
    }
}

/// The model that a projector's name tells; empty where it tells none.
fn model_named(name: &str) -> String {
    let base = base_name(name);
    let rest = match base.split_once("mmproj") {
        Some((before, after)) => format!("{}{}", base_name(before.trim_end_matches(['-', '.', '_'])), after),
        None => base,
    };
    rest.trim_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn beside(files: &[&str], model: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        projector_beside(&folder.path().join(model)).map(|path| shown_name(&path))
    }

    #[test]
    fn a_projector_that_names_the_model_or_the_only_model_is_taken() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(beside(&["m-Q4_K_M.gguf", "mmproj-F16.gguf"], "m-Q4_K_M.gguf"), some("mmproj-F16.gguf"));
        assert_eq!(
            beside(&["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-model-f16.gguf"], "m-Q8_0.gguf"),
            some("mmproj-model-f16.gguf")
        );
        let two =
            ["a-Q4_0.gguf", "b-Q4_0.gguf", "mmproj-F16.gguf", "b-mmproj-f16.gguf", "mmproj-a-BF16.gguf"];
        assert_eq!(beside(&two, "b-Q4_0.gguf"), some("b-mmproj-f16.gguf"));
        assert_eq!(beside(&two, "a-Q4_0.gguf"), some("mmproj-a-BF16.gguf"));
        assert_eq!(beside(&["a-Q4_0.gguf", "b-Q4_0.gguf", "mmproj-F16.gguf"], "a-Q4_0.gguf"), None);
        assert_eq!(beside(&["a-Q4_0.gguf", "mmproj-other-F16.gguf"], "a-Q4_0.gguf"), None);
        assert_eq!(beside(&["a.gguf"], "a.gguf"), None);
        assert_eq!(beside(&["a.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"), None);
        let shards = ["m-Q4_0-00001-of-00002.gguf", "m-Q4_0-00002-of-00002.gguf", "mmproj-m-F16.gguf"];
        assert_eq!(beside(&shards, shards[0]), some("mmproj-m-F16.gguf"));
    }

    #[test]
    fn of_several_encodings_the_most_suitable_is_taken() {
        let of = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            best_projector(&paths, Path::new("m.gguf")).map(|path| shown_name(&path)).unwrap_or_default()
        };
        assert_eq!(of(&["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"]), "mmproj-F16.gguf");
        assert_eq!(of(&["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf"]), "mmproj-BF16.gguf");
        assert_eq!(of(&["x.mmproj-Q4_K.gguf", "x.mmproj-q8_0.gguf"]), "x.mmproj-q8_0.gguf");
        assert_eq!(of(&["m-f16-mmproj.gguf", "m-q4_0-mmproj.gguf"]), "m-f16-mmproj.gguf");
        let paths = [PathBuf::from("a/mmproj-F16.gguf"), PathBuf::from("b/mmproj-F32.gguf")];
        assert_eq!(best_projector(&paths, Path::new("b/m.gguf")), Some(paths[1].clone()));
        assert_eq!(best_projector(&[], Path::new("m.gguf")), None);
    }
}
