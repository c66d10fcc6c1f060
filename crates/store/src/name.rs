//! Names of models: `[host/][namespace/]model[:tag]`, as Ollama reads and shows them.
//!
//! A [`ModelName`] is always valid and complete; what was left out is the default. Equality ignores case,
//! because names become files and some file systems do not know case.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Host when none is named.
pub const DEFAULT_HOST: &str = "registry.ollama.ai";
/// Namespace when none is named.
pub const DEFAULT_NAMESPACE: &str = "library";
/// Tag when none is named.
pub const DEFAULT_TAG: &str = "latest";

/// Longest host, in bytes.
const MAX_HOST_BYTES: usize = 350;
/// Longest of the other parts, in bytes.
const MAX_PART_BYTES: usize = 80;

/// Why a text is no name of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has characters or lengths that names do not have.
    #[error("invalid model name")]
    Invalid(String),
    /// It asks for a model that is here and for one that is not.
    #[error("use either :local or :cloud, not both")]
    Both,
}

/// A valid, complete name.
#[derive(Clone, Debug)]
pub struct ModelName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// Where a request wants its model to run: what a suffix `:local`, `:cloud` or `-cloud` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// No suffix.
    Any,
    /// `:local`
    Local,
    /// `:cloud`, or a tag ending in `-cloud`: no model of ours.
    Cloud,
}

/// Which part of a name; each has its own characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Namespace,
    Model,
    Tag,
}

impl ModelName {
    /// Reads a name; parts that are left out become the defaults.
    ///
    /// # Errors
    /// [`NameError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse(text).ok_or_else(|| NameError::Invalid(text.to_owned()))
    }

    /// Reads the name in a request, and takes `:local` and `:cloud` off it.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse_request(text: &str) -> Result<(Self, Locality), NameError> {
        let (base, suffix) = match text.rsplit_once(':') {
            Some((base, word)) if word.eq_ignore_ascii_case("local") => (base, Locality::Local),
            Some((base, word)) if word.eq_ignore_ascii_case("cloud") => (base, Locality::Cloud),
            _ => (text, Locality::Any),
        };
        let inner = base.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
        let says = |word: &str| inner.is_some_and(|tag| tag.eq_ignore_ascii_case(word));
        let is_cloud = inner.is_some_and(is_cloud_tag) || (inner.is_none() && is_cloud_tag(base));
        let locality = match suffix {
            Locality::Local if is_cloud || says("cloud") => return Err(NameError::Both),
            Locality::Cloud if says("local") => return Err(NameError::Both),
            Locality::Any if is_cloud => Locality::Cloud,
            other => other,
        };
        Ok((Self::parse(base)?, locality))
    }

    /// Puts a name together from parts that come from elsewhere (folder and file names): what a name cannot
    /// hold becomes `-`, and what is too long is cut.
    pub(super) fn from_foreign(host: &str, namespace: &str, model: &str, tag: &str) -> Option<Self> {
        let name = Self {
            host: tidied(host, Part::Host),
            namespace: tidied(namespace, Part::Namespace),
            model: tidied(model, Part::Model),
            tag: tidied(tag, Part::Tag),
        };
        name.is_valid().then_some(name)
    }

    /// Whose registry.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whose model.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Which of its variants.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The same model with another tag, if that is a valid one.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Option<Self> {
        is_part(tag, Part::Tag).then(|| Self { tag: tag.to_owned(), ..self.clone() })
    }

    /// The whole name: `registry.ollama.ai/library/llama3.2:latest`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// The whole name in lower case: equal for equal names.
    #[must_use]
    pub fn key(&self) -> String {
        self.full().to_ascii_lowercase()
    }

    fn is_valid(&self) -> bool {
        is_part(&self.host, Part::Host)
            && is_part(&self.namespace, Part::Namespace)
            && is_part(&self.model, Part::Model)
            && is_part(&self.tag, Part::Tag)
    }
}

