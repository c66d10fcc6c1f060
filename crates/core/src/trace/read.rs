//! Reading routing traces, one bounded line at a time.

use std::fmt;
use std::io::{BufRead, ErrorKind, Read};

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::{LayerRoutes, MAX_LINE_BYTES, Trace, TraceError, TraceHeader, TraceToken};

/// Reads a trace token by token. After the first error it yields nothing more.
#[derive(Debug)]
pub struct TraceReader<R> {
    source: R,
    header: TraceHeader,
    buffer: Vec<u8>,
    line: u64,
    done: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads and checks the header.
    pub fn new(source: R) -> Result<Self, TraceError> {
        let header = TraceHeader::new("", 1, 1, 1, 1);
        let mut reader = Self { source, header, buffer: Vec::new(), line: 0, done: false };
        if !reader.next_line()? {
            return Err(TraceError::NoHeader);
        }
        reader.header = reader.parse()?;
        reader.header.check()?;
        Ok(reader)
    }

    /// What the trace is about.
    pub fn header(&self) -> &TraceHeader {
        &self.header
    }

    /// Reads the rest into memory.
    pub fn into_trace(mut self) -> Result<Trace, TraceError> {
        let tokens = self.by_ref().collect::<Result<_, _>>()?;
        Ok(Trace { header: self.header, tokens })
    }

    /// Fills the buffer with the next line that is not blank; `false` at the end.
    fn next_line(&mut self) -> Result<bool, TraceError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = self.source.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
            let bytes = read.map_err(|source| match source.kind() {
                ErrorKind::UnexpectedEof => TraceError::CutOff { line: self.line },
                _ => TraceError::Io { line: self.line, source },
            })?;
            if bytes > MAX_LINE_BYTES {
                return Err(TraceError::LineTooLong { line: self.line });
            }
            if bytes == 0 {
                return Ok(false);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, TraceError> {
        serde_json::from_slice(&self.buffer).map_err(|source| TraceError::Json { line: self.line, source })
    }

    fn next_token(&mut self) -> Result<Option<TraceToken>, TraceError> {
        if !self.next_line()? {
            return Ok(None);
        }
        let token: TraceToken = self.parse()?;
        self.header.check_token(&token).map_err(|reason| TraceError::Token { line: self.line, reason })?;
        Ok(Some(token))
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceToken, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let token = self.next_token().transpose();
        self.done = !matches!(token, Some(Ok(_)));
        token
    }
}

impl<'de> Deserialize<'de> for LayerRoutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RoutesVisitor)
    }
}

/// Reads `[layer, [ids]]` or `[layer, [ids], [weights]]`.
struct RoutesVisitor;

impl<'de> Visitor<'de> for RoutesVisitor {
    type Value = LayerRoutes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[layer, [expert ids]] or [layer, [expert ids], [router weights]]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<LayerRoutes, A::Error> {
        let layer = items.next_element()?.ok_or_else(|| Error::invalid_length(0, &self))?;
        let experts = items.next_element()?.ok_or_else(|| Error::invalid_length(1, &self))?;
        let weights = items.next_element()?.unwrap_or_default();
        Ok(LayerRoutes { layer, experts, weights })
    }
}
