//! Moments and spans of time, for people: `2024-01-31`, `2024-01-31T08:15:00Z`, `1034 days ago`, `1 h 2 min`.

use std::time::Duration;

/// The day of a moment since the Unix epoch in UTC, as `YYYY-MM-DD`.
pub fn date(moment: Duration) -> String {
    let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(moment) => moment.strftime("%Y-%m-%d").to_string(),
        // RFC 5280 §4.1.2.5 knows no year after 9999.
        Err(_) => "9999-12-31".to_owned(),
    }
}

/// A moment since the Unix epoch in UTC, to the second, as RFC 3339 writes it: `2024-01-31T08:15:00Z`.
pub fn moment(moment: Duration) -> String {
    let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(moment) => moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "9999-12-31T23:59:59Z".to_owned(),
    }
}

/// A span of time by its two largest units: `40 s`, `3 min 20 s`, `1 h 2 min`, `3 d 4 h`.
pub fn span_text(span: Duration) -> String {
    let seconds = span.as_secs();
    let (larger, in_larger, smaller, in_smaller) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => ("min", 60, "s", 1),
        3_600..86_400 => ("h", 3_600, "min", 60),
        _ => ("d", 86_400, "h", 3_600),
    };
    match seconds % in_larger / in_smaller {
        0 => format!("{} {larger}", seconds / in_larger),
        rest => format!("{} {larger} {rest} {smaller}", seconds / in_larger),
    }
}

/// How far a moment is from now: `today`, `in 3 days`, `1034 days ago`.
pub(crate) fn days_text(now: Duration, moment: Duration) -> String {
    let days = |from: Duration, to: Duration| (to.as_secs() - from.as_secs()) / 86_400;
    let count = |days: u64| if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
    if moment <= now {
        match days(moment, now) {
            0 => "less than a day ago".to_owned(),
            past => format!("{} ago", count(past)),
        }
    } else {
        match days(now, moment) {
            0 => "in less than a day".to_owned(),
            left => format!("in {}", count(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_days() {
        let day = |count: u64| Duration::from_secs(count * 86_400);
        assert_eq!(date(Duration::ZERO), "1970-01-01");
        assert_eq!(date(Duration::from_secs(1_706_659_200)), "2024-01-31");
        assert_eq!(date(Duration::from_secs(u64::MAX)), "9999-12-31");
        assert_eq!(moment(Duration::from_secs(1_706_688_900)), "2024-01-31T08:15:00Z");
        assert_eq!(moment(Duration::from_secs(u64::MAX)), "9999-12-31T23:59:59Z");
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (200, "3 min 20 s"),
            (3_600, "1 h"),
            (3_720, "1 h 2 min"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d"),
            (100 * 86_400 + 4 * 3_600 + 59, "100 d 4 h"),
        ] {
            assert_eq!(span_text(Duration::from_secs(seconds)), text);
        }
        for (now, moment, text) in [
            (10, 10, "less than a day ago"),
            (11, 10, "1 day ago"),
            (1044, 10, "1034 days ago"),
            (10, 11, "in 1 day"),
            (10, 40, "in 30 days"),
        ] {
            assert_eq!(days_text(day(now), day(moment)), text);
        }
        assert_eq!(days_text(day(1), day(2) - Duration::from_secs(1)), "in less than a day");
    }
}
