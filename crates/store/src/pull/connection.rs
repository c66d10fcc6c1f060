//! A connection that fetches parts, again and again where servers fail.

use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::PullError;
use super::flush::Begun;
use super::parts::{Failure, Parts};
use super::retry::Tries;
use crate::fetch::{Identity, RemoteFile};
use crate::web::{Access, Answer, Client, HttpError, Request, content_range};

/// Read and written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What the connections of a file share.
pub(super) struct Source<'a> {
    pub client: &'a Client,
    pub access: &'a Access,
    pub file: &'a RemoteFile,
    /// Where redirects led last: asked directly until that fails.
    pub direct: Mutex<Option<Direct>>,
}

/// A file's address behind redirects, and the tag that it has there.
#[derive(Clone)]
pub(super) struct Direct {
    url: String,
    tag: Option<String>,
}

impl Source<'_> {
    fn direct(&self) -> MutexGuard<'_, Option<Direct>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one request did not bring all that it was for.
enum Stop {
    /// The server, and a later try may help.
    Server(HttpError),
    /// All threads of the file are to end.
    File(Failure),
    /// Somebody ended this file.
    Stopped,
}

impl From<HttpError> for Stop {
    fn from(error: HttpError) -> Self {
        Self::Server(error)
    }
}

/// Fetches parts until there are none left.
pub(super) fn work(source: &Source<'_>, parts: &Parts<'_>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Some(run) = parts.take() {
        if !fetch(source, parts, run, &mut chunk) {
            break;
        }
    }
}

/// Fetches a file from its first byte to its last: for servers that send no ranges.
pub(super) fn work_in_one_piece(source: &Source<'_>, parts: &Parts<'_>) {
    let run = parts.take_all();
    fetch(source, parts, run, &mut vec![0; CHUNK_BYTES]);
}

/// Fetches neighbouring parts; `false` when the file was stopped.
fn fetch(source: &Source<'_>, parts: &Parts<'_>, run: Range<usize>, chunk: &mut [u8]) -> bool {
    let mut tries = Tries::new(parts.settings);
    let mut at = Progress { next_part: run.start, offset: parts.range_of(run.clone()).start };
    loop {
        let before = at.next_part;
        let stop = match request(source, parts, &run, &mut at, chunk) {
            Ok(()) => return true,
            Err(stop) => stop,
        };
        if at.next_part > before {
            tries.forget();
        }
        let error = match stop {
            _ if parts.is_stopped() => return false,
            Stop::Stopped => return false,
            Stop::File(failure) => {
                parts.fail(failure);
                return false;
            }
            Stop::Server(error) => error,
        };
        // A link that a redirect gave may have expired, which servers say in many ways.
        let was_direct = source.direct().take().is_some();
        let file = || source.file.name.clone();
        if !error.is_transient() && !was_direct {
            parts.fail(match error {
                // It was announced a moment ago: another one took its place, perhaps.
                HttpError::NotFound { status: 404 | 410, .. } => Failure::Changed(Some(error)),
                error => Failure::Error(PullError::Refused { file: file(), source: error }),
            });
            return false;
        }
        let Some(wait) = tries.next_wait(error.retry_after()) else {
            let tries = tries.made();
            parts.fail(Failure::Error(PullError::GaveUp { file: file(), tries, source: error }));
            return false;
        };
        parts.pause(wait);
    }
}

/// How far a run of parts is.
struct Progress {
    /// The part that the next byte belongs to.
    next_part: usize,
    /// The next byte, in the file.
    offset: u64,
}

/// One request for what is missing of a run.
fn request(
    source: &Source<'_>,
    parts: &Parts<'_>,
    run: &Range<usize>,
    at: &mut Progress,
    chunk: &mut [u8],
) -> Result<(), Stop> {
    let end = parts.range_of(run.clone()).end;
    if at.offset >= end {
        return Ok(());
    }
    let direct = source.direct().clone();
    let url = direct.as_ref().map_or(&source.file.url, |direct| &direct.url);
    let no_token = Access::default();
    let access = if direct.is_some() { &no_token } else { source.access };
    let wanted = Request { range: Some((at.offset, end - 1)), ..Request::new(url) };
    let mut answer = source.client.send(&wanted, access).map_err(|error| named(error, source.file))?;
    check_identity(source, &answer, direct.as_ref())?;
    check_range(source, parts, run, at, &answer)?;
    if direct.is_none() && answer.from != source.file.url {
        *source.direct() = Some(Direct { url: answer.from.clone(), tag: own_tag(&answer) });
    }
    receive(source, parts, at, end, &mut answer, chunk)
}

/// Links that redirects give hold secrets: errors name the file's own address.
fn named(error: HttpError, file: &RemoteFile) -> HttpError {
    let url = file.url.clone();
    match error {
        HttpError::Unreachable { source, .. } => HttpError::Unreachable { url, source },
        HttpError::NotFound { status, hint, .. } => HttpError::NotFound { url, status, hint },
        HttpError::Refused { status, retry_after, .. } => HttpError::Refused { url, status, retry_after },
        other => other,
    }
}

