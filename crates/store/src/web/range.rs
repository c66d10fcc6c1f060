//! A file on a server that is read front to back in ranges: only what is asked for crosses the network.

use std::io::{self, Read};
use ureq::http::{StatusCode, header};

use super::{Access, Client, HttpError, Request};

/// A first range that holds the header of a small model; of large vocabularies a few more are needed.
pub(crate) const USUAL_HEADER: u64 = 1 << 20;
/// One that holds the header of a shard with some hundred tensors and no vocabulary.
pub(crate) const SHORT_HEADER: u64 = 64 << 10;
/// Each further range is this many times as long as the one before, up to the largest.
const GROWTH: u64 = 4;
const LARGEST_RANGE: u64 = 4 << 20;

/// A file on a server, read front to back.
pub(crate) struct RangeReader<'a> {
    client: &'a Client,
    access: &'a Access,
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

impl<'a> RangeReader<'a> {
    /// Opens a file for reading from its start, of which about `expected` bytes will be wanted.
    pub fn open(client: &'a Client, access: &'a Access, url: &str, expected: u64) -> Result<Self, HttpError> {
        Self::open_at(client, access, url, 0, expected)
    }

    /// The same from this byte on.
    pub fn open_at(
        client: &'a Client,
        access: &'a Access,
        url: &str,
        first: u64,
        expected: u64,
    ) -> Result<Self, HttpError> {
        let mut reader = Self {
            client,
            access,
            url: url.to_owned(),
            total: 0,
            at: first,
            part: Vec::new(),
            part_at: 0,
            next_bytes: expected,
        };
        reader.fetch()?;
        Ok(reader)
    }

    /// Size of the whole file.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Gets the part behind the one that is here.
    fn fetch(&mut self) -> Result<(), HttpError> {
        let bytes = self.next_bytes;
        self.next_bytes = (bytes * GROWTH).min(LARGEST_RANGE);
        let first = self.at + self.part.len() as u64;
        let request = Request { range: Some((first, first + bytes - 1)), ..Request::new(&self.url) };
        let mut response = self.client.send(&request, self.access)?.response;
        if response.status() != StatusCode::PARTIAL_CONTENT {
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
pub(crate) fn content_range(text: &str) -> Option<(u64, u64, u64)> {
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
