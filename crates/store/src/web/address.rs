//! Parts of URLs, as far as redirects and credentials need them.

/// Whether a text is the URL of something on a web server.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Scheme and authority: `("https", "example.org:8443")`.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (!authority.is_empty()).then_some((scheme, authority, path))
}

/// The host of a URL, with its port.
pub(crate) fn host(url: &str) -> Option<&str> {
    split(url).map(|(_, authority, _)| authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// Whether two URLs lead to the same server: scheme, host and port.
pub(super) fn same_server(a: &str, b: &str) -> bool {
    let key = |url: &str| {
        let (scheme, _, _) = split(url)?;
        let default = if scheme == "https" { ":443" } else { ":80" };
        let host = host(url)?.to_ascii_lowercase();
        Some((scheme.to_owned(), host.strip_suffix(default).unwrap_or(&host).to_owned()))
    };
    let (a, b) = (key(a), key(b));
    a.is_some() && a == b
}

/// Where a redirect leads: `location` as seen from `base`. `None` where it leads to no web server.
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    let location = location.trim();
    if is_url(location) {
        return Some(location.to_owned());
    }
    let (scheme, authority, path) = split(base)?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    if location.is_empty() || location.contains("://") {
        return None;
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
    Some(format!("{scheme}://{authority}{folder}{location}"))
}

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_as_browsers_read_them() {
        for (location, expected) in [
            ("https://cdn/x?y", Some("https://cdn/x?y")),
            ("//cdn/x", Some("https://cdn/x")),
            ("/new/place", Some("https://h:1/new/place")),
            ("other", Some("https://h:1/a/other")),
            ("ftp://cdn/x", None),
            ("", None),
        ] {
            assert_eq!(join("https://h:1/a/b?q=/z", location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn servers_differ_by_scheme_host_and_port() {
        assert!(same_server("https://H/a", "https://h:443/b"));
        for other in ["http://h/a", "https://h:444/a", "https://h.evil/a", "nonsense"] {
            assert!(!same_server("https://h/a", other), "{other}");
        }
        assert!(!same_server("nonsense", "nonsense"));
        assert!(is_loopback("localhost:5000") && is_loopback("[::1]:1") && is_loopback("127.0.0.1"));
        assert!(!is_loopback("localhost.evil") && !is_loopback("10.0.0.1:5000"));
    }
}