/// As people see it: without host and namespace when those are the defaults, always with the tag.
impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default_host = self.host.eq_ignore_ascii_case(DEFAULT_HOST);
        if !default_host {
            write!(f, "{}/", self.host)?;
        }
        if !default_host || !self.namespace.eq_ignore_ascii_case(DEFAULT_NAMESPACE) {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host)
            && self.namespace.eq_ignore_ascii_case(&other.namespace)
            && self.model.eq_ignore_ascii_case(&other.model)
            && self.tag.eq_ignore_ascii_case(&other.tag)
    }
}

impl Eq for ModelName {}

impl Hash for ModelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

fn is_cloud_tag(tag: &str) -> bool {
    tag.len() > 6 && tag.get(tag.len() - 6..).is_some_and(|end| end.eq_ignore_ascii_case("-cloud"))
}

fn parse(text: &str) -> Option<ModelName> {
    let (rest, tag) = match text.rsplit_once(':') {
        // A colon before the last slash is a port, not a tag.
        Some((rest, tag)) if !tag.contains('/') => (rest, tag),
        _ => (text, DEFAULT_TAG),
    };
    let (rest, model) = rest.rsplit_once('/').map_or((None, rest), |(rest, model)| (Some(rest), model));
    let (host, namespace) = match rest.map(|rest| (rest, rest.rsplit_once('/'))) {
        None => (DEFAULT_HOST, DEFAULT_NAMESPACE),
        Some((namespace, None)) => (DEFAULT_HOST, namespace),
        Some((_, Some((host, namespace)))) => (without_scheme(host), namespace),
    };
    let name = ModelName {
        host: host.to_owned(),
        namespace: namespace.to_owned(),
        model: model.to_owned(),
        tag: tag.to_owned(),
    };
    name.is_valid().then_some(name)
}

fn without_scheme(host: &str) -> &str {
    let rest = host.strip_prefix("http://").or_else(|| host.strip_prefix("https://"));
    rest.unwrap_or(host)
}

fn is_part(text: &str, part: Part) -> bool {
    let most = if part == Part::Host { MAX_HOST_BYTES } else { MAX_PART_BYTES };
    let mut chars = text.chars();
    text.len() <= most
        && chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && chars.all(|c| is_char(c, part))
}

fn is_char(c: char, part: Part) -> bool {
    match c {
        '_' | '-' => true,
        '.' => part != Part::Namespace,
        ':' => part == Part::Host,
        _ => c.is_ascii_alphanumeric(),
    }
}

