//! Text and actions, and the words of an action.

use super::GoTemplateError;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// What stands outside of actions, blanks trimmed as its neighbours ask.
    Text(String),
    /// The words between `{{` and `}}`; a comment has none and is left out.
    Action(Vec<Word>),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// `if`, `eq`, `true`.
    Name(String),
    /// `.Role` is one; `.` alone is the empty one. `joined`: right behind what stands before, of which it is
    /// a field.
    Field { name: String, joined: bool },
    /// `$x`; `$` alone is the empty one.
    Variable(String),
    /// In quotes of either kind.
    Text(String),
    /// As it is written.
    Number(String),
    /// `(`, `)`, `|`, `,`, `=`, and `:` for `:=`.
    Sign(char),
}

/// Cuts a template.
pub(super) fn parts(source: &str) -> Result<Vec<Part>, GoTemplateError> {
    let (mut parts, mut rest, mut trims) = (Vec::new(), source, false);
    loop {
        let (text, after) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let text = if trims { text.trim_start_matches(BLANKS) } else { text };
        let before =
            after.and_then(|after| after.strip_prefix('-')).filter(|after| after.starts_with(BLANKS));
        let text = if before.is_some() { text.trim_end_matches(BLANKS) } else { text };
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        let Some(after) = after else { return Ok(parts) };
        let action = before.unwrap_or(after);
        let (words, after) = action_words(action)?;
        (rest, trims) = after;
        if !words.is_empty() {
            parts.push(Part::Action(words));
        }
    }
}

/// What Go trims.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// The words of an action, and what follows it: the text, and whether its first blanks go.
fn action_words(action: &str) -> Result<(Vec<Word>, (&str, bool)), GoTemplateError> {
    let unclosed = GoTemplateError::Unclosed("an action");
    if let Some(comment) = action.trim_start_matches(BLANKS).strip_prefix("/*") {
        let end = comment.find("*/").ok_or(GoTemplateError::Unclosed("a comment"))?;
        let after = comment.get(end + 2..).unwrap_or_default();
        return Ok((Vec::new(), closing(after).ok_or(unclosed)?));
    }
    let (mut words, mut rest) = (Vec::new(), action);
    loop {
        if let Some(after) = closing(rest) {
            return Ok((words, after));
        }
        let trimmed = rest.trim_start_matches(BLANKS);
        let joined = trimmed.len() == rest.len() && !words.is_empty();
        if trimmed.is_empty() {
            return Err(unclosed);
        }
        if closing(trimmed).is_none() {
            let (word, after) = word(trimmed, joined)?;
            words.push(word);
            rest = after;
        } else {
            rest = trimmed;
        }
    }
}

/// What follows the action, if it ends here.
fn closing(rest: &str) -> Option<(&str, bool)> {
    if let Some(after) = rest.strip_prefix("}}") {
        return Some((after, false));
    }
    let blank = rest.trim_start_matches(BLANKS);
    let after = blank.strip_prefix("-}}").filter(|_| blank.len() < rest.len())?;
    Some((after, true))
}

/// The first word of a text that begins with one, and what follows it.
fn word(text: &str, joined: bool) -> Result<(Word, &str), GoTemplateError> {
    let first = text.chars().next().unwrap_or_default();
    let rest = &text[first.len_utf8()..];
    let name =
        |text: &str| -> usize { text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()) };
    Ok(match first {
        '.' if !rest.starts_with(|c: char| c.is_ascii_digit()) => {
            let (name, after) = rest.split_at(name(rest));
            (Word::Field { name: name.to_owned(), joined }, after)
        }
        '$' => {
            let (name, after) = rest.split_at(name(rest));
            (Word::Variable(name.to_owned()), after)
        }
        '"' => quoted(rest)?,
        '`' => {
            let end = rest.find('`').ok_or(GoTemplateError::Unclosed("a text"))?;
            (Word::Text(rest[..end].to_owned()), &rest[end + 1..])
        }
        ':' if rest.starts_with('=') => (Word::Sign(':'), &rest[1..]),
        '(' | ')' | '|' | ',' | '=' => (Word::Sign(first), rest),
        '0'..='9' | '-' | '+' | '.' => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
            number(&text[..first.len_utf8() + end]).map(|word| (word, &rest[end..]))?
        }
        _ if first.is_alphabetic() || first == '_' => {
            let (name, after) = text.split_at(name(text));
            (Word::Name(name.to_owned()), after)
        }
        _ => return Err(GoTemplateError::Unexpected(format!("{first:?}"))),
    })
}

/// A number that Jinja writes in the same way.
fn number(text: &str) -> Result<Word, GoTemplateError> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '.'));
    if !plain || text.parse::<f64>().is_err() {
        return Err(GoTemplateError::Unsupported(format!("the number {text:?}")));
    }
    Ok(Word::Number(text.to_owned()))
}

/// A text behind its first quote.
fn quoted(text: &str) -> Result<(Word, &str), GoTemplateError> {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Word::Text(out), &text[at + 1..])),
            '\n' => break,
            '\\' => {
                let escaped = chars.next().map(|(_, c)| c).unwrap_or_default();
                let digits = match escaped {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                out.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => escaped,
                    'x' | 'u' | 'U' => {
                        let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| GoTemplateError::Unexpected(format!("escape {hex:?}")))?
                    }
                    other => return Err(GoTemplateError::Unsupported(format!("the escape \\{other}"))),
                });
            }
            _ => out.push(c),
        }
    }
    Err(GoTemplateError::Unclosed("a text"))
}
