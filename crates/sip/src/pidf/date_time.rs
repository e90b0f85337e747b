//! Times in presence documents (RFC 3339), in UTC and to the millisecond. Text and time since the Unix epoch go in
//! and out; no clock is read.

use std::{fmt::Write, time::Duration};

const DAY: u64 = 86_400;

/// Writes `wall`, the time since the Unix epoch, as `2026-10-02T08:30:00.123Z`.
///
/// Years after 9999 are written as the end of 9999.
pub fn date_time(wall: Duration) -> String {
    // The last millisecond of 9999.
    let wall = wall.min(Duration::from_millis(253_402_300_799_999));
    let (days, seconds) = (wall.as_secs() / DAY, wall.as_secs() % DAY);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::with_capacity(24);
    let millis = wall.subsec_millis();
    write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
        .expect("a String takes all text");
    text
}

/// Reads a time of RFC 3339 §5.6 as time since the Unix epoch; `None` when it is none, or before 1970.
///
/// `t` and `z` are taken too. A leap second is the second after it.
pub fn parse_date_time(text: &str) -> Option<Duration> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes()[10], b'T' | b't') {
        return None;
    }
    let [year, month, day] = fields(date, [4, 2, 2], '-')?;
    if !(1..=12).contains(&month) || day == 0 || day > month_len(year, month) {
        return None;
    }
    let [hour, minute, second] = fields(time.get(..8)?, [2, 2, 2], ':')?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &time[8..];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        for place in 0..9 {
            let digit = fraction.as_bytes()[..len].get(place).map_or(0, |digit| u32::from(digit - b'0'));
            nanos = nanos * 10 + digit;
        }
        rest = &fraction[len..];
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = fields(rest.get(1..)?, [2, 2], ':')?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            match rest.as_bytes()[0] {
                b'+' => seconds,
                b'-' => -seconds,
                _ => return None,
            }
        }
    };
    let seconds = days_of(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second) - offset;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// Splits `text` at `separator` into numbers with exactly so many digits each.
fn fields<const N: usize>(text: &str, lens: [usize; N], separator: char) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, len) in numbers.iter_mut().zip(lens) {
        let part = parts.next()?;
        if part.len() != len || !part.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn month_len(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date; negative before it. Years are counted from March, so that a leap day is the last.
fn days_of(year: u32, month: u32, day: u32) -> i64 {
    let (year, month) = (i64::from(year) - i64::from(month < 3), i64::from((month + 9) % 12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    // 719,468 days lie between the first of March of year 0 and the epoch.
    365 * year + leap_days + day_of_year - 719_468
}

/// Year, month and day of the day that is `days` after 1970-01-01; the reverse of [`days_of`].
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month < 3), month, day)
}

/// Gives the timestamps of one presentity's documents: no two are the same (RFC 3863 §4.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    last_millis: u64,
}

impl Timestamps {
    /// The timestamp for a document made at `wall`, the time since the Unix epoch: a millisecond after the last one
    /// where the clock has not moved that far, or went back.
    pub fn next(&mut self, wall: Duration) -> String {
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        self.last_millis = millis.max(self.last_millis.saturating_add(1));
        date_time(Duration::from_millis(self.last_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_004_201_369, "2001-10-27T16:49:29.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            let wall = Duration::from_secs(seconds);
            assert_eq!(date_time(wall), text);
            assert_eq!(parse_date_time(text), Some(wall), "{text}");
        }
        assert_eq!(date_time(Duration::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_of_four_centuries_is_read_back() {
        for day in 0..146_097 {
            let wall = Duration::from_secs(day * DAY + day % DAY);
            assert_eq!(parse_date_time(&date_time(wall)), Some(wall));
        }
    }

    #[test]
    fn offsets_fractions_and_small_letters_are_read() {
        let noon = parse_date_time("2004-10-21T12:00:00Z");
        assert!(noon.is_some());
        for same in [
            "2004-10-21T07:00:00-05:00",
            "2004-10-21t17:30:00.0+05:30",
            "2004-10-21T12:00:00z",
            "2004-10-21T11:59:60Z",
            "2004-10-21T12:00:00.0000000004Z",
        ] {
            assert_eq!(parse_date_time(same), noon, "{same}");
        }
        assert_eq!(parse_date_time("1970-01-01T00:00:00.25Z"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for wrong in [
            "",
            "2004-10-21",
            "2004-10-21T12:00:00",
            "2004-10-21 12:00:00Z",
            "2004-13-01T12:00:00Z",
            "2003-02-29T12:00:00Z",
            "2004-00-10T12:00:00Z",
            "2004-10-00T12:00:00Z",
            "2004-10-21T24:00:00Z",
            "2004-10-21T12:60:00Z",
            "2004-10-21T12:00:61Z",
            "2004-10-21T12:00:00.Z",
            "2004-10-21T12:00:00+5:00",
            "2004-10-21T12:00:00+05:00x",
            "2004-10-21T12:00:00*05:00",
            "+004-10-21T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "2004-10-2éT12:00:00Z",
            "2004-10-21T12:00:00é",
        ] {
            assert_eq!(parse_date_time(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn timestamps_of_fast_changes_differ_and_have_upper_case_letters() {
        let mut timestamps = Timestamps::default();
        let wall = Duration::from_secs(1_004_201_369);
        let first = timestamps.next(wall);
        assert_eq!(first, "2001-10-27T16:49:29.000Z");
        let mut last = first;
        // The same moment, and a clock that went back.
        for wall in [wall, wall, wall - Duration::from_secs(3600)] {
            let next = timestamps.next(wall);
            assert!(parse_date_time(&next) > parse_date_time(&last), "{next} after {last}");
            last = next;
        }
        assert_eq!(timestamps.next(wall + Duration::from_secs(1)), "2001-10-27T16:49:30.000Z");
    }
}
