//! Filling paragraphs: words go onto a line until it is full. No line may begin with what would make
//! something else of it (a bullet, a heading, a table), and code in backticks stays in one piece unless it is
//! long.

/// Code in backticks that has more characters than this may be broken at its spaces.
const LONGEST_UNBROKEN: usize = 60;

/// The lines of a paragraph filled anew, each with its prefix, none wider than `widest` columns if its words
/// permit.
pub(super) fn fill(lines: &[&str], first: &str, rest: &str, widest: usize) -> Vec<String> {
    let (begin, others) =
        lines.split_first().map_or(("", lines), |(begin, others)| (&begin[first.len()..], others));
    let text = others.iter().fold(begin.trim().to_owned(), |text, line| text + " " + line.trim());
    // A break at the end of the paragraph belongs to it.
    let hard_break = match lines.last() {
        Some(last) if last.ends_with("  ") => "  ",
        _ => "",
    };
    let mut filled = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words(&text) {
        let space = usize::from(!is_empty);
        if !is_empty && line.chars().count() + space + word.chars().count() > widest {
            filled.push(std::mem::replace(&mut line, rest.to_owned()));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    line.push_str(hard_break);
    filled.push(line);
    filled
}

/// What may not be broken: words, code in backticks, and words together with one that must not begin a line.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = rest.split_at(word_length(rest));
        match words.last_mut() {
            Some(last) if begins_a_block(word) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        rest = after.trim_start();
    }
    words
}

/// Bytes up to the first space outside of code.
fn word_length(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next.is_whitespace() {
            break;
        }
        at += if next == '`' { code_length(&text[at..]) } else { next.len_utf8() };
    }
    at
}

/// Bytes of the code that begins here, or of its backticks if nothing closes it or it is long.
fn code_length(text: &str) -> usize {
    let ticks = text.len() - text.trim_start_matches('`').len();
    let (fence, after) = text.split_at(ticks);
    let mut from = 0;
    while let Some(found) = after[from..].find(fence) {
        let close = from + found;
        let run = after[close..].len() - after[close..].trim_start_matches('`').len();
        if run == ticks {
            let is_short = after[..close].chars().count() <= LONGEST_UNBROKEN;
            return if is_short { ticks + close + ticks } else { ticks };
        }
        from = close + run;
    }
    ticks
}

/// Would a line that begins with this word be read as a list, a heading, a table, a quotation, a rule, a
/// definition?
fn begins_a_block(word: &str) -> bool {
    let is_number = word.strip_suffix(['.', ')']).is_some_and(|number| {
        !number.is_empty() && number.len() <= 3 && number.chars().all(|c| c.is_ascii_digit())
    });
    let marks = ['-', '+', '*', '=', '#'];
    is_number
        || word.starts_with(['|', '>', '<', '~'])
        || word.starts_with("```")
        || word.starts_with('[') && word.ends_with("]:")
        || marks.into_iter().any(|mark| word.trim_matches(mark).is_empty())
}
