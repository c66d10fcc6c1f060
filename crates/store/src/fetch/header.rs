//! The header of a model that is not on this machine: at a URL, or on Hugging Face as `hf:org/repo:QUANT`.

use hypura_core::gguf::{self, ShardName};
use hypura_core::model::ModelShape;

use super::FetchError;
use super::http::{self, Client};
use crate::is_projector_name;

/// Where Hugging Face is, unless `HF_ENDPOINT` names a mirror, as with its own tools.
const HUGGING_FACE: &str = "https://huggingface.co";

/// A model elsewhere, as far as its header tells.
#[derive(Debug)]
pub struct RemoteHeader {
    /// Size of the first file.
    pub first_file_bytes: u64,
    /// Files.
    pub shards: usize,
    /// What the model is made of.
    pub shape: ModelShape,
}

/// Reads the header of the model that `name` says, if that is a URL or begins with `hf:`.
///
/// # Errors
/// What is wrong with the name, the server, or the file.
pub fn remote_header(name: &str) -> Option<Result<RemoteHeader, FetchError>> {
    if let Some(repository) = name.strip_prefix("hf:") {
        return Some(of_hugging_face(repository));
    }
    let is_url = name.starts_with("http://") || name.starts_with("https://");
    is_url.then(|| of_url(&Client::new(), name))
}

fn of_hugging_face(repository: &str) -> Result<RemoteHeader, FetchError> {
    let client = Client::new();
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|url| !url.is_empty());
    let endpoint = endpoint.as_deref().unwrap_or(HUGGING_FACE).trim_end_matches('/');
    let url = hugging_face_url(&client, endpoint, repository)?;
    of_url(&client, &url)
}

fn of_url(client: &Client, url: &str) -> Result<RemoteHeader, FetchError> {
    let (mut headers, mut sizes) = (Vec::new(), Vec::new());
    // One by one: the first shard that is not there ends it, however many the name claims.
    for url in shard_urls(url) {
        // The vocabulary is in the first shard; the others only list their tensors.
        let expected = if headers.is_empty() { http::USUAL_HEADER } else { http::SHORT_HEADER };
        let mut reader = client.open(&url, expected)?;
        let bytes = reader.total_bytes();
        let header =
            gguf::read_header(&mut reader, bytes).map_err(|source| FetchError::header(&url, source))?;
        let name = url.split('?').next().unwrap_or(&url);
        gguf::check_name(name, &header).map_err(|source| FetchError::header(&url, source))?;
        headers.push(header);
        sizes.push(bytes);
    }
    let first_file_bytes = sizes.first().copied().unwrap_or(0);
    let shards = headers.len();
    let set = gguf::merge(headers, sizes).map_err(|source| FetchError::header(url, source))?;
    let shape =
        ModelShape::from_gguf(&set).map_err(|source| FetchError::Shape { url: url.to_owned(), source })?;
    Ok(RemoteHeader { first_file_bytes, shards, shape })
}

/// The URLs of all shards, whichever of them was named. What follows `?` stays.
fn shard_urls(url: &str) -> Box<dyn Iterator<Item = String>> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    match ShardName::parse(path) {
        Some(shard) => Box::new((0..shard.count).map(move |index| shard.sibling(index) + &query)),
        None => Box::new(std::iter::once(url.to_owned())),
    }
}

/// The URL of the first file of `org/repo:QUANT`.
fn hugging_face_url(client: &Client, endpoint: &str, repository: &str) -> Result<String, FetchError> {
    let (repo, quant) = match repository.split_once(':') {
        Some((repo, quant)) => (repo, Some(quant)),
        None => (repository, None),
    };
    let is_plain = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !part.starts_with('.')
    };
    if repo.split('/').count() != 2 || !repo.split('/').all(is_plain) {
        return Err(FetchError::NotARepository(repository.to_owned()));
    }
    let list = client.text(&format!("{endpoint}/api/models/{repo}"))?;
    let list: serde_json::Value = serde_json::from_str(&list)
        .map_err(|source| FetchError::FileList { repo: repo.to_owned(), source })?;
    let files: Vec<&str> = list["siblings"]
        .as_array()
        .map(|files| files.iter().filter_map(|file| file["rfilename"].as_str()).collect())
        .unwrap_or_default();
    let file = choose(&files, repo, quant)?;
    Ok(format!("{endpoint}/{repo}/resolve/main/{file}"))
}

/// The file of a quantisation: the first shard where there are several.
fn choose<'a>(files: &[&'a str], repo: &str, quant: Option<&str>) -> Result<&'a str, FetchError> {
    let is_first = |file: &&str| ShardName::parse(file).is_none_or(|shard| shard.index == 0);
    let models: Vec<&str> = files
        .iter()
        .copied()
        .filter(|file| file.ends_with(".gguf") && !is_projector_name(file))
        .filter(is_first)
        .collect();
    if models.is_empty() {
        return Err(FetchError::NoGguf(repo.to_owned()));
    }
    let matches: Vec<&str> = match quant {
        Some(quant) => models.iter().copied().filter(|file| has_quant(file, quant)).collect(),
        None => models.clone(),
    };
    match matches.as_slice() {
        [file] => Ok(file),
        [] => Err(FetchError::NoSuchFile {
            repo: repo.to_owned(),
            quant: quant.unwrap_or_default().to_owned(),
            files: models.join(", "),
        }),
        _ => Err(FetchError::SeveralFiles { repo: repo.to_owned(), files: matches.join(", ") }),
    }
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

    #[test]
    fn quantisations_are_whole_words() {
        assert!(has_quant("Model-Q4_K_M.gguf", "q4_k_m"));
        assert!(has_quant("Q4_K_M/Model-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"));
        assert!(!has_quant("Model-Q4_K_M.gguf", "Q4_K"));
        assert!(!has_quant("Model-IQ4_XS.gguf", "Q4_XS"));
        assert!(!has_quant("Model-Q4_K_M.gguf", ""));
    }

    #[test]
    fn one_file_is_chosen_or_the_choice_is_shown() {
        let files =
            ["README.md", "m-Q8_0.gguf", "m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"];
        assert_eq!(choose(&files, "o/r", Some("Q4_K_M")).unwrap(), "m-Q4_K_M-00001-of-00002.gguf");
        assert!(choose(&files, "o/r", None).unwrap_err().to_string().contains("m-Q8_0.gguf"));
        assert!(choose(&files, "o/r", Some("Q2_K")).unwrap_err().to_string().contains("m-Q8_0.gguf"));
        assert!(choose(&files[..1], "o/r", None).unwrap_err().to_string().contains("no GGUF"));
    }

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
