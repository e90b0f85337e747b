//! Dates as both protocols write them (RFC 3339, XEP-0082): seconds since the Unix epoch to text and back.

use jiff::Timestamp;

/// `2026-11-24T08:30:00Z` for seconds since the Unix epoch; the epoch itself for what lies beyond the year 9999.
pub fn utc_text(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    timestamp.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Seconds since the Unix epoch for an RFC 3339 text; `None` when it is none, or before the epoch.
pub fn seconds_of(text: &str) -> Option<u64> {
    // The profile wants the `T` (XEP-0082 §3.2), which the parser would let a space stand for.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_505_445, "2026-11-24T07:30:45Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc_text(seconds), text);
            assert_eq!(seconds_of(text), Some(seconds));
        }
    }

    #[test]
    fn offsets_and_fractions_are_read_and_nonsense_is_not() {
        assert_eq!(seconds_of("2000-02-29T01:30:00.25+01:30"), Some(951_782_400));
        assert_eq!(seconds_of("2000-02-28T22:30:00-01:30"), Some(951_782_400));
        for text in [
            "",
            "2000-02-29",
            "2000-13-01T00:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2000-01-01 00:00:00Z",
            "20é0-01-01T00:00:00Z",
        ] {
            assert_eq!(seconds_of(text), None, "{text:?}");
        }
    }
}
