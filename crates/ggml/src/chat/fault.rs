//! Where a template does not parse. llama.cpp knows and does not tell: what it throws loses its words on the
//! way. So the template is cut behind each of its tags, what is open there is closed, and the shortest piece
//! that does not parse ends with the tag at fault.
//!
//! Pure: whether a piece parses is asked.

/// Characters of a tag that are shown.
const SHOWN: usize = 60;

/// A `{% … %}`, `{{ … }}` or `{# … #}`.
struct Tag<'a> {
    text: &'a str,
    /// Where it begins and ends in the source.
    at: usize,
    end: usize,
    /// The blocks that are open behind it, innermost last.
    open: Vec<Block>,
}

/// A block that is open.
#[derive(Clone)]
struct Block {
    closer: String,
    /// Which tag opened it.
    opener: usize,
}

/// The tag of a template (Jinja source) at which it stops parsing, and its line.
pub(super) fn place_of_fault(source: &str, parses: impl Fn(&str) -> bool) -> String {
    let (tags, endless) = tags_of(source);
    let piece = |tag: &Tag<'_>| {
        let closers = tag.open.iter().rev().map(|block| block.closer.as_str());
        std::iter::once(&source[..tag.end]).chain(closers).collect::<String>()
    };
    // What begins with a piece that does not parse does not parse either.
    let first_bad = tags.partition_point(|tag| parses(&piece(tag)));
    if let Some(tag) = tags.get(first_bad) {
        return told(source, tag.at, tag.text);
    }
    if let Some(at) = endless {
        return format!("{}, which does not end", told(source, at, &source[at..]));
    }
    let open = tags.last().and_then(|last| last.open.last());
    match open.and_then(|block| tags.get(block.opener)) {
        Some(opener) => format!("{}, which is not closed", told(source, opener.at, opener.text)),
        None => "nobody knows where".to_owned(),
    }
}

fn told(source: &str, at: usize, tag: &str) -> String {
    let line = source[..at].matches('\n').count() + 1;
    let mut shown: String = tag.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    format!("line {line}, {shown}")
}

/// All tags of a source, and where one begins that does not end.
fn tags_of(source: &str) -> (Vec<Tag<'_>>, Option<usize>) {
    let (mut tags, mut open, mut from) = (Vec::new(), Vec::new(), 0);
    while let Some(at) = source[from..].find('{').map(|found| from + found) {
        let close = match source.as_bytes().get(at + 1) {
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            Some(b'#') => "#}",
            _ => {
                from = at + 1;
                continue;
            }
        };
        let Some(end) = end_of(source, at + 2, close) else { return (tags, Some(at)) };
        let text = &source[at..end];
        if close == "%}" {
            note_block(text, tags.len(), &mut open);
        }
        tags.push(Tag { text, at, end, open: open.clone() });
        from = end;
    }
    (tags, None)
}

/// The end of a tag: texts within it may look like one.
fn end_of(source: &str, from: usize, close: &str) -> Option<usize> {
    if close == "#}" {
        return source[from..].find(close).map(|found| from + found + close.len());
    }
    let (mut quote, mut escaped) = (None, false);
    for (at, byte) in source.bytes().enumerate().skip(from) {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, _) if source.as_bytes()[at..].starts_with(close.as_bytes()) => {
                return Some(at + close.len());
            }
            (None, _) => {}
        }
    }
    None
}

/// Opens or closes the block of a statement, which is the tag of this number.
fn note_block(tag: &str, opener: usize, open: &mut Vec<Block>) {
    let inner = tag.trim_start_matches("{%").trim_start_matches(['-', '+']).trim();
    let word = inner.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    match word {
        "for" | "if" | "macro" | "call" | "filter" | "generation" => {
            open.push(Block { closer: format!("{{% end{word} %}}"), opener });
        }
        "set" if !inner.contains('=') => open.push(Block { closer: "{% endset %}".to_owned(), opener }),
        word if word.starts_with("end") => drop(open.pop()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a parser that knows neither `bad` nor blocks that are not closed.
    fn parses(source: &str) -> bool {
        let (tags, endless) = tags_of(source);
        endless.is_none()
            && tags.last().is_none_or(|tag| tag.open.is_empty())
            && !tags.iter().any(|tag| tag.text.contains("bad"))
    }

    #[test]
    fn the_tag_at_fault_is_named_with_its_line() {
        let place = |source: &str| place_of_fault(source, parses);
        let text = "{% for m in messages %}\n{{ '}}' + m.content }}\n{% if m.role == 'x' %}\n  {{ bad\n  + 1 }}{% endif %}{% endfor %}";
        assert_eq!(place(text), "line 4, {{ bad + 1 }}");
        assert_eq!(place("{# {% #}\n{%- bad %}"), "line 2, {%- bad %}");
        assert_eq!(place("x\n{{ 'a"), "line 2, {{ 'a, which does not end");
        assert_eq!(
            place("{% if a %}{{ a }}\n{% if b %}b{% endif %}\n"),
            "line 1, {% if a %}, which is not closed"
        );
        assert_eq!(place("no tags"), "nobody knows where");
        assert!(place(&format!("{{{{ bad {} }}}}", "ä".repeat(500))).ends_with('…'));
    }
}
