//! What a line of Markdown begins with, as far as it is known.

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// More must be seen.
    Open,
    /// Text and nothing else.
    Plain,
    Heading,
    Bullet,
    /// A number and a point.
    Number,
    Quote,
    /// Begins or ends code.
    Fence,
    /// A row of a table, which must not be broken.
    Row,
}

/// Most digits of a numbered list.
const MOST_DIGITS: usize = 4;
/// Deepest heading.
const MOST_HASHES: usize = 6;

/// What a line is that begins so. Never [`Lead::Open`] for a line that is whole.
pub(super) fn lead_of(text: &str, whole: bool) -> Lead {
    let open = |lead| if whole { Lead::Plain } else { lead };
    let text = text.trim_start_matches(' ');
    let Some(first) = text.chars().next() else { return open(Lead::Open) };
    let after = |marker: &str| match text.strip_prefix(marker) {
        Some("") => Lead::Open,
        Some(rest) if rest.starts_with(' ') => Lead::Bullet,
        _ => Lead::Plain,
    };
    match first {
        '#' => {
            let rest = text.trim_start_matches('#');
            match (text.len() - rest.len(), rest.chars().next()) {
                (MOST_HASHES.., Some('#')) => Lead::Plain,
                (1..=MOST_HASHES, None) => open(Lead::Open),
                (1..=MOST_HASHES, Some(' ')) => Lead::Heading,
                _ => Lead::Plain,
            }
        }
        '-' => or_plain(after("-"), whole),
        '*' => or_plain(after("*"), whole),
        '+' => or_plain(after("+"), whole),
        '0'..='9' => {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
            if text.len() - rest.len() > MOST_DIGITS {
                return Lead::Plain;
            }
            match rest.strip_prefix(['.', ')']) {
                Some("") => open(Lead::Open),
                Some(rest) if rest.starts_with(' ') => Lead::Number,
                Some(_) => Lead::Plain,
                None => {
                    if rest.is_empty() {
                        open(Lead::Open)
                    } else {
                        Lead::Plain
                    }
                }
            }
        }
        '>' if text.len() > 1 || whole => Lead::Quote,
        '>' => Lead::Open,
        '`' if text.starts_with("```") => Lead::Fence,
        '`' if "```".starts_with(text) => open(Lead::Open),
        '|' => Lead::Row,
        _ => Lead::Plain,
    }
}

fn or_plain(lead: Lead, whole: bool) -> Lead {
    if whole && lead == Lead::Open { Lead::Plain } else { lead }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_their_beginning() {
        for (text, lead) in [
            ("", Lead::Open),
            ("  ", Lead::Open),
            ("a", Lead::Plain),
            ("#", Lead::Open),
            ("## ", Lead::Heading),
            ("#!", Lead::Plain),
            ("#######", Lead::Plain),
            ("-", Lead::Open),
            ("- ", Lead::Bullet),
            ("--", Lead::Plain),
            ("  * ", Lead::Bullet),
            ("**", Lead::Plain),
            ("12", Lead::Open),
            ("12.", Lead::Open),
            ("12. ", Lead::Number),
            ("12.5", Lead::Plain),
            ("20261", Lead::Plain),
            (">", Lead::Open),
            ("> ", Lead::Quote),
            ("``", Lead::Open),
            ("`a", Lead::Plain),
            ("```", Lead::Fence),
            ("|", Lead::Row),
        ] {
            assert_eq!(lead_of(text, false), lead, "{text:?}");
        }
        for text in ["", " ", "#", "-", "1.", "``"] {
            assert_eq!(lead_of(text, true), Lead::Plain, "{text:?}");
        }
    }
}
