//! Endpoints and tokens, as the environment names them.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// Where Hugging Face is, unless `HF_ENDPOINT` names a mirror, as with its own tools.
const HUGGING_FACE: &str = "https://huggingface.co";

/// What requests to other machines need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Hugging Face or a mirror of it, without a slash at the end.
    pub hub: String,
    /// The token for it.
    pub hub_token: Option<String>,
    /// Whether nothing may be asked of Hugging Face (`HF_HUB_OFFLINE`).
    pub hub_offline: bool,
    /// Whether nothing may be asked of anybody.
    pub offline: bool,
}

impl Network {
    /// As this process's environment says: `HF_ENDPOINT`; `HF_TOKEN`, or the file that Hugging Face's tools
    /// keep theirs in; `HF_HUB_OFFLINE`, and `HYPURA_OFFLINE` for everybody.
    #[must_use]
    pub fn of_environment() -> Self {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// No other machine is asked for anything.
    #[must_use]
    pub fn offline() -> Self {
        Self { hub: HUGGING_FACE.to_owned(), hub_token: None, hub_offline: true, offline: true }
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            let value = variable(name).and_then(|value| value.into_string().ok());
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let truth = |name: &str| {
            text(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
            })
        };
        let home = text("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = text("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| text("HOME").map(|home| PathBuf::from(home).join(".cache")));
            cache.map(|cache| cache.join("huggingface"))
        });
        let file = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| home.map(|home| home.join("token")));
        let kept = || file.and_then(|file| fs::read_to_string(file).ok());
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(kept);
        let token = token.map(|token| token.trim().to_owned());
        let hub = text("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.to_owned());
        Self {
            hub: hub.trim_end_matches('/').to_owned(),
            // What cannot stand in a header is no token.
            hub_token: token.filter(|token| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic())),
            hub_offline: truth("HF_HUB_OFFLINE") || truth("TRANSFORMERS_OFFLINE"),
            offline: truth("HYPURA_OFFLINE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(variables: &[(&str, &str)]) -> Network {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        Network::from_variables(&move |name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn variables_of_hugging_face_count() {
        let none = network(&[]);
        assert_eq!(
            (none.hub.as_str(), none.hub_token.as_deref(), none.hub_offline),
            (HUGGING_FACE, None, false)
        );
        let all =
            network(&[("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", " hf_x\n"), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!(
            (all.hub.as_str(), all.hub_token.as_deref(), all.hub_offline),
            ("http://mirror", Some("hf_x"), true)
        );
        assert!(!network(&[("HF_HUB_OFFLINE", "0")]).hub_offline);
        assert_eq!(network(&[("HF_TOKEN", "two\nlines")]).hub_token, None);
    }

    #[test]
    fn a_token_that_was_kept_is_found() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_kept\n").unwrap();
        let folder = home.path().to_str().unwrap();
        assert_eq!(network(&[("HF_HOME", folder)]).hub_token.as_deref(), Some("hf_kept"));
        assert_eq!(
            network(&[("HF_HOME", folder), ("HF_TOKEN", "hf_other")]).hub_token.as_deref(),
            Some("hf_other")
        );
    }
}
