//! A request's body, read as JSON whatever its Content-Type says.
//!
//! `curl -d` calls its JSON a form, so no extractor looks at the header. Keys match whatever their case, null
//! is absent, unknown keys are ignored, of two equal keys the last one counts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::aside::aside;
use super::bodies::Reading;
use super::{Failure, coding, refusal};

/// Most bytes of a body that may have pictures and sounds in it: long histories, but no more than a machine
/// can hold.
pub const MOST_BYTES: usize = 128 << 20;
/// Most bytes of any other: twice the text that a request may have.
const MOST_TEXT_BYTES: usize = 32 << 20;
/// Paths whose bodies may have pictures and sounds in them.
const WITH_MEDIA: [&str; 9] = [
    "/api/chat",
    "/api/generate",
    "/apply-template",
    "/chat/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/audio/transcriptions",
];

/// Most bytes of a body that is sent to this path, decompressed.
fn most_bytes(path: &str) -> usize {
    if WITH_MEDIA.contains(&path) { MOST_BYTES } else { MOST_TEXT_BYTES }
}

/// The whole body of a request. One that is too large, or that breaks off, is answered in the protocol of its
/// path, which the framework's own answers are not.
pub struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        let reading = request.extensions().get::<Arc<Reading>>().cloned();
        let most = most_bytes(&path);
        let refused = |failure: Failure| refusal::of_path(&path, &failure);
        let claimed =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if claimed.is_some_and(|length: usize| length > most) {
            return Err(refused(too_large(most)));
        }
        let bytes = all_of(request.into_body(), most).await.map_err(refused)?;
        if !headers.contains_key(header::CONTENT_ENCODING) {
            return Ok(Self(bytes));
        }
        // What is compressed may be a thousand times as long.
        let count = |all: usize, bytes: usize| match &reading {
            _ if all > most => Err(too_large(most)),
            Some(reading) if !reading.take(bytes) => Err(Failure::busy()),
            _ => Ok(()),
        };
        aside(usize::MAX, || coding::decompressed(&headers, bytes, count)).map(Self).map_err(refused)
    }
}

/// The whole of a body.
async fn all_of(body: Body, most: usize) -> Result<Bytes, Failure> {
    let mut chunks = body.into_data_stream();
    let mut all = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Failure::bad_request("the body is not complete"))?;
        if all.len() + chunk.len() > most {
            return Err(too_large(most));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// 413: more than `most` bytes.
#[must_use]
pub fn too_large(most: usize) -> Failure {
    let message = format!("the request is too large: at most {} MiB", most >> 20);
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// The JSON object in a body.
///
/// # Errors
/// 400 for an empty body, for invalid JSON, and for JSON that is not an object.
pub fn object(body: &Bytes) -> Result<Map<String, Value>, Failure> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::bad_request("missing request body"));
    }
    let parsed = aside(body.len(), || {
        check_items(body)?;
        let read = serde_json::from_slice(body).or_else(|error| match mended(body) {
            Some(text) => serde_json::from_str(&text),
            None => Err(error),
        });
        Ok::<_, Failure>(read)
    });
    match parsed? {
        Ok(Value::Object(map)) => Ok(lower_keys(map)),
        Ok(other) => {
            let kind = super::keep_alive::kind(&other);
            Err(Failure::bad_request(format!("the request must be a JSON object, not {kind}")))
        }
        Err(error) => Err(Failure::bad_request(format!("invalid JSON: {error}"))),
    }
}

/// Most values and keys of a body: each takes a hundred bytes of memory and more.
const MOST_ITEMS: usize = 1 << 20;

/// Counts what a parser would make of a body, before it makes it.
///
/// # Errors
/// 400: too many.
fn check_items(body: &[u8]) -> Result<(), Failure> {
    if body.len() <= MOST_ITEMS {
        return Ok(());
    }
    let (mut items, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b':' | b'[' | b'{' if !quoted => items += 1,
            _ => {}
        }
    }
    let message = || format!("the request has more than {MOST_ITEMS} values");
    if items > MOST_ITEMS { Err(Failure::bad_request(message())) } else { Ok(()) }
}

