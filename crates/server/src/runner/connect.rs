//! Taking up a connection to a runner: the threads that read, write and watch.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;

use super::incoming;
use super::limits::Limits;
use super::link::{Link, Owner};
use super::process::Peer;
use super::watch;

/// Takes up a connection.
///
/// # Errors
/// When the system gives no threads.
pub(super) fn connect(
    owner: Owner,
    limits: Limits,
    peer: Box<dyn Peer>,
    stream: UnixStream,
) -> io::Result<Arc<Link>> {
    let (outgoing, messages) = mpsc::channel::<Vec<u8>>();
    let link = Arc::new(Link::new(owner, limits, peer, outgoing));
    let mut writer = stream.try_clone()?;
    let (reading, watching) = (Arc::clone(&link), Arc::clone(&link));
    let thread = |name: &str| thread::Builder::new().name(name.to_owned());
    thread("runner-write").spawn(move || {
        // The reader sees it, too, when the connection is over.
        for message in messages {
            if writer.write_all(&message).is_err() {
                return;
            }
        }
    })?;
    thread("runner-read").spawn(move || incoming::read(&reading, stream))?;
    thread("runner-watch").spawn(move || watch::watch(&watching))?;
    Ok(link)
}
