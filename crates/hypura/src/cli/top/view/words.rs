//! Numbers for people.

/// A span of time, in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// A count with groups of three digits.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A count of requests.
pub(super) fn requests(number: u64) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} request{plural}", count(number))
}

/// A speed.
pub(super) fn speed(tokens_per_s: f64) -> String {
    if tokens_per_s >= 100.0 {
        format!("{tokens_per_s:.0} tok/s")
    } else {
        format!("{tokens_per_s:.1} tok/s")
    }
}

/// What binds, in words.
pub(super) fn bound(name: &str) -> &str {
    match name {
        "disk" => "bound by the disk",
        "compute" => "bound by compute",
        "sync" => "bound by synchronisation",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (span(7.4), span(61.0), span(7260.0), span(90000.0)),
            ("7 s".to_owned(), "1 min 1 s".to_owned(), "2 h 1 min".to_owned(), "1 d 1 h".to_owned())
        );
        assert_eq!(span(-1.0), "0 s");
        assert_eq!((count(999), count(1234567)), ("999".to_owned(), "1 234 567".to_owned()));
        assert_eq!((requests(0), requests(1)), ("0 requests".to_owned(), "1 request".to_owned()));
        assert_eq!((speed(0.58), speed(420.4)), ("0.6 tok/s".to_owned(), "420 tok/s".to_owned()));
    }
}
