//! Moments in certificates, for people: `2024-01-31`, `1034 days ago`.

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
