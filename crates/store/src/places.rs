//! Where models are: the folders of Hypura, Ollama, Hugging Face and LM Studio, as the environment names
//! them, and the demo model.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The file of the demo model.
const DEMO_FILE: &str = "demo-moe-Q4_K_M.gguf";
/// Where Ollama's service on Linux keeps its models.
const OLLAMA_SERVICE: &str = "/usr/share/ollama/.ollama/models";

/// Whose store a model is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A file that was named when the server started.
    Given,
    /// Hypura's own store.
    Own,
    /// Ollama's.
    Ollama,
    /// The cache of Hugging Face's tools.
    HuggingFace,
    /// LM Studio's.
    LmStudio,
    /// The model that comes with the program.
    Demo,
}

impl Origin {
    /// Its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Given => "the command line",
            Self::Own => "Hypura",
            Self::Ollama => "Ollama",
            Self::HuggingFace => "Hugging Face",
            Self::LmStudio => "LM Studio",
            Self::Demo => "the program itself",
        }
    }

    /// What to do about a model that is not ours to delete.
    pub(super) const fn way_out(self) -> &'static str {
        match self {
            Self::Ollama => "delete it with `ollama rm`",
            Self::LmStudio => "delete it in LM Studio",
            Self::Given | Self::Demo | Self::Own | Self::HuggingFace => "delete its file yourself",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// The folders. Those that do not exist are no fault: then there are no models in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Hypura's own store; the only one that is ever written to.
    pub own: Option<PathBuf>,
    /// Ollama's stores.
    pub ollama: Vec<PathBuf>,
    /// Caches of Hugging Face (the folders with `models--ORG--REPO`).
    pub hugging_face: Vec<PathBuf>,
    /// LM Studio's folders (`PUBLISHER/REPO/FILE.gguf`).
    pub lm_studio: Vec<PathBuf>,
    /// The demo model.
    pub demo: Option<PathBuf>,
    /// Where facts about model files are remembered.
    pub cache: Option<PathBuf>,
}

impl Places {
    /// As this process's environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        let mut places = Self::from_variables(&|name| std::env::var_os(name));
        places.demo = demo_candidates().into_iter().find(|path| path.is_file());
        places
    }

    /// As these variables say.
    fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name: &str| named(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let at_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let macos = cfg!(target_os = "macos");
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| at_home(if macos { "Library/Application Support" } else { ".local/share" }));
        let caches =
            absolute("XDG_CACHE_HOME").or_else(|| at_home(if macos { "Library/Caches" } else { ".cache" }));
        // Python's tools use ~/.cache on every system.
        let python_cache = absolute("XDG_CACHE_HOME").or_else(|| at_home(".cache"));
        let ollama = match named("OLLAMA_MODELS") {
            Some(folder) => vec![folder],
            None => at_home(".ollama/models").into_iter().chain([PathBuf::from(OLLAMA_SERVICE)]).collect(),
        };
        let hugging_face = named("HF_HUB_CACHE")
            .or_else(|| named("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| python_cache.map(|cache| cache.join("huggingface/hub")));
        let lm_studio = [at_home(".lmstudio/models"), at_home(".cache/lm-studio/models")];
        Self {
            own: named("HYPURA_MODELS").or_else(|| data.map(|data| data.join("hypura/models"))),
            ollama,
            hugging_face: hugging_face.into_iter().collect(),
            lm_studio: lm_studio.into_iter().flatten().collect(),
            demo: None,
            cache: caches.map(|caches| caches.join("hypura/models.json")),
        }
    }

    /// The folders that exist, with whose they are.
    #[must_use]
    pub fn existing(&self) -> Vec<(Origin, &Path)> {
        let all = [
            (Origin::Own, self.own.as_slice()),
            (Origin::Ollama, &self.ollama),
            (Origin::HuggingFace, &self.hugging_face),
            (Origin::LmStudio, &self.lm_studio),
        ];
        let folders =
            all.into_iter().flat_map(|(origin, paths)| paths.iter().map(move |path| (origin, path)));
        folders.filter(|(_, path)| path.is_dir()).map(|(origin, path)| (origin, path.as_path())).collect()
    }
}

/// Where the demo model may be: where `HYPURA_DEMO` says and nowhere else, or beside an installed program, or
/// in the repository that the program was built from.
#[must_use]
pub fn demo_candidates() -> Vec<PathBuf> {
    if let Some(place) = std::env::var_os("HYPURA_DEMO").filter(|place| !place.is_empty()) {
        let place = PathBuf::from(place);
        return vec![if place.is_dir() { place.join(DEMO_FILE) } else { place }];
    }
    let installed = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.parent()?.join("share/hypura/demo").join(DEMO_FILE)));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let built_from = repository.map(|root| root.join("assets/demo").join(DEMO_FILE));
    installed.into_iter().chain(built_from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        Places::from_variables(&move |name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn without_a_home_there_is_only_the_service() {
        let places = places(&[]);
        assert_eq!(places.own, None);
        assert_eq!(places.ollama, [PathBuf::from(OLLAMA_SERVICE)]);
        assert!(places.hugging_face.is_empty() && places.lm_studio.is_empty());
    }

    #[test]
    fn everything_is_found_at_home() {
        let places = places(&[("HOME", "/h"), ("XDG_DATA_HOME", "not/absolute"), ("OLLAMA_MODELS", "")]);
        assert_eq!(places.ollama, [PathBuf::from("/h/.ollama/models"), PathBuf::from(OLLAMA_SERVICE)]);
        assert_eq!(places.hugging_face, [PathBuf::from("/h/.cache/huggingface/hub")]);
        assert_eq!(
            places.lm_studio,
            [PathBuf::from("/h/.lmstudio/models"), PathBuf::from("/h/.cache/lm-studio/models")]
        );
        assert!(places.own.unwrap().starts_with("/h") && places.cache.unwrap().starts_with("/h"));
    }

    #[test]
    fn variables_name_other_folders() {
        let places = places(&[
            ("HOME", "/h"),
            ("HYPURA_MODELS", "/m"),
            ("OLLAMA_MODELS", "/o"),
            ("HF_HOME", "/hf"),
            ("XDG_CACHE_HOME", "/c"),
        ]);
        assert_eq!(places.own, Some(PathBuf::from("/m")));
        assert_eq!(places.ollama, [PathBuf::from("/o")]);
        assert_eq!(places.hugging_face, [PathBuf::from("/hf/hub")]);
        assert_eq!(places.cache, Some(PathBuf::from("/c/hypura/models.json")));
    }
}
