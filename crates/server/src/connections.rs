//! Which connections are open: how many there may be, and which has to go when another one comes.
//!
//! A connection is *idle* while none of its requests runs: before its first byte, between two requests, while
//! a head arrives. When the cap is reached, the one that has been idle for longest is closed; where none is,
//! the new one is. So connections that do nothing keep nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    open: usize,
    /// Counts the beginnings of idle times.
    next: u64,
    /// How to close those that are idle, by the beginning of that.
    idle: BTreeMap<u64, Arc<Notify>>,
}

/// The connections that are open.
pub(super) struct Connections {
    most: usize,
    state: Mutex<State>,
}

impl Connections {
    /// At most so many at a time.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection, which is idle; `None` when it must be closed, because all others are at work.
    pub fn admit(self: &Arc<Self>) -> Option<Arc<Member>> {
        let mut state = self.state();
        if state.open >= self.most {
            let (_, oldest) = state.idle.pop_first()?;
            // Its task closes it; the place is free now.
            oldest.notify_one();
            state.open -= 1;
        }
        state.open += 1;
        let close = Arc::<Notify>::default();
        let since = state.rest(&close);
        drop(state);
        let place = Mutex::new(Place { running: 0, since: Some(since) });
        Some(Arc::new(Member { connections: Arc::clone(self), close, place }))
    }
}

impl State {
    fn rest(&mut self, close: &Arc<Notify>) -> u64 {
        let since = self.next;
        self.next += 1;
        self.idle.insert(since, Arc::clone(close));
        since
    }
}

struct Place {
    running: usize,
    since: Option<u64>,
}

/// One connection.
pub(super) struct Member {
    connections: Arc<Connections>,
    close: Arc<Notify>,
    place: Mutex<Place>,
}

impl Member {
    /// Ready when the connection has to go.
    pub async fn dismissed(&self) {
        self.close.notified().await;
    }

    /// Whether none of its requests runs.
    pub fn is_idle(&self) -> bool {
        self.place().running == 0
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has begun; it ends with what is returned.
    pub fn begin(self: &Arc<Self>) -> Request {
        let mut place = self.place();
        place.running += 1;
        if let Some(since) = place.since.filter(|_| place.running == 1) {
            // One that is not there any more is being closed.
            if self.connections.state().idle.remove(&since).is_some() {
                place.since = None;
            }
        }
        Request(Arc::clone(self))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.connections.state();
        // The place of one that was dismissed was given away then.
        let has_place = place.since.is_none_or(|since| state.idle.remove(&since).is_some());
        state.open -= usize::from(has_place);
    }
}

/// A request that runs.
pub(super) struct Request(Arc<Member>);

impl Request {
    /// Has it run until the last byte of its answer is on its way.
    pub fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Sending { body, _request: self }))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut place = self.0.place();
        place.running -= 1;
        if place.running == 0 && place.since.is_none() {
            place.since = Some(self.0.connections.state().rest(&self.0.close));
        }
    }
}

/// The body of an answer, with the request that it ends.
struct Sending {
    body: Body,
    _request: Request,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn is_dismissed(member: &Member) -> bool {
        member.dismissed().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_is_idle_for_longest_makes_room() {
        let connections = Connections::new(3);
        let [a, b, c] = [0; 3].map(|_| connections.admit().unwrap());
        let working = a.begin();
        let d = connections.admit().unwrap();
        assert!(is_dismissed(&b) && !is_dismissed(&a) && !is_dismissed(&c) && !is_dismissed(&d));
        drop(working);
        let _working = d.begin();
        let _e = connections.admit().unwrap();
        assert!(is_dismissed(&c), "a was at work later");
        assert!(!is_dismissed(&a));
    }

    #[test]
    fn where_all_are_at_work_the_new_one_is_closed() {
        let connections = Connections::new(2);
        let members = [0; 2].map(|_| connections.admit().unwrap());
        let working = members.each_ref().map(Member::begin);
        assert!(connections.admit().is_none());
        drop(working);
        assert!(connections.admit().is_some());
    }

    #[test]
    fn every_place_is_given_back_once() {
        let connections = Connections::new(2);
        for _ in 0..5 {
            let members: Vec<_> = (0..4).map(|_| connections.admit().unwrap()).collect();
            let _late = members[0].begin();
            assert_eq!(connections.state().open, 2);
        }
        let state = connections.state();
        assert_eq!((state.open, state.idle.len()), (0, 0));
    }
}
