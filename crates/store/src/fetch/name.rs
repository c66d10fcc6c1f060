//! Names that lead elsewhere: a repository of Hugging Face, a model of a registry, a file at a URL.

use crate::ModelName;
use crate::web::{host, is_loopback, is_url};

use super::FetchError;

/// Hosts of Hugging Face.
const HUB_HOSTS: [&str; 2] = ["hf.co", "huggingface.co"];

/// A model elsewhere, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteName {
    /// A repository of Hugging Face.
    HuggingFace {
        /// `org/repo`.
        repo: String,
        /// A branch, a tag or a commit.
        revision: String,
        /// A quantisation, or the name of a file.
        choice: Option<String>,
    },
    /// A model of Ollama's library, or of another registry.
    Registry {
        /// Its name.
        name: ModelName,
        /// Whether it was asked for without TLS.
        plain_http: bool,
    },
    /// A GGUF on a web server.
    Url(String),
}

impl RemoteName {
    /// Reads a name: `hf.co/org/repo[:QUANT]`, `hf:org/repo[:QUANT]`, a URL of either, the URL of a GGUF, or
    /// `[host/][namespace/]model[:tag]`.
    ///
    /// # Errors
    /// [`FetchError::NotARepository`] or [`FetchError::NotAName`].
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        if let Some(repository) = text.strip_prefix("hf:") {
            return hub(repository);
        }
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        if let Some((first, rest)) = bare.split_once('/')
            && HUB_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(first))
        {
            return hub(rest.trim_end_matches('/'));
        }
        let path = text.split(['?', '#']).next().unwrap_or_default();
        if is_url(text) && path.to_ascii_lowercase().ends_with(".gguf") {
            return Ok(Self::Url(text.to_owned()));
        }
        let (name, _) = ModelName::parse_request(text).map_err(|_| FetchError::NotAName(text.to_owned()))?;
        let plain_http = text.starts_with("http://");
        Ok(Self::Registry { name, plain_http })
    }

    /// Whether the name itself says that the model is elsewhere: `hf:…` or a URL.
    #[must_use]
    pub fn is_explicit(text: &str) -> bool {
        text.starts_with("hf:") || is_url(text)
    }

    /// What the model is called once it is here; the quantisation of a repository may still be open.
    #[must_use]
    pub fn local_name(&self) -> String {
        match self {
            Self::HuggingFace { repo, choice: None, .. } => format!("hf.co/{repo}"),
            Self::HuggingFace { repo, choice: Some(choice), .. } => {
                format!("hf.co/{repo}:{}", choice.strip_suffix(".gguf").unwrap_or(choice))
            }
            Self::Registry { name, .. } => name.to_string(),
            Self::Url(url) => super::urls::name_of(url).map_or_else(|| url.clone(), |name| name.to_string()),
        }
    }
}

/// Whether a registry may be asked without TLS: only on this machine, unless the user insists.
pub(super) fn may_be_plain(name: &ModelName, insecure: bool) -> bool {
    insecure || host(&format!("http://{}", name.host())).is_some_and(is_loopback)
}

/// `org/repo`, `org/repo:QUANT`, `org/repo/resolve/REVISION/FILE.gguf`.
fn hub(text: &str) -> Result<RemoteName, FetchError> {
    let bad = || FetchError::NotARepository(text.to_owned());
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let (repo, revision, choice) = match parts.as_slice() {
        [org, rest] => {
            let (repo, choice) =
                rest.split_once(':').map_or((*rest, None), |(repo, quant)| (repo, Some(quant)));
            (format!("{org}/{repo}"), "main", choice.map(ToOwned::to_owned))
        }
        [org, repo, "resolve" | "blob", revision, file @ ..] if !file.is_empty() => {
            (format!("{org}/{repo}"), *revision, Some(file.join("/")))
        }
        _ => return Err(bad()),
    };
    let choice = choice.filter(|choice| !choice.is_empty() && !choice.eq_ignore_ascii_case("latest"));
    let good = repo.split('/').all(is_plain)
        && is_plain(revision)
        && choice.as_deref().is_none_or(|choice| choice.split('/').all(is_plain));
    if !good {
        return Err(bad());
    }
    Ok(RemoteName::HuggingFace { repo, revision: revision.to_owned(), choice })
}

/// Whether a text may be a part of a path or of a URL as it is.
pub(super) fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub_name(repo: &str, choice: Option<&str>) -> RemoteName {
        let choice = choice.map(ToOwned::to_owned);
        RemoteName::HuggingFace { repo: repo.to_owned(), revision: "main".to_owned(), choice }
    }

    #[test]
    fn repositories_have_many_spellings() {
        for text in
            ["hf.co/o/r:Q4_K_M", "hf:o/r:Q4_K_M", "huggingface.co/o/r:Q4_K_M", "https://hf.co/o/r:Q4_K_M"]
        {
            assert_eq!(RemoteName::parse(text).unwrap(), hub_name("o/r", Some("Q4_K_M")), "{text}");
        }
        for text in ["HF.co/o/r", "hf:o/r:latest", "https://huggingface.co/o/r/"] {
            assert_eq!(RemoteName::parse(text).unwrap(), hub_name("o/r", None), "{text}");
        }
        let file = "https://huggingface.co/o/r/resolve/main/a/m-Q2_K.gguf?download=true";
        assert_eq!(RemoteName::parse(file).unwrap(), hub_name("o/r", Some("a/m-Q2_K.gguf")));
        for text in ["hf:o", "hf:o/r/x", "hf:../r", "hf:o/..", "hf.co/o/r/resolve/main", "hf:o/r:../x", "hf:"]
        {
            assert!(matches!(RemoteName::parse(text), Err(FetchError::NotARepository(_))), "{text}");
        }
    }

    #[test]
    fn other_names_are_urls_of_files_or_models_of_registries() {
        let url = "https://example.org/m.GGUF?x=1";
        assert_eq!(RemoteName::parse(url).unwrap(), RemoteName::Url(url.to_owned()));
        let registry = |text: &str| match RemoteName::parse(text).unwrap() {
            RemoteName::Registry { name, plain_http } => (name.full(), plain_http),
            other => panic!("{other:?}"),
        };
        assert_eq!(registry("llama3.2"), ("registry.ollama.ai/library/llama3.2:latest".to_owned(), false));
        assert_eq!(registry("http://localhost:5000/a/b"), ("localhost:5000/a/b:latest".to_owned(), true));
        for text in ["a b", "", "https://example.org/m.zip"] {
            assert!(matches!(RemoteName::parse(text), Err(FetchError::NotAName(_))), "{text}");
        }
    }

    #[test]
    fn registries_without_tls_are_those_of_this_machine() {
        let name = |text: &str| ModelName::parse(text).unwrap();
        assert!(
            may_be_plain(&name("localhost:5000/a/b"), false) && may_be_plain(&name("127.0.0.1:1/a/b"), false)
        );
        assert!(!may_be_plain(&name("llama3"), false) && may_be_plain(&name("h/a/b"), true));
    }
}
