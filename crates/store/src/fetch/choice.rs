//! Which files of a repository are meant: by Hugging Face's rules.
//!
//! A quantisation in any case, or the name of a file; without either `Q4_K_M`, else the first that exists.
//! All shards belong to a model, and the best projector of the repository.

use std::path::PathBuf;

use super::FetchError;
use super::listed::ListedFile;
use super::model::Variant;
use crate::is_projector_name;
use crate::projectors::best_projector;
use crate::quantization::quantization_in;
use hypura_core::gguf::ShardName;

/// What is meant where nothing is said.
const DEFAULT_QUANTIZATION: &str = "Q4_K_M";

/// The files of one model of a repository.
pub(super) struct Chosen<'a> {
    pub tag: String,
    /// In the order of the shards.
    pub weights: Vec<&'a ListedFile>,
    pub projector: Option<&'a ListedFile>,
}

/// The files that `choice` means.
pub(super) fn choose<'a>(
    files: &'a [ListedFile],
    repo: &str,
    choice: Option<&str>,
) -> Result<Chosen<'a>, FetchError> {
    let models = first_files(files);
    if models.is_empty() {
        return Err(FetchError::NoGguf(repo.to_owned()));
    }
    let first = match choice {
        None => find(&models, DEFAULT_QUANTIZATION).or_else(|| models.first().copied()),
        Some(choice) => find(&models, choice),
    };
    let first = first.ok_or_else(|| FetchError::NoSuchFile {
        repo: repo.to_owned(),
        quant: choice.unwrap_or_default().to_owned(),
        files: models.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let weights =
        shards(files, first).map_err(|shard| FetchError::NoSuchShard { repo: repo.to_owned(), shard })?;
    let projectors: Vec<PathBuf> = files
        .iter()
        .filter(|file| is_projector_name(&file.path))
        .map(|file| file.path.clone().into())
        .collect();
    let best = best_projector(&projectors, first.path.as_ref());
    let projector = best.and_then(|best| files.iter().find(|file| best.as_os_str() == file.path.as_str()));
    Ok(Chosen { tag: tag_of(&models, first), weights, projector })
}

/// All models of a repository, smallest first.
pub(super) fn variants(files: &[ListedFile]) -> Vec<Variant> {
    let models = first_files(files);
    let variant = |first: &&ListedFile| {
        let weights = shards(files, first).ok()?;
        let bytes = weights.iter().filter_map(|file| file.bytes).fold(0, u64::saturating_add);
        let files = weights.iter().map(|file| file.path.clone()).collect();
        Some(Variant { tag: tag_of(&models, first), bytes, files })
    };
    let mut all: Vec<Variant> = models.iter().filter_map(variant).collect();
    all.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.tag.cmp(&b.tag)));
    all
}

/// The first file of each model.
fn first_files(files: &[ListedFile]) -> Vec<&ListedFile> {
    let is_model = |file: &&ListedFile| file.path.ends_with(".gguf") && !is_projector_name(&file.path);
    let is_first = |file: &&ListedFile| ShardName::parse(&file.path).is_none_or(|shard| shard.index == 0);
    files.iter().filter(is_model).filter(is_first).collect()
}

fn find<'a>(models: &[&'a ListedFile], choice: &str) -> Option<&'a ListedFile> {
    let file = choice.strip_suffix(".gguf").unwrap_or(choice);
    let named = |known: &&&ListedFile| {
        let path = known.path.strip_suffix(".gguf").unwrap_or(&known.path);
        let stem = stem_of(&known.path);
        [path, stem.as_str(), last_part(path)].iter().any(|name| name.eq_ignore_ascii_case(file))
    };
    let exact = |known: &&&ListedFile| {
        quantization_in(last_part(&known.path)).is_some_and(|tag| tag.eq_ignore_ascii_case(choice))
    };
    let within = |known: &&&ListedFile| has_quant(&known.path, choice);
    let by_name = models.iter().find(named);
    by_name.or_else(|| models.iter().find(exact)).or_else(|| models.iter().find(within)).copied()
}

/// What is written behind the colon for a model, as lists of this machine write it: the quantisation, or the
/// name of the file where two have the same one.
fn tag_of(models: &[&ListedFile], first: &ListedFile) -> String {
    let quantization = |file: &ListedFile| quantization_in(last_part(&file.path));
    match quantization(first) {
        Some(tag) if models.iter().filter(|file| quantization(file).as_ref() == Some(&tag)).count() == 1 => {
            tag
        }
        None if models.iter().filter(|file| quantization(file).is_none()).count() == 1 => {
            crate::DEFAULT_TAG.to_owned()
        }
        _ => stem_of(&first.path),
    }
}