/// Whether the server still has the file that was announced.
fn check_identity(source: &Source<'_>, answer: &Answer, direct: Option<&Direct>) -> Result<(), Stop> {
    let same = match (&source.file.identity, direct) {
        // What is known by its content is hashed in any case: another announcement is seen early.
        (Identity::Content(expected), _) => match crate::fetch::identity_of(answer) {
            Identity::Content(now) => *expected == now,
            Identity::Tag(_) => true,
        },
        (Identity::Tag(_), Some(direct)) => own_tag(answer) == direct.tag,
        (expected, None) => *expected == crate::fetch::identity_of(answer),
    };
    if same { Ok(()) } else { Err(Stop::File(Failure::Changed(None))) }
}

/// The tag that the last server gives, whatever the redirects to it say.
fn own_tag(answer: &Answer) -> Option<String> {
    let value = answer.response.headers().get("etag")?.to_str().ok()?;
    Some(value.to_owned())
}

/// Whether what comes is what was asked for.
fn check_range(
    source: &Source<'_>,
    parts: &Parts<'_>,
    run: &Range<usize>,
    at: &mut Progress,
    answer: &Answer,
) -> Result<(), Stop> {
    let url = || source.file.url.clone();
    let length = answer.response.headers().get("content-length").and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    if answer.response.status().as_u16() != 206 {
        if length.is_some_and(|length| length != parts.bytes) {
            return Err(Stop::File(Failure::Changed(None)));
        }
        let all = parts.range_of(run.clone()) == (0..parts.bytes);
        if !all && parts.has_done() {
            // It sent ranges before: what is here is worth another try.
            return Err(Stop::Server(HttpError::WrongRange {
                url: url(),
                what: "the whole file".to_owned(),
            }));
        }
        if !all {
            return Err(Stop::File(Failure::NoRanges));
        }
        // All of it comes once more.
        parts.have.fetch_sub(at.offset, Ordering::Relaxed);
        *at = Progress { next_part: 0, offset: 0 };
        return Ok(());
    }
    let said = answer.response.headers().get("content-range").and_then(|value| value.to_str().ok());
    let said = said.unwrap_or("no Content-Range");
    let wrong = || Stop::Server(HttpError::WrongRange { url: url(), what: said.to_owned() });
    let (first, last, total) = content_range(said).ok_or_else(wrong)?;
    if total != parts.bytes {
        return Err(Stop::File(Failure::Changed(None)));
    }
    let short = length.is_some_and(|length| length != last.wrapping_sub(first).wrapping_add(1));
    if first != at.offset || last < first || last >= parts.range_of(run.clone()).end || short {
        return Err(wrong());
    }
    Ok(())
}

/// Writes what comes.
fn receive(
    source: &Source<'_>,
    parts: &Parts<'_>,
    at: &mut Progress,
    end: u64,
    answer: &mut Answer,
    chunk: &mut [u8],
) -> Result<(), Stop> {
    let mut body = answer.response.body_mut().as_reader();
    let mut pace = Pace::new(parts);
    let mut begun = Begun::new(at.offset);
    let cut = |offset| HttpError::Truncated { url: source.file.url.clone(), got: offset, expected: end };
    while at.offset < end {
        if parts.is_stopped() {
            return Err(Stop::Stopped);
        }
        // No further than its part goes: whoever kills this loses one part of each connection, not all that
        // had arrived behind it.
        let part_end = parts.range_of(at.next_part..at.next_part + 1).end.clamp(at.offset, end);
        let most = usize::try_from(part_end - at.offset).unwrap_or(usize::MAX).min(chunk.len());
        let got = body.read(&mut chunk[..most]).map_err(|_| cut(at.offset))?;
        if got == 0 {
            return Err(cut(at.offset).into());
        }
        let written = parts.file.write_all_at(&chunk[..got], at.offset);
        written.map_err(|error| Stop::File(Failure::Error(PullError::io("write", parts.path)(error))))?;
        at.offset += got as u64;
        begun.arrived(parts, at.offset);
        parts.have.fetch_add(got as u64, Ordering::Relaxed);
        while at.offset >= parts.range_of(at.next_part..at.next_part + 1).end && at.next_part < parts.count()
        {
            parts.done(at.next_part).map_err(|error| Stop::File(Failure::Error(error)))?;
            at.next_part += 1;
        }
        pace.check(got as u64, source)?;
    }
    Ok(())
}

/// Whether a connection is worth keeping.
struct Pace {
    began: Instant,
    bytes: u64,
    window: std::time::Duration,
    least_bytes_per_s: u64,
}

impl Pace {
    fn new(parts: &Parts<'_>) -> Self {
        let (window, least_bytes_per_s) = (parts.settings.silence, parts.settings.least_bytes_per_s);
        Self { began: Instant::now(), bytes: 0, window, least_bytes_per_s }
    }

    fn check(&mut self, bytes: u64, source: &Source<'_>) -> Result<(), HttpError> {
        self.bytes += bytes;
        let past = self.began.elapsed();
        if past < self.window {
            return Ok(());
        }
        let least_bytes_per_s = self.least_bytes_per_s;
        if (self.bytes as f64) < past.as_secs_f64() * least_bytes_per_s as f64 {
            return Err(HttpError::Stalled { url: source.file.url.clone(), least_bytes_per_s });
        }
        (self.began, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}
