//! A process for one piece of work, which ends with it: what strangers' bytes make of it ends nothing else.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::frame;
use super::message::{FromRunner, ToRunner};
use super::process::{Peer as _, RunnerProcess};

/// A process at work. Dropping it ends the process.
pub(super) struct Errand {
    process: RunnerProcess,
    /// Closed first when the end is waited for.
    stream: Option<UnixStream>,
}

/// Why nothing more is heard.
pub(super) enum Lost {
    /// It said nothing for so long.
    Late(Duration),
    /// It ended, and how.
    Ended(String),
}

impl Errand {
    /// Starts a process, and tells it what to do.
    ///
    /// # Errors
    /// When the system has no process for it, or the order is too long.
    pub fn start(name: &str, order: &ToRunner) -> io::Result<Self> {
        let order = frame::encode(order)?;
        let (process, mut stream) = RunnerProcess::start(name)?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let sent = stream.write_all(&order);
        let errand = Self { process, stream: Some(stream) };
        sent.map(|()| errand)
    }

    /// What it says next.
    ///
    /// # Errors
    /// [`Lost`]; it has ended then.
    pub fn hear(&mut self, limit: Duration) -> Result<FromRunner, Lost> {
        let Some(stream) = &mut self.stream else { return Err(Lost::Ended("it has ended".to_owned())) };
        let start = Instant::now();
        let heard = stream.set_read_timeout(Some(limit)).and_then(|()| frame::receive(stream));
        if let Ok(Some(message)) = heard {
            return Ok(message);
        }
        let late = start.elapsed() >= limit;
        if late {
            self.process.kill();
        }
        self.stream = None;
        let death = self.process.reap();
        Err(if late { Lost::Late(limit) } else { Lost::Ended(crate::without_paths(&death.how)) })
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if self.stream.take().is_some() {
            self.process.kill();
            self.process.reap();
        }
    }
}
