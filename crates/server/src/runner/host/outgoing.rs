//! What a runner says, from any of its threads, one message at a time.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use crate::runner::frame;
use crate::runner::message::FromRunner;

/// The way to the server.
pub(super) struct Outgoing(Mutex<UnixStream>);

impl Outgoing {
    pub fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(stream))
    }

    /// Says it. A server that is gone needs to hear nothing: the thread that reads sees that.
    pub fn say(&self, message: &FromRunner) {
        match frame::encode(message) {
            Ok(bytes) => {
                let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes);
            }
            Err(error) => tracing::error!(%error, "a message to the server"),
        }
    }
}
