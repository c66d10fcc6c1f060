//! Writing routing traces. What is written can be read back: the same rules are checked.

use std::io::Write;

use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::{LayerRoutes, MAX_LINE_BYTES, TraceError, TraceHeader, TraceToken};

/// Writes a trace, one line a token. Dropping it loses nothing that [`Self::token`] returned `Ok` for, except
/// what `sink` itself buffers: call [`Self::finish`].
#[derive(Debug)]
pub struct TraceWriter<W> {
    sink: W,
    header: TraceHeader,
    buffer: Vec<u8>,
    line: u64,
}

impl<W: Write> TraceWriter<W> {
    /// Checks and writes the header.
    pub fn new(sink: W, header: TraceHeader) -> Result<Self, TraceError> {
        header.check()?;
        let mut writer = Self { sink, header: header.clone(), buffer: Vec::new(), line: 0 };
        writer.write_line(&header)?;
        Ok(writer)
    }

    /// Checks and writes one token.
    pub fn token(&mut self, token: &TraceToken) -> Result<(), TraceError> {
        let checked = self.header.check_token(token);
        checked.map_err(|reason| TraceError::Token { line: self.line + 1, reason })?;
        self.write_line(token)
    }

    /// Flushes, and gives the sink back.
    pub fn finish(mut self) -> Result<W, TraceError> {
        self.sink.flush().map_err(|source| TraceError::Io { line: self.line, source })?;
        Ok(self.sink)
    }

    fn write_line(&mut self, value: &impl Serialize) -> Result<(), TraceError> {
        let line = self.line + 1;
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, value).map_err(|source| TraceError::Json { line, source })?;
        self.buffer.push(b'\n');
        if self.buffer.len() > MAX_LINE_BYTES {
            return Err(TraceError::LineTooLong { line });
        }
        self.sink.write_all(&self.buffer).map_err(|source| TraceError::Io { line, source })?;
        self.line = line;
        Ok(())
    }
}

impl Serialize for LayerRoutes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(None)?;
        items.serialize_element(&self.layer)?;
        items.serialize_element(&self.experts)?;
        if !self.weights.is_empty() {
            items.serialize_element(&self.weights)?;
        }
        items.end()
    }
}
