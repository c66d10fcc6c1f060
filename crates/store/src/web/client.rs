//! One request and its redirects.

use std::io::Read as _;
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, SendBody};

use super::access::Access;
use super::address::{join, same_server};
use super::error::HttpError;

/// Most bytes of a text that are read: lists of files, manifests.
const MOST_TEXT_BYTES: u64 = 16 << 20;
/// Hops from the first server to the one that has the file.
const MOST_REDIRECTS: usize = 10;
/// Connections that are kept for the next request.
const IDLE_CONNECTIONS: usize = 16;
/// Read from a connection at once.
const INPUT_BYTES: usize = 256 << 10;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub connect: Duration,
    /// Until the head of an answer is there, and between any two pieces of its body.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(15), silence: Duration::from_secs(30) }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub url: &'a str,
    /// First and last byte.
    pub range: Option<(u64, u64)>,
    pub accept: Option<&'a str>,
    /// The head alone.
    pub head: bool,
}

impl<'a> Request<'a> {
    pub const fn new(url: &'a str) -> Self {
        Self { url, range: None, accept: None, head: false }
    }
}

/// What came of it.
pub(crate) struct Answer {
    pub response: Response<Body>,
    /// Where it came from, behind all redirects.
    pub from: String,
    /// The headers of the redirects on the way, the first one first.
    pub hops: Vec<HeaderMap>,
}

impl Answer {
    /// A header of the answer, or of the redirects to it: the first that has one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let heads = self.hops.iter().chain([self.response.headers()]);
        heads.into_iter().find_map(|head| head.get(name)).and_then(|value| value.to_str().ok())
    }
}

/// Connections to servers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Client(Agent);

impl Client {
    /// With the proxies of the environment.
    pub fn new(timeouts: &Timeouts) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.silence))
            .timeout_per_read(Some(timeouts.silence))
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .input_buffer_size(INPUT_BYTES)
            .user_agent(concat!("hypura/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.into())
    }

    /// Ends all requests of this client and its clones at once, for good.
    pub fn shut_down(&self) {
        self.0.clone().shutdown();
    }

    /// A small text.
    pub fn text(&self, request: &Request<'_>, access: &Access) -> Result<String, HttpError> {
        let mut answer = self.send(request, access)?;
        let mut text = String::new();
        let body = answer.response.body_mut().as_reader();
        body.take(MOST_TEXT_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreachable(request.url, error.into()))?;
        Ok(text)
    }

    /// Asks, follows redirects, and gets a token where a registry wants one. The answer is a good one.
    pub fn send(&self, request: &Request<'_>, access: &Access) -> Result<Answer, HttpError> {
        let answer = self.follow(request, access)?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return checked(request.url, answer);
        }
        let challenge = answer.response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok());
        if let Some(authority) = access.authority(challenge) {
            let granted = self.text(&Request::new(&authority), &Access::default())?;
            if access.take(&authority, &granted)? {
                return checked(request.url, self.follow(request, access)?);
            }
        }
        checked(request.url, answer)
    }

    fn follow(&self, request: &Request<'_>, access: &Access) -> Result<Answer, HttpError> {
        let (mut url, mut token, mut hops) = (request.url.to_owned(), access.token(), Vec::new());
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(request, &url, token.as_deref())?;
            if !is_redirect(response.status()) {
                return Ok(Answer { response, from: url, hops });
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = location.unwrap_or_default();
            let bad = || HttpError::BadRedirect { url: request.url.to_owned(), to: location.to_owned() };
            let next = join(&url, location).ok_or_else(bad)?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                // What was protected must not be read, or exchanged, by those on the way.
                return Err(bad());
            }
            if !same_server(&url, &next) {
                token = None;
            }
            hops.push(response.headers().clone());
            url = next;
        }
        Err(HttpError::RedirectLoop { url: request.url.to_owned() })
    }

    fn ask(
        &self,
        request: &Request<'_>,
        url: &str,
        token: Option<&str>,
    ) -> Result<Response<Body>, HttpError> {
        let method = if request.head { "HEAD" } else { "GET" };
        let mut built = ureq::http::Request::builder().method(method).uri(url);
        if let Some((first, last)) = request.range {
            built = built.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        if let Some(accept) = request.accept {
            built = built.header(header::ACCEPT, accept);
        }
        if let Some(token) = token {
            built = built.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let failed = |error| unreachable(request.url, error);
        let built = built.body(SendBody::none()).map_err(|error| failed(error.into()))?;
        self.0.run(built).map_err(failed)
    }
}

pub(super) fn unreachable(url: &str, source: ureq::Error) -> HttpError {
    HttpError::Unreachable { url: url.to_owned(), source: Box::new(source) }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn checked(url: &str, answer: Answer) -> Result<Answer, HttpError> {
    let (url, status) = (url.to_owned(), answer.response.status().as_u16());
    match status {
        200..=299 => Ok(answer),
        404 | 410 => Err(HttpError::NotFound { url, status, hint: "" }),
        401 | 403 => {
            let hint = "; or it needs an account (HF_TOKEN for Hugging Face)";
            Err(HttpError::NotFound { url, status, hint })
        }
        _ => {
            let wait = answer.response.headers().get(header::RETRY_AFTER);
            let wait = wait.and_then(|value| value.to_str().ok());
            let retry_after = wait.and_then(|text| wait_of(text, SystemTime::now()));
            Err(HttpError::Refused { url, status, retry_after })
        }
    }
}

/// What `Retry-After` asks for: seconds, or a date in one of HTTP's three forms.
fn wait_of(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // What lies in the past asks for no wait.
    httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
            ("", None),
        ] {
            assert_eq!(wait_of(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
