//! Files on web servers, read in ranges: only what is asked for crosses the network.

use std::io::{self, Read};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

/// A first range that holds the header of a small model; of large vocabularies a few more are needed.
pub(super) const USUAL_HEADER: u64 = 1 << 20;
/// One that holds the header of a shard with some hundred tensors and no vocabulary.
pub(super) const SHORT_HEADER: u64 = 64 << 10;
/// Each further range is this many times as long as the one before, up to the largest.
const GROWTH: u64 = 4;
const LARGEST_RANGE: u64 = 4 << 20;
/// Most bytes of a list of files that are read.
const MOST_LIST_BYTES: u64 = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a file on a server could not be read. `url` is the file's address.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HttpError {
    #[error("{url} cannot be reached: {source}")]
    Unreachable { url: String, source: Box<ureq::Error> },
    #[error("{url} is not there (HTTP {status}): check the name{hint}")]
    NotFound { url: String, status: u16, hint: &'static str },
    #[error("{url} cannot be read (HTTP {status})")]
    Refused { url: String, status: u16 },
    #[error(
        "the server of {url} does not send parts of files (no HTTP Range): download the file and plan that"
    )]
    NoRange { url: String },
    #[error("the server of {url} answered with another part of the file than asked for ({what})")]
    WrongRange { url: String, what: String },
    #[error("{url} broke off after {got} of {expected} bytes: try again")]
    Truncated { url: String, got: u64, expected: u64 },
}

/// A connection.
pub(super) struct Client(Agent);

impl Client {
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_recv_body(Some(READ_TIMEOUT))
            .user_agent(concat!("hypura/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.into())
    }

    /// Opens a file for reading from its start, of which about `expected` bytes will be wanted.
    pub fn open(&self, url: &str, expected: u64) -> Result<RangeReader<'_>, HttpError> {
        let mut reader = RangeReader {
            client: self,
            url: url.to_owned(),
            total: 0,
            at: 0,
            part: Vec::new(),
            part_at: 0,
            next_bytes: expected,
        };
        reader.fetch()?;
        Ok(reader)
    }

    /// A small text.
    pub fn text(&self, url: &str) -> Result<String, HttpError> {
        let mut response = self.get(url, None)?;
        check_status(url, response.status())?;
        let mut text = String::new();
        let body = response.body_mut().as_reader();
        body.take(MOST_LIST_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreachable(url, error.into()))?;
        Ok(text)
    }

    fn get(&self, url: &str, range: Option<(u64, u64)>) -> Result<Response<ureq::Body>, HttpError> {
        let mut request = self.0.get(url);
        if let Some((first, last)) = range {
            request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        request.call().map_err(|error| unreachable(url, error))
    }
}

fn unreachable(url: &str, source: ureq::Error) -> HttpError {
    HttpError::Unreachable { url: url.to_owned(), source: Box::new(source) }
}

fn check_status(url: &str, status: StatusCode) -> Result<(), HttpError> {
    let (url, code) = (url.to_owned(), status.as_u16());
    match code {
        200..=299 => Ok(()),
        404 | 410 => Err(HttpError::NotFound { url, status: code, hint: "" }),
        401 | 403 => {
            let hint = "; or it needs an account, which plan does not use";
            Err(HttpError::NotFound { url, status: code, hint })
        }
        _ => Err(HttpError::Refused { url, status: code }),
    }
}

/// A file on a server, read front to back.
pub(super) struct RangeReader<'a> {
    client: &'a Client,
    url: String,
    total: u64,
    /// Where `part` begins in the file.
    at: u64,
    part: Vec<u8>,
    /// How much of `part` was handed out.
    part_at: usize,
    /// How much to ask for next.
    next_bytes: u64,
}

impl RangeReader<'_> {
    /// Size of the whole file.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Gets the part behind the one that is here.
    fn fetch(&mut self) -> Result<(), HttpError> {
        let bytes = self.next_bytes;
        self.next_bytes = (bytes * GROWTH).min(LARGEST_RANGE);
        let first = self.at + self.part.len() as u64;
        let mut response = self.client.get(&self.url, Some((first, first + bytes - 1)))?;
        let status = response.status();
        check_status(&self.url, status)?;
        if status != StatusCode::PARTIAL_CONTENT {
            return Err(HttpError::NoRange { url: self.url.clone() });
        }
        let said = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let said = said.unwrap_or("no Content-Range").to_owned();
        let wrong = || HttpError::WrongRange { url: self.url.clone(), what: said.clone() };
        let (from, to, total) = content_range(&said).ok_or_else(wrong)?;
        let changed = self.total != 0 && total != self.total;
        if from != first || to < from || to >= total || to - from >= bytes || changed {
            return Err(wrong());
        }
        let expected = to - from + 1;
        let mut part = Vec::new();
        // A body that breaks off is an error of the reader or a short one, depending on what the server
        // promised.
        let _ = response.body_mut().as_reader().take(expected).read_to_end(&mut part);
        let got = part.len() as u64;
        if got < expected {
            return Err(HttpError::Truncated {
                url: self.url.clone(),
                got: first + got,
                expected: first + expected,
            });
        }
        (self.total, self.at, self.part, self.part_at) = (total, first, part, 0);
        Ok(())
    }
}

impl Read for RangeReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.part_at == self.part.len() && self.at + (self.part.len() as u64) < self.total {
            self.fetch().map_err(io::Error::other)?;
        }
        let rest = self.part.get(self.part_at..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.part_at += len;
        Ok(len)
    }
}

/// `bytes FIRST-LAST/TOTAL`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_nonsense_is_not() {
        assert_eq!(content_range("bytes 0-99/200"), Some((0, 99, 200)));
        for text in ["", "bytes", "bytes 0-99/*", "bytes */200", "items 0-9/10", "bytes 0-/3", "bytes a-b/c"]
        {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
