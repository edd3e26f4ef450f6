//! Times of day as they are written and shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Unix time in microseconds, UTC, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time of day in UTC such as 2026-09-21, 2026-09-21T10:00 or 2026-09-21T10:00:07.048Z")]
pub struct InvalidTime;

impl fmt::Display for Timestamp {
    /// `2026-09-21 10:00:07.048`, UTC: ISO 8601 with the space that RFC 3339 §5.6 allows, which spreadsheets take for a
    /// time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / DAY);
        let (seconds, millis) = (self.0 % DAY / SECOND, self.0 % SECOND / 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTime;

    /// A date, or a date and a time to the minute, second or any fraction, with `T` or a space between, `Z` or nothing
    /// at the end.
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
        let date: Vec<&str> = date.split('-').collect();
        let [year, month, day] = date[..] else { return Err(InvalidTime) };
        let (year, month, day) = (number(year, 4, 1970..=9999)?, number(month, 2, 1..=12)?, number(day, 2, 1..=31)?);
        let days = days(year, month, day);
        if civil(days) != (year, month, day) {
            return Err(InvalidTime);
        }
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        let time: Vec<&str> = time.split(':').collect();
        let (hour, minute, second) = match time[..] {
            [hour, minute] if fraction.is_empty() => (hour, minute, "00"),
            [hour, minute, second] => (hour, minute, second),
            _ => return Err(InvalidTime),
        };
        let (hour, minute) = (number(hour, 2, 0..=23)?, number(minute, 2, 0..=59)?);
        let second = number(second, 2, 0..=59)?;
        let micros = if fraction.is_empty() { 0 } else { number(&format!("{fraction:0<6}"), 6, 0..=999_999)? };
        Ok(Self(days * DAY + (hour * 3600 + minute * 60 + second) * SECOND + micros))
    }
}

fn number(text: &str, digits: usize, allowed: std::ops::RangeInclusive<u64>) -> Result<u64, InvalidTime> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidTime);
    }
    text.parse().ok().filter(|n| allowed.contains(n)).ok_or(InvalidTime)
}

/// Years of the Gregorian calendar repeat after so many days.
const DAYS_OF_400_YEARS: u64 = 146_097;

/// Days from the first of March of the year 0 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Year, month and day of a day since 1970. Years begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// The other way round.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year) = (year / 400, year % 400);
    let month = (month + 9) % 12;
    era * DAYS_OF_400_YEARS + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - EPOCH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_shown_and_read() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000"),
            (1_790_000_007_048_999, "2026-09-21 14:13:27.048"),
            (4_107_542_399_999_000, "2100-02-28 23:59:59.999"),
            (4_107_542_400_000_000, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(Timestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(micros / 1000 * 1000)));
        }
        let noon: Timestamp = "2026-09-21T12:00Z".parse().unwrap();
        assert_eq!("2026-09-21 12:00:00.5".parse(), Ok(Timestamp(noon.0 + 500_000)));
        assert_eq!("2026-09-21".parse(), Ok(Timestamp(noon.0 - 12 * 3600 * SECOND)));
        assert!(!Timestamp(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2026-09-21T24:00",
            "2026-09-21T10",
            "26-09-21",
            "2026-09-21T10:00.5",
            "2026-09-21T10:00:00.1234567",
            "2026-09-21T+1:00",
            "2026-09-21T10:00:00+02:00",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTime), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0..253_402_300_800_000_u64) {
            let time = Timestamp(millis * 1000);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ: .-]{0,30}", other: String) {
            let _ = (text.parse::<Timestamp>(), other.parse::<Timestamp>());
        }
    }
}
