//! Bodies of `multipart/form-data`: fields, and the files among them.
//!
//! The whole body is in memory, so this is a search for its boundary. (A crate for it would bring a text
//! encoder and its own limits along.)

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::Failure;

/// The fields of a form; of equal names the last one counts.
#[derive(Debug, Default)]
pub(super) struct Form(HashMap<String, Bytes>);

impl Form {
    /// Reads a body.
    ///
    /// # Errors
    /// 400: another type of content, or a form that is broken or cut.
    pub fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::bad_request(format!("failed to parse multipart form: {why}"));
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(wrong("its Content-Type is not multipart/form-data"));
        }
        let boundary = parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty());
        let delimiter = format!("\r\n--{}", boundary.ok_or_else(|| wrong("no boundary"))?);
        let delimiter = delimiter.as_bytes();
        // The first one may stand at the very beginning.
        let mut at = match body.starts_with(&delimiter[2..]) {
            true => delimiter.len() - 2,
            false => find(body, delimiter, 0).ok_or_else(|| wrong("it has no parts"))? + delimiter.len(),
        };
        let mut fields = HashMap::new();
        while !body[at..].starts_with(b"--") {
            let line = find(body, b"\r\n", at).ok_or_else(|| wrong("it is cut off"))?;
            // Without a header the empty line follows at once.
            let head = find(body, b"\r\n\r\n", line).ok_or_else(|| wrong("it is cut off"))?;
            let content = head + 4;
            // The line break of an empty content is that of its header.
            let end = find(body, delimiter, content - 2).ok_or_else(|| wrong("it is cut off"))?;
            let head = String::from_utf8_lossy(&body[line..head]).into_owned();
            fields.extend(name_of(&head).map(|name| (name, body.slice(content.min(end)..end))));
            at = end + delimiter.len();
        }
        Ok(Self(fields))
    }

    /// A field, as bytes.
    pub fn bytes(&self, name: &str) -> Option<&Bytes> {
        self.0.get(name)
    }

    /// A field, as text; empty ones are none.
    ///
    /// # Errors
    /// 400: it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        let text = self.0.get(name).map(|bytes| std::str::from_utf8(bytes)).transpose();
        let text = text.map_err(|_| Failure::bad_request(format!("{name} is not a text in UTF-8")))?;
        Ok(text.map(str::trim).filter(|text| !text.is_empty()))
    }
}

/// The name that the header of a part gives it.
fn name_of(head: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim().eq_ignore_ascii_case("content-disposition"))?;
    parameter(value.split_once(';')?.1, "name")
}

/// A parameter of a header: `name="file"; filename="a.wav"`.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (key, rest) = text.split_once('=')?;
        let key = key.trim_matches([';', ' ', '\t']);
        let (value, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, rest) = rest.split_once(';').unwrap_or((rest, ""));
                (value.trim().to_owned(), rest)
            }
        };
        if key.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

/// A text behind its first quote, and what follows its last one.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => out.push(c),
        }
    }
    None
}

/// Where `needle` is in the bytes from `from` on.
fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(needle.len()).position(|window| window == needle);
    found.map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(kind: &str, body: &[u8]) -> Result<Form, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        Form::read(&headers, &Bytes::copy_from_slice(body))
    }

    const KIND: &str = "multipart/form-data; charset=utf-8; boundary=\"x y\"";

    #[test]
    fn fields_and_files_are_found_by_their_names() {
        let body = concat!(
            "what comes before\r\n--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n",
            "--x y \r\ncontent-type: audio/wav\r\nContent-Disposition: form-data; filename=\"a; name=\\\"b\\\"\"; name=file\r\n",
            "\r\nR\r\n-IFF\r\n--xy\r\n\r\n--x y\r\n\r\nno header\r\n",
            "--x y\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--x y--\r\nwhat follows",
        );
        let form = read(KIND, body.as_bytes()).unwrap();
        assert_eq!(form.text("model").unwrap(), Some("m"));
        assert_eq!(form.bytes("file").unwrap().as_ref(), b"R\r\n-IFF\r\n--xy\r\n");
        assert_eq!((form.text("empty").unwrap(), form.text("other").unwrap()), (None, None));
        assert_eq!(form.0.len(), 3);
        let body = b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\xff\r\n--b--";
        assert_eq!(read("Multipart/Form-Data; boundary=b", body).unwrap().text("x").unwrap_err().status, 400);
    }

    #[test]
    fn broken_forms_are_400_with_words() {
        for (kind, body, why) in [
            ("application/json", "{}", "Content-Type"),
            ("multipart/form-data", "--\r\n", "no boundary"),
            ("multipart/form-data; boundary=b", "", "no parts"),
            ("multipart/form-data; boundary=b", "--b", "cut off"),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n",
                "cut off",
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nabc",
                "cut off",
            ),
        ] {
            let failure = read(kind, body.as_bytes()).unwrap_err();
            assert!(failure.status == 400 && failure.message.contains(why), "{kind} {body:?}: {failure}");
        }
    }

    proptest! {
        #[test]
        fn any_form_is_judged_without_a_panic(body in "(--b|\r\n|--|Content-Disposition: form-data|; name=|\"|x|\\\\|=|;| ){0,24}") {
            let _ = read("multipart/form-data; boundary=b", body.as_bytes());
        }
    }
}
