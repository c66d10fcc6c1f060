//! Points in time as clients want them: RFC 3339.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Now, in UTC, to the nanosecond: `created_at`.
#[must_use]
pub fn now_utc() -> String {
    Timestamp::now().to_string()
}

/// A time with the offset of this machine: `modified_at`, `expires_at`. Times that no calendar holds give its
/// end.
#[must_use]
pub fn local(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    let zoned = timestamp.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

/// A time in seconds since 1970: `created` of OpenAI's protocol.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same, now.
#[must_use]
pub fn unix_seconds_now() -> u64 {
    unix_seconds(SystemTime::now())
}

/// "For ever" as Go has it: the longest duration it can say, 292 years, from now.
#[must_use]
pub fn for_ever() -> SystemTime {
    SystemTime::now() + Duration::from_nanos(i64::MAX.unsigned_abs())
}

/// Nanoseconds of a duration as an answer has them; at least 1, because 0 means absent.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_an_offset() {
        let text = local(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789));
        assert!(text.parse::<Timestamp>().is_ok(), "{text}");
        assert!(text.contains(".123456789"), "{text}");
        assert!(now_utc().ends_with('Z'));
    }

    #[test]
    fn for_ever_is_a_date_that_can_be_written() {
        let text = local(for_ever());
        let year: i32 = text[..4].parse().unwrap();
        assert!(year > 2300, "{text}");
    }
}
