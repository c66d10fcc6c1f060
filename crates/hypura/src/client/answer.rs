//! An answer that comes piece by piece: lines of JSON, read by a thread of their own so that the caller can
//! stop waiting at any time.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use ureq::Body;

use super::ClientError;

/// No line is longer than this.
const MOST_LINE_BYTES: u64 = 64 << 20;
/// How often a wait looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);
/// Pieces that may wait to be shown.
const QUEUE: usize = 64;

/// The pieces of an answer. Dropped early, it closes the connection with the next piece that comes, and the
/// server stops.
pub struct Answer {
    lines: Receiver<Result<Value, String>>,
    address: String,
}

impl Answer {
    pub(super) fn new(body: Body, address: String) -> Self {
        let (sender, lines) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(body.into_reader());
            while let Some(line) = next_line(&mut reader) {
                let last = line.is_err();
                if sender.send(line).is_err() || last {
                    break;
                }
            }
        });
        Self { lines, address }
    }

    /// The next piece; `None` at the end, or when `stopped` says so.
    ///
    /// # Errors
    /// What the server says in the middle of its answer, and broken connections.
    pub fn next(&mut self, stopped: &dyn Fn() -> bool) -> Result<Option<Value>, ClientError> {
        loop {
            if stopped() {
                return Ok(None);
            }
            match self.lines.recv_timeout(PATIENCE) {
                Ok(Ok(piece)) => {
                    return match piece["error"].as_str() {
                        Some(error) => Err(ClientError::Refused { status: 200, message: error.to_owned() }),
                        None => Ok(Some(piece)),
                    };
                }
                Ok(Err(why)) => return Err(ClientError::Nonsense { address: self.address.clone(), why }),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The next line that is not empty.
fn next_line(reader: &mut impl std::io::BufRead) -> Option<Result<Value, String>> {
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(_) => return Some(serde_json::from_slice(&line).map_err(|error| error.to_string())),
            Err(error) => return Some(Err(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<Value, String>> {
        let mut reader = bytes;
        std::iter::from_fn(|| next_line(&mut reader)).take(9).collect()
    }

    #[test]
    fn lines_are_pieces() {
        let lines = all(b"{\"a\":1}\n\n {\"b\":2}\n{\"c\":3}");
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2].as_ref().unwrap()["c"], 3);
        assert!(all(b"{\"a\":").remove(0).is_err());
    }
}