/// The name of a file without folders, shard and extension.
fn stem_of(path: &str) -> String {
    let name = last_part(path);
    let stem = ShardName::parse(name).map_or_else(|| name.to_owned(), |shard| shard.prefix);
    stem.strip_suffix(".gguf").unwrap_or(&stem).to_owned()
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// All shards of the model that begins with `first`; `Err` is one that is not listed.
fn shards<'a>(files: &'a [ListedFile], first: &'a ListedFile) -> Result<Vec<&'a ListedFile>, String> {
    let Some(shard) = ShardName::parse(&first.path) else { return Ok(vec![first]) };
    let find = |index| {
        let path = shard.sibling(index);
        files.iter().find(|file| file.path == path).ok_or(path)
    };
    (0..shard.count).map(find).collect()
}

/// Whether a file name has the quantisation as a whole word: `Q4_K` is not in `model-Q4_K_M.gguf`.
fn has_quant(file: &str, quant: &str) -> bool {
    let (file, quant) = (file.to_ascii_lowercase(), quant.to_ascii_lowercase());
    let file = file.strip_suffix(".gguf").unwrap_or(&file);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !quant.is_empty()
        && file.match_indices(&quant).any(|(start, _)| {
            !file[..start].ends_with(is_word) && !file[start + quant.len()..].starts_with(is_word)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Vec<ListedFile> {
        let file = |(index, path): (usize, &&str)| ListedFile {
            path: (*path).to_owned(),
            bytes: Some(10 + index as u64),
            identity: None,
        };
        paths.iter().enumerate().map(file).collect()
    }

    fn chosen(paths: &[&str], choice: Option<&str>) -> (String, Vec<String>, Option<String>) {
        let files = listed(paths);
        let chosen = choose(&files, "o/r", choice).unwrap();
        let weights = chosen.weights.iter().map(|file| file.path.clone()).collect();
        (chosen.tag, weights, chosen.projector.map(|file| file.path.clone()))
    }

    #[test]
    fn quantisations_are_whole_words() {
        assert!(has_quant("Model-Q4_K_M.gguf", "q4_k_m"));
        assert!(has_quant("Q4_K_M/Model-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"));
        assert!(!has_quant("Model-Q4_K_M.gguf", "Q4_K"));
        assert!(!has_quant("Model-IQ4_XS.gguf", "Q4_XS"));
        assert!(!has_quant("Model-Q4_K_M.gguf", ""));
    }

    #[test]
    fn the_default_is_q4_k_m_or_the_first_there_is() {
        let files = ["README.md", "mmproj-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"];
        let (tag, weights, projector) = chosen(&files, None);
        assert_eq!((tag.as_str(), projector.as_deref()), ("Q4_K_M", Some("mmproj-F16.gguf")));
        assert_eq!(weights, ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&files[..3], None).0, "Q8_0");
        assert!(choose(&listed(&files[..2]), "o/r", None).err().unwrap().to_string().contains("no GGUF"));
    }

    #[test]
    fn a_choice_is_a_quantisation_or_a_file_in_any_case() {
        let files = [
            "m-Q8_0.gguf",
            "BF16/m-BF16-00001-of-00002.gguf",
            "BF16/m-BF16-00002-of-00002.gguf",
            "a-Q4_0.gguf",
            "b-Q4_0.gguf",
            "m-UD-Q2_K_XL.gguf",
        ];
        assert_eq!(chosen(&files, Some("q8_0")).0, "Q8_0");
        assert_eq!(chosen(&files, Some("bf16")).1, files[1..3]);
        assert_eq!(chosen(&files, Some("b-q4_0.gguf")).1, ["b-Q4_0.gguf"]);
        // Of equal quantisations the file is the name, as in lists.
        assert_eq!(chosen(&files, Some("Q4_0")).0, "a-Q4_0");
        assert_eq!(chosen(&files, Some("Q2_K_XL")).0, "UD-Q2_K_XL");
        let missing = choose(&listed(&files), "o/r", Some("Q2_K")).err().unwrap().to_string();
        assert!(missing.contains("Q2_K") && missing.contains("m-Q8_0.gguf"), "{missing}");
        let torn = choose(&listed(&files[..2]), "o/r", Some("BF16")).err().unwrap().to_string();
        assert!(torn.contains("m-BF16-00002-of-00002.gguf"), "{torn}");
    }

    #[test]
    fn variants_are_told_with_their_bytes() {
        let files = listed(&["m-Q8_0.gguf", "m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf"]);
        let of = |tag: &str, bytes, files: &[ListedFile]| {
            let files = files.iter().map(|file| file.path.clone()).collect();
            Variant { tag: tag.to_owned(), bytes, files }
        };
        assert_eq!(variants(&files), [of("Q8_0", 10, &files[..1]), of("F16", 23, &files[1..])]);
    }
}
