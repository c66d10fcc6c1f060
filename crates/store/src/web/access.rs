//! Credentials: a token for one server, and how registries hand theirs out.

use serde::Deserialize;
use std::sync::{Mutex, PoisonError};

use super::address::is_url;
use super::error::HttpError;

/// What requests to one server bring along.
#[derive(Debug, Default)]
pub(crate) struct Access {
    token: Mutex<Option<String>>,
    /// Whether a 401 is answered by asking the authority that it names.
    exchanges: bool,
}

/// The answer of an authority.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Access {
    /// This token, or none.
    pub fn with_token(token: Option<String>) -> Self {
        Self { token: Mutex::new(token), exchanges: false }
    }

    /// None, until a registry asks for one.
    pub fn of_registry() -> Self {
        Self { token: Mutex::default(), exchanges: true }
    }

    pub fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The URL of the authority that a 401 names in `WWW-Authenticate`, if it is one that can be asked.
    pub(super) fn authority(&self, challenge: Option<&str>) -> Option<String> {
        challenge.filter(|_| self.exchanges).and_then(authority)
    }

    /// Takes the token from the answer of an authority, `url`; `false` when there is none in it.
    pub(super) fn take(&self, url: &str, answer: &str) -> Result<bool, HttpError> {
        let granted: Granted = serde_json::from_str(answer)
            .map_err(|error| HttpError::Nonsense { url: url.to_owned(), what: error.to_string() })?;
        let token = if granted.token.is_empty() { granted.access_token } else { granted.token };
        if token.is_empty() {
            return Ok(false);
        }
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(true)
    }
}

/// The URL to ask, from `Bearer realm="…",service="…",scope="…"`.
fn authority(challenge: &str) -> Option<String> {
    let (scheme, parameters) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut query) = (None, Vec::new());
    for (key, value) in quoted_pairs(parameters) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" | "scope" => query.push(format!("{key}={}", encoded(&value))),
            _ => {}
        }
    }
    let realm = realm.filter(|realm| is_url(realm))?;
    let joint = if realm.contains('?') { '&' } else { '?' };
    Some(if query.is_empty() { realm } else { format!("{realm}{joint}{}", query.join("&")) })
}

/// `key="value"` with commas between; commas within quotes belong to the value.
fn quoted_pairs(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_owned();
        let (value, remainder) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        pairs.push((key, value.trim().to_owned()));
        rest = remainder;
    }
    pairs
}

/// A value within a query.
fn encoded(value: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
    value.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_name_whom_to_ask() {
        let challenge = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        let url = "https://auth.example/token?service=registry&scope=repository:a/b:pull,push";
        assert_eq!(authority(challenge).as_deref(), Some(url));
        let query = r#"bearer realm="https://a/t?x=1", service="s p""#;
        assert_eq!(authority(query).as_deref(), Some("https://a/t?x=1&service=s%20p"));
        for none in ["Basic realm=\"https://a\"", "Bearer", "Bearer realm=\"file:///etc\"", ""] {
            assert_eq!(authority(none), None, "{none}");
        }
    }
}