fn tidied(text: &str, part: Part) -> String {
    let most = if part == Part::Host { MAX_HOST_BYTES } else { MAX_PART_BYTES };
    let clean: String = text.chars().map(|c| if is_char(c, part) { c } else { '-' }).collect();
    let start = clean.find(|c: char| c.is_ascii_alphanumeric() || c == '_').unwrap_or(clean.len());
    // All characters are ASCII now.
    clean[start..].chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        ModelName::parse(text).ok().map(|name| name.full())
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        for (text, full) in [
            ("llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
            ("llama3.2:3b", "registry.ollama.ai/library/llama3.2:3b"),
            ("me/mine", "registry.ollama.ai/me/mine:latest"),
            ("hf.co/org/repo.gguf:Q4_K_M", "hf.co/org/repo.gguf:Q4_K_M"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("http://host:1/a/b:c", "host:1/a/b:c"),
            ("_x", "registry.ollama.ai/library/_x:latest"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(full), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(81);
        for text in [
            "",
            ":",
            "a:",
            ":b",
            "/a",
            "a/",
            "a//b",
            "a/b/c/d",
            "-a",
            ".a",
            "a b",
            "a:b/c:",
            "é",
            "a:b:c",
            "../a",
            "a/..",
            "x:..",
            "a/../b",
            "..",
            "n.s/model",
            "C:\\x",
            "a\0b",
            "ftp://h/a/b",
            &long,
            &format!("x:{long}"),
        ] {
            assert_eq!(shown(text), None, "{text:?}");
        }
        assert!(shown(&"a".repeat(80)).is_some());
        assert!(shown(&format!("{}/a/b", "h".repeat(350))).is_some());
        assert!(shown(&format!("{}/a/b", "h".repeat(351))).is_none());
    }

    #[test]
    fn people_see_the_short_name_with_its_tag() {
        for (text, short) in [
            ("llama3.2", "llama3.2:latest"),
            ("library/llama3.2:1b", "llama3.2:1b"),
            ("REGISTRY.ollama.ai/Library/x", "x:latest"),
            ("me/x", "me/x:latest"),
            ("hf.co/library/x", "hf.co/library/x:latest"),
        ] {
            assert_eq!(ModelName::parse(text).unwrap().to_string(), short);
        }
    }

    #[test]
    fn case_is_no_difference() {
        assert_eq!(ModelName::parse("Llama3:8B").unwrap(), ModelName::parse("llama3:8b").unwrap());
        assert_ne!(ModelName::parse("llama3:8B").unwrap(), ModelName::parse("llama3").unwrap());
    }

    #[test]
    fn suffixes_say_where_a_model_runs() {
        let of =
            |text: &str| ModelName::parse_request(text).map(|(name, locality)| (name.to_string(), locality));
        assert_eq!(of("x").unwrap(), ("x:latest".to_owned(), Locality::Any));
        assert_eq!(of("x:local").unwrap(), ("x:latest".to_owned(), Locality::Local));
        assert_eq!(of("x:8b:local").unwrap(), ("x:8b".to_owned(), Locality::Local));
        assert_eq!(of("x:cloud").unwrap(), ("x:latest".to_owned(), Locality::Cloud));
        assert_eq!(of("x:20b-cloud").unwrap(), ("x:20b-cloud".to_owned(), Locality::Cloud));
        for text in ["x:cloud:local", "x:local:cloud", "x:20b-cloud:local"] {
            assert_eq!(of(text).unwrap_err().to_string(), "use either :local or :cloud, not both", "{text}");
        }
    }

    #[test]
    fn foreign_names_are_made_to_fit() {
        let of = |model: &str| {
            ModelName::from_foreign(DEFAULT_HOST, "a.b c", model, "Q4_K_M").map(|n| n.to_string())
        };
        assert_eq!(of("..My Model").as_deref(), Some("a-b-c/My-Model:Q4_K_M"));
        assert_eq!(of("é"), None);
        assert_eq!(of(&"x".repeat(200)).unwrap().len(), "a-b-c/".len() + 80 + ":Q4_K_M".len());
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error(text in ".{0,60}") {
            if let Ok(name) = ModelName::parse(&text) {
                for part in [name.host(), name.namespace(), name.model(), name.tag()] {
                    prop_assert!(!part.contains('/') && !part.contains('\\') && part != ".." && part != "." && !part.is_empty());
                }
            }
        }

        #[test]
        fn names_survive_being_shown(
            host in "[a-z0-9_][a-z0-9_.-]{0,9}(:[0-9]{1,4})?",
            namespace in "[A-Za-z0-9_][A-Za-z0-9_-]{0,9}",
            model in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}",
        ) {
            let name = ModelName::parse(&format!("{host}/{namespace}/{model}:{tag}")).unwrap();
            prop_assert_eq!((name.host(), name.model(), name.tag()), (&*host, &*model, &*tag));
            prop_assert_eq!(&ModelName::parse(&name.to_string()).unwrap(), &name);
            prop_assert_eq!(ModelName::parse(&name.full()).unwrap().full(), name.full());
        }

        #[test]
        fn foreign_text_never_makes_a_bad_name(a in ".{0,90}", b in ".{0,90}", c in ".{0,90}") {
            if let Some(name) = ModelName::from_foreign(DEFAULT_HOST, &a, &b, &c) {
                prop_assert_eq!(ModelName::parse(&name.full()).unwrap().full(), name.full());
            }
        }
    }
}
