//! How long a model stays loaded after a request: a number of seconds or a duration in Go's notation.

use serde_json::Value;
use std::time::Duration;

/// How long a model stays after its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// So long; zero is "leave at once".
    For(Duration),
    /// Until it is asked to go, or its memory is needed.
    Ever,
}

impl KeepAlive {
    /// Ollama's default.
    pub const DEFAULT: Self = Self::For(Duration::from_secs(300));

    /// Whether the model is to leave as soon as it is idle.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::For(Duration::ZERO)
    }

    /// From a request: a number of seconds, also as text, or a duration as text. `None` for null.
    ///
    /// # Errors
    /// A sentence that names the value.
    pub fn of_json(value: &Value) -> Result<Option<Self>, String> {
        match value {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(Self::of_seconds(number.as_f64().unwrap_or(0.0)))),
            Value::String(text) => match text.trim().parse::<f64>() {
                Ok(seconds) if seconds.is_finite() => Ok(Some(Self::of_seconds(seconds))),
                _ => parse_go(text)
                    .map(|nanos| Some(Self::of_nanos(nanos)))
                    .ok_or_else(|| format!("time: invalid duration {text:?}")),
            },
            other => {
                Err(format!("keep_alive must be a number of seconds or a duration, not {}", kind(other)))
            }
        }
    }

    /// From `OLLAMA_KEEP_ALIVE`, where a bare number means seconds.
    #[must_use]
    pub fn of_env(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse::<i64>() {
            #[expect(clippy::cast_precision_loss, reason = "2^53 seconds are for ever in either type")]
            return Some(Self::of_seconds(seconds as f64));
        }
        parse_go(text).map(Self::of_nanos)
    }

    fn of_seconds(seconds: f64) -> Self {
        if seconds < 0.0 {
            return Self::Ever;
        }
        Duration::try_from_secs_f64(seconds).map_or(Self::Ever, Self::bounded)
    }

    fn of_nanos(nanos: i128) -> Self {
        u64::try_from(nanos).map_or(Self::Ever, |nanos| Self::bounded(Duration::from_nanos(nanos)))
    }

    /// Durations beyond what Go can say are for ever, as they are there.
    fn bounded(duration: Duration) -> Self {
        if duration.as_nanos() >= i64::MAX.unsigned_abs().into() { Self::Ever } else { Self::For(duration) }
    }
}

/// Nanoseconds of a duration in Go's notation (`1h30m`, `-1.5s`, `0`).
fn parse_go(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "floats saturate, and 2^127 ns are for ever")]
    let nanos = total.round() as i128;
    Some(if negative { -nanos } else { nanos })
}

/// Go's word for the kind of a JSON value.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(value: Value) -> Result<Option<KeepAlive>, String> {
        KeepAlive::of_json(&value)
    }

    fn seconds(count: u64) -> Result<Option<KeepAlive>, String> {
        Ok(Some(KeepAlive::For(Duration::from_secs(count))))
    }

    #[test]
    fn requests_numbers_are_seconds_and_texts_are_go_durations() {
        assert_eq!(parsed(json!(300)), seconds(300));
        assert_eq!(parsed(json!(1.5)), Ok(Some(KeepAlive::For(Duration::from_millis(1500)))));
        assert_eq!(parsed(json!("5m")), seconds(300));
        assert_eq!(parsed(json!("1h30m")), seconds(5400));
        assert_eq!(parsed(json!("300ms")), Ok(Some(KeepAlive::For(Duration::from_millis(300)))));
        assert_eq!(parsed(json!("0")), seconds(0));
        assert_eq!(parsed(json!(0)), seconds(0));
        assert_eq!(parsed(json!(-1)), Ok(Some(KeepAlive::Ever)));
        assert_eq!(parsed(json!("-1m")), Ok(Some(KeepAlive::Ever)));
        assert_eq!(parsed(json!("3000000h")), Ok(Some(KeepAlive::Ever)));
        assert_eq!(parsed(json!(null)), Ok(None));
        // Clients whose settings are texts send these, and Ollama refuses them.
        assert_eq!(parsed(json!("300")), seconds(300));
        assert_eq!(parsed(json!("-1")), Ok(Some(KeepAlive::Ever)));
        assert!(parsed(json!("inf")).is_err());
        assert!(parsed(json!("")).is_err());
        assert!(parsed(json!("5 m")).is_err());
        assert!(parsed(json!(true)).is_err());
    }

    #[test]
    fn the_variable_takes_bare_seconds_too() {
        assert_eq!(KeepAlive::of_env("300"), Some(KeepAlive::For(Duration::from_secs(300))));
        assert_eq!(KeepAlive::of_env("-1"), Some(KeepAlive::Ever));
        assert_eq!(KeepAlive::of_env("24h"), Some(KeepAlive::For(Duration::from_secs(86_400))));
        assert_eq!(KeepAlive::of_env("soon"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in ".{0,40}") {
            let _ = KeepAlive::of_json(&json!(text));
            let _ = KeepAlive::of_env(&text);
        }

        #[test]
        fn whole_units_are_exact(count in 0_u64..1_000_000, unit in 0_usize..4) {
            let (name, nanos) = [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("us", 1_000)][unit];
            let text = format!("{count}{name}");
            prop_assert_eq!(parsed(json!(text)), Ok(Some(KeepAlive::For(Duration::from_nanos(count * nanos)))));
        }
    }
}
