//! Templates of clients: each is tried with its conversation in a process of its own before the model's
//! process sees it.
//!
//! A template that loops, recurses, or doubles a text would end the process of a model that others use. The
//! process that tries it has no model, a limit of memory and of time, and ends after it. What the template
//! makes there it makes again in the model's process, which also has the vocabulary and reads the answer.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::errand::{Errand, Lost};
use super::limits::Limits;
use super::message::{Chat, FromRunner, ToRunner};
use crate::Failure;
use crate::models::backend::ChatInput;

/// Most bytes that a template of a client may make of a conversation.
const MOST_BYTES: usize = 32 << 20;
/// Trials at a time. Each takes a processor.
const AT_ONCE: usize = 2;

/// Trials that run.
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// A place among them.
struct Place;

impl Place {
    /// Waits for one.
    ///
    /// # Errors
    /// 503: there was none for so long.
    fn take(limit: Duration) -> Result<Self, Failure> {
        let (count, changed) = &RUNNING;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(count, limit, |count| *count >= AT_ONCE);
        let (mut count, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && *count >= AT_ONCE {
            return Err(Failure::busy());
        }
        *count += 1;
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_one();
    }
}

/// Tries a conversation's own template on these of its messages. `tokens`: the texts of the model's BOS and
/// EOS.
///
/// # Errors
/// 400: it fails, never ends, makes too much, or ends its process; 503 where too many are being tried.
pub(super) fn attempt(
    limits: &Limits,
    chat: &ChatInput,
    messages: &[usize],
    (bos, eos): (&str, &str),
) -> Result<(), Failure> {
    let _place = Place::take(limits.template)?;
    let chat = Box::new(Chat::to_try(chat, messages));
    let order = ToRunner::Try { chat, bos: bos.to_owned(), eos: eos.to_owned() };
    let mut errand = Errand::start("template", &order).map_err(|error| {
        tracing::error!(%error, "no process to try a template in");
        Failure::internal("cannot start a process to try the template in")
    })?;
    let refused = |why: String| Err(Failure::bad_request(format!("template error: {why}")));
    match errand.hear(limits.template) {
        Ok(FromRunner::Tried(Ok(bytes))) if bytes > MOST_BYTES => refused(format!(
            "it makes {} MiB of text, and {} MiB are too much",
            bytes >> 20,
            MOST_BYTES >> 20
        )),
        Ok(FromRunner::Tried(Ok(_))) => Ok(()),
        Ok(FromRunner::Tried(Err(failure))) => refused(failure.message),
        Ok(_) => {
            Err(Failure::internal("the process that tried the template gave an answer of the wrong kind"))
        }
        Err(Lost::Late(limit)) => refused(format!("it did not end within {} s", limit.as_secs())),
        Err(Lost::Ended(how)) => refused(format!("it ended the process that tried it: {how}")),
    }
}