/// The text of a body in which bytes that are not UTF-8, and halves of surrogate pairs, have become U+FFFD,
/// as Go's reader has them; `None` where there are none.
fn mended(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let whole = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(_), _) => {
                out.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            // The character behind the backslash belongs to it.
            (None, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&escape[..whole]);
        rest = &escape[whole..];
    }
    out.push_str(rest);
    (out.as_bytes() != body).then_some(out)
}

/// The half of a pair that an escape stands for.
fn surrogate(escape: &str) -> Option<u32> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    let code = u32::from_str_radix(digits, 16).ok()?;
    (0xd800..=0xdfff).contains(&code).then_some(code)
}

/// A request of type `T` in a body.
///
/// # Errors
/// As [`object`], and 400 with the parser's words for a value of the wrong type.
pub fn request<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    of_object(object(body)?)
}

/// A request of type `T` in an object that was read before.
///
/// # Errors
/// 400 with the parser's words for a value of the wrong type.
pub fn of_object<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(object))
        .map_err(|error| Failure::bad_request(format!("invalid request: {error}")))
}

/// Keys of the first level in lower case, unless that key is there already; null values left out.
fn lower_keys(map: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::with_capacity(map.len());
    let mut others = Vec::new();
    for (key, value) in map {
        if value.is_null() {
            continue;
        }
        if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            others.push((key.to_ascii_lowercase(), value));
        } else {
            out.insert(key, value);
        }
    }
    for (key, value) in others {
        out.entry(key).or_insert(value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Sample {
        model: String,
        stream: Option<bool>,
    }

    fn read(text: &str) -> Result<Sample, Failure> {
        request(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn http_keys_of_any_case_null_and_unknown_keys() {
        let wanted = Sample { model: "m".into(), stream: None };
        assert_eq!(read(r#"{"Model":"m","STREAM":null,"x":[1]}"#), Ok(wanted));
        assert_eq!(read(r#"{"model":"a","model":"b"}"#).unwrap().model, "b");
        assert_eq!(read(r#"{"Model":"a","model":"b"}"#).unwrap().model, "b");
    }

    #[test]
    fn http_every_bad_body_is_a_400_with_words() {
        assert_eq!(read("").unwrap_err().message, "missing request body");
        assert_eq!(read(" \n").unwrap_err().message, "missing request body");
        for text in ["{", "[1]", "nonsense", r#"{"model":1}"#, &"[".repeat(100_000), r#"{"a":"\u12"}"#] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.status, 400);
            assert!(failure.message.contains("invalid") || failure.message.contains("must be"), "{failure}");
        }
    }

    #[test]
    fn what_is_no_text_becomes_a_replacement_character_as_in_go() {
        let read = |bytes: &'static [u8]| request::<Sample>(&Bytes::from_static(bytes)).unwrap().model;
        assert_eq!(read(b"{\"model\":\"a\xffb\"}"), "a\u{fffd}b");
        assert_eq!(read(br#"{"model":"a\ud800b"}"#), "a\u{fffd}b");
        assert_eq!(read(br#"{"model":"\udc00\ud83e\udd80\ud800\u0041"}"#), "\u{fffd}🦀\u{fffd}A");
        assert_eq!(read(br#"{"model":"\\ud800 \" \ud800"}"#), "\\ud800 \" \u{fffd}");
        assert_eq!(read(br#"{"model":"\ud83e\udd80"}"#), "🦀");
    }

    /// A body of 128 MiB that holds 64 million empty arrays took gigabytes once it was read.
    #[test]
    fn http_items_of_a_body_are_counted_before_they_are_read() {
        let many = format!("{{\"model\":[{}0]}}", "[],".repeat(MOST_ITEMS / 2));
        assert!(read(&many).unwrap_err().message.contains("more than 1048576 values"));
        let long = format!("{{\"model\":\"{}\"}}", "[,:\\\"{".repeat(MOST_ITEMS / 2));
        assert!(read(&long).is_ok(), "a text is one value");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = request::<Sample>(&Bytes::from(bytes));
        }
    }
}
