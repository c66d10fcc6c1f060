//! `OLLAMA_HOST`: where the server listens and where its clients find it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ollama's port, and ours: we stand in for it.
pub const DEFAULT_PORT: u16 = 11434;

/// An address as `OLLAMA_HOST` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `https` or `http`.
    pub https: bool,
    /// A name or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the text says which port, by number or by a scheme; otherwise it is the usual one.
    pub names_port: bool,
    /// What was wrong with the port, where the default stands in for it.
    pub warning: Option<String>,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            https: false,
            host: "127.0.0.1".to_owned(),
            port: DEFAULT_PORT,
            names_port: false,
            warning: None,
        }
    }
}

impl Address {
    /// Reads `host`, `host:port`, `:port`, `http://host:port/…`, `https://…`, IPv6 with or without brackets.
    /// Without a scheme the port is 11434, with one it is that of the scheme.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = stripped(text);
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let https = scheme.as_deref() == Some("https");
        let default_port = match scheme.as_deref() {
            Some("http") => 80,
            Some("https") => 443,
            _ => DEFAULT_PORT,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = split_port(authority);
        let names_port = port.is_some() || scheme.is_some();
        let mut warning = None;
        let port = match port {
            None => default_port,
            Some(port) => port.parse().unwrap_or_else(|_| {
                warning = Some(format!("invalid port {port:?}, using {default_port}"));
                default_port
            }),
        };
        let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host.to_owned() };
        Self { https, host, port, names_port, warning }
    }

    /// The address that a client on this machine connects to: the loopback where the server listens
    /// everywhere.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => "127.0.0.1".to_owned(),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => "::1".to_owned(),
            _ => self.host.clone(),
        };
        Self { host, ..self.clone() }
    }

    /// Host and port as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':'));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return (authority, None);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// A value of the environment without the blanks and quotes that service files leave around it.
#[must_use]
pub fn stripped(text: &str) -> &str {
    text.trim().trim_matches(['"', '\'']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_every_form_of_ollama_host() {
        let cases = [
            ("", "http://127.0.0.1:11434"),
            ("1.2.3.4", "http://1.2.3.4:11434"),
            ("example.com:8080", "http://example.com:8080"),
            (":8080", "http://127.0.0.1:8080"),
            ("http://1.2.3.4", "http://1.2.3.4:80"),
            ("https://1.2.3.4", "https://1.2.3.4:443"),
            ("http://1.2.3.4:56789/path", "http://1.2.3.4:56789"),
            ("[::1]", "http://[::1]:11434"),
            ("[::1]:1337", "http://[::1]:1337"),
            ("::1", "http://[::1]:11434"),
            ("::", "http://[::]:11434"),
            (" \"1.2.3.4:5\" ", "http://1.2.3.4:5"),
            ("'0.0.0.0'", "http://0.0.0.0:11434"),
        ];
        for (text, url) in cases {
            let address = Address::parse(text);
            assert_eq!(address.to_string(), url, "{text}");
            assert_eq!(address.warning, None, "{text}");
        }
    }

    #[test]
    fn a_port_that_equals_the_usual_one_is_named_all_the_same() {
        for (text, names_port) in [
            ("", false),
            ("1.2.3.4", false),
            ("::1", false),
            ("1.2.3.4:11434", true),
            (":11434", true),
            ("[::1]:11434", true),
            ("http://box", true),
        ] {
            assert_eq!(Address::parse(text).names_port, names_port, "{text}");
        }
    }

    #[test]
    fn http_a_bad_port_warns_and_the_default_stands_in() {
        for text in ["1.2.3.4:99999", "1.2.3.4:-1", "1.2.3.4:x", "1.2.3.4:"] {
            let address = Address::parse(text);
            assert_eq!(address.port, 11434, "{text}");
            assert!(address.warning.is_some(), "{text}");
        }
    }

    #[test]
    fn http_clients_of_a_server_that_listens_everywhere_use_the_loopback() {
        assert_eq!(Address::parse("0.0.0.0:5").for_clients().to_string(), "http://127.0.0.1:5");
        assert_eq!(Address::parse("[::]:5").for_clients().to_string(), "http://[::1]:5");
        assert_eq!(Address::parse("box:5").for_clients().to_string(), "http://box:5");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_address(text in ".{0,60}") {
            let address = Address::parse(&text);
            prop_assert!(!address.host.is_empty());
        }
    }
}
