//! Asks the server again and again, on a thread of its own: a slow or missing server never holds up the
//! screen.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::document::{EXPERTS, ExpertMap, STATUS, Status};
use crate::client::{Client, ClientError};

/// Between two tries where nobody answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen at one look.
#[derive(Debug)]
pub(super) struct Seen {
    pub at: Instant,
    /// The document, or why there is none.
    pub status: Result<Status, String>,
    /// The experts of the model that was asked for.
    pub experts: Option<ExpertMap>,
}

impl Seen {
    pub fn now(status: Status, experts: Option<ExpertMap>) -> Self {
        Self { at: Instant::now(), status: Ok(status), experts }
    }
}

/// Which model's experts are to be asked for; shared with the thread that asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted(Arc<Mutex<Option<String>>>);

impl Wanted {
    pub fn set(&self, model: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts to look. The thread ends with the receiver.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(client: &Client, interval: Duration, wanted: &Wanted) -> std::io::Result<Receiver<Seen>> {
    let (sender, receiver) = sync_channel(1);
    let (client, wanted) = (client.clone(), wanted.clone());
    std::thread::Builder::new()
        .name("feed".to_owned())
        .spawn(move || look(&client, interval, &wanted, &sender))?;
    Ok(receiver)
}

fn look(client: &Client, interval: Duration, wanted: &Wanted, sender: &SyncSender<Seen>) {
    loop {
        let begun = Instant::now();
        let seen = see(client, wanted);
        let pause = if seen.status.is_ok() { interval } else { interval.max(PATIENCE) };
        if sender.send(seen).is_err() {
            return;
        }
        std::thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
}

fn see(client: &Client, wanted: &Wanted) -> Seen {
    let answer = client.get(STATUS).map_err(|error| refusal(client, &error));
    let status = answer.and_then(|answer| {
        serde_json::from_value(answer).map_err(|error| format!("it makes no sense: {error}"))
    });
    let experts = wanted.get().filter(|_| status.is_ok()).and_then(|name| {
        let answer = client.get(&format!("{EXPERTS}{}", encoded(&name))).ok()?;
        serde_json::from_value(answer).ok()
    });
    Seen { at: Instant::now(), status, experts }
}

/// A name in the query of an address.
pub(super) fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Why there is no document, and what to do.
pub(super) fn refusal(client: &Client, error: &ClientError) -> String {
    let address = client.address();
    match error {
        ClientError::Unreachable { .. } => {
            format!(
                "no server answers at {address}: start one with `hypura serve`, or name another with --host"
            )
        }
        ClientError::Refused { status: 401, .. } => {
            format!("the server at {address} asks for a key: --api-key or HYPURA_API_KEY")
        }
        ClientError::Refused { status: 404, .. } => {
            format!("what listens at {address} is not Hypura, or an older one: it has no {STATUS}")
        }
        ClientError::Refused { .. } | ClientError::Nonsense { .. } => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_addresses() {
        assert_eq!(encoded("hf.co/a/b:Q4_K_M"), "hf.co/a/b:Q4_K_M");
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
