//! Recent answers, so that a request may refer to them instead of sending them again (`previous_response_id`,
//! items of type `item_reference`). In memory only, and bounded: the oldest leave.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::Failure;

/// Most answers that are remembered.
const MOST: usize = 256;
/// Most bytes of JSON that they take together.
const MOST_BYTES: usize = 64 << 20;

/// The answers of this server's latest requests that did not ask to be forgotten (`store: false`).
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Answered>>);

#[derive(Debug)]
struct Answered {
    id: String,
    /// The conversation up to and with the answer, without what `instructions` said.
    items: Vec<Value>,
    bytes: usize,
}

impl Recent {
    /// Remembers an answer and the conversation that led to it.
    pub(crate) fn remember(&self, id: String, items: Vec<Value>) {
        let bytes = items.iter().map(|item| item.to_string().len()).sum();
        if bytes > MOST_BYTES {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(Answered { id, items, bytes });
        while all.len() > MOST || all.iter().map(|answered| answered.bytes).sum::<usize>() > MOST_BYTES {
            all.pop_front();
        }
    }

    /// The items of a request with those in front that it refers to by `previous`, and in the places of
    /// references what they refer to.
    ///
    /// # Errors
    /// 400 for an answer that is not remembered, 404 for an item that is not.
    pub(crate) fn resolve(&self, previous: Option<&str>, items: Vec<Value>) -> Result<Vec<Value>, Failure> {
        let is_reference = |item: &Value| item["type"] == "item_reference";
        if previous.is_none() && !items.iter().any(is_reference) {
            return Ok(items);
        }
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = match previous {
            None => Vec::new(),
            Some(id) => {
                let found = all.iter().rev().find(|answered| answered.id == id);
                let lost = || Failure::bad_request(format!("Previous response with id '{id}' not found."));
                found.ok_or_else(lost)?.items.clone()
            }
        };
        for item in items {
            if !is_reference(&item) {
                out.push(item);
                continue;
            }
            let id = item["id"].as_str().unwrap_or_default();
            let known = all.iter().rev().flat_map(|answered| &answered.items).find(|item| item["id"] == id);
            let lost = || Failure::not_found(format!("Item with id '{id}' not found."));
            out.push(known.ok_or_else(lost)?.clone());
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_remembered_and_the_oldest_leave() {
        let recent = Recent::default();
        for number in 0..=MOST {
            let item = json!({"id": format!("msg_{number}"), "type": "message", "content": "x"});
            recent.remember(format!("resp_{number}"), vec![item]);
        }
        let new = vec![json!({"role": "user", "content": "y"})];
        assert_eq!(recent.resolve(None, new.clone()).unwrap(), new);
        assert_eq!(recent.resolve(Some("resp_1"), new.clone()).unwrap().len(), 2);
        assert_eq!(recent.resolve(Some("resp_0"), new).unwrap_err().status, 400);
        let reference = |id: &str| vec![json!({"type": "item_reference", "id": id})];
        assert_eq!(recent.resolve(None, reference("msg_7")).unwrap()[0]["content"], "x");
        assert_eq!(recent.resolve(None, reference("msg_0")).unwrap_err().status, 404);
        recent.remember("big".to_owned(), vec![json!("x".repeat(MOST_BYTES))]);
        assert!(recent.resolve(Some("big"), Vec::new()).is_err());
        assert!(recent.resolve(Some("resp_9"), Vec::new()).is_ok());
    }
}
