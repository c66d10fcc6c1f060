//! Who may call: the API key, and the guard against pages that reach a loopback address by a name of their
//! own (DNS rebinding).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};

use super::state::Server;
use super::{Failure, page, refusal, respond};

/// Paths that probes ask for before they have a key.
const OPEN_PATHS: [&str; 4] = ["/", "/api/version", "/health", "/v1/health"];

/// The middleware that wants the API key, where there is one.
pub async fn key(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(key) = &server.http.api_key else { return next.run(request).await };
    let path = request.uri().path();
    let open = OPEN_PATHS.contains(&path) || page::is_open(path) || request.method() == Method::OPTIONS;
    if open || has_key(request.headers(), key) {
        return next.run(request).await;
    }
    let refused = Failure::new(StatusCode::UNAUTHORIZED, "unauthorized: this server wants its API key");
    refusal::of_path(path, &refused)
}

fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let plain = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    [bearer, plain].into_iter().flatten().any(|given| same(given.as_bytes(), key.as_bytes()))
}

/// Compares in a time that says nothing about where two keys differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The middleware that looks at `Host` where only programs of this machine can connect.
pub async fn host(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    if server.http.loopback {
        let mut named = request.headers().get_all(header::HOST).iter();
        let host = named.next().map(|host| host.to_str().unwrap_or("\u{fffd}"));
        let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
        // Of two it would depend on who reads them.
        if named.next().is_some() || !is_local(host.unwrap_or_default()) {
            return respond::with_type(StatusCode::FORBIDDEN, "text/plain", Body::empty());
        }
    }
    next.run(request).await
}

/// Whether a `Host` can only mean this machine or its private network.
fn is_local(host: &str) -> bool {
    let Some(name) = without_port(host) else { return false };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name.is_empty() || name == "localhost" {
        return true;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_private() || v4.is_unspecified() || v4.is_link_local()
            }
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || is_private(v6),
        };
    }
    [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
        || machine_name().is_some_and(|own| own.eq_ignore_ascii_case(&name))
}

fn is_private(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local()
}

/// The host of `host`, `host:port`, `[address]`, `[address]:port`, or of an address of IPv6 alone; `None`
/// where it is none of these.
fn without_port(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        let good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return good.then_some(address);
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Some(host);
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_name && port.is_none_or(is_port)).then_some(name)
}

fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    uname.nodename().to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_hosts_of_this_machine_and_its_network() {
        for host in [
            "",
            "localhost",
            "LOCALHOST:11434",
            "127.0.0.1:1",
            "[::1]:5",
            "::1",
            "10.0.0.3",
            "192.168.1.2:80",
            "0.0.0.0",
            "box.local",
            "a.b.internal:9",
            "x.localhost",
            "localhost.",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["example.com", "evil.example:11434", "8.8.8.8", "localhost.evil.example", "\u{fffd}", "local"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn http_hosts_that_are_none() {
        for host in [
            "[::1]evil.example",
            "[::1",
            "[localhost]",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "localhost:1:2",
            "localhost@evil.example",
            "localhost/evil.example",
            "evil.example localhost",
            "localhost..",
            "127.0.0.1, evil.example",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }

    proptest! {
        #[test]
        fn any_host_is_judged_without_a_panic(host in ".{0,40}") {
            let _ = is_local(&host);
        }
    }
}
