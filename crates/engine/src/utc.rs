//! Points in time as text, in UTC.

use std::fmt::Write as _;

const NANOSECONDS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A point in time, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    second_of_day: u32,
    nanosecond: u32,
}

impl Civil {
    /// From nanoseconds since the Unix epoch.
    fn from_unix_ns(time_ns: i64) -> Self {
        let seconds = time_ns.div_euclid(NANOSECONDS);
        let (year, month, day) = date(seconds.div_euclid(DAY_SECONDS));
        Self {
            year,
            month,
            day,
            second_of_day: seconds.rem_euclid(DAY_SECONDS) as u32,
            nanosecond: time_ns.rem_euclid(NANOSECONDS) as u32,
        }
    }

    const fn clock(&self) -> (u32, u32, u32) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }
}

/// Year, month and day of a day counted from the Unix epoch, in the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of a year, and in eras of 400 years, which all have the same length.
fn date(day: i64) -> (i64, u32, u32) {
    const ERA_DAYS: i64 = 146_097;
    const EPOCH_FROM_YEAR_0: i64 = 719_468;
    let day = day + EPOCH_FROM_YEAR_0;
    let of_era = day.rem_euclid(ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + day.div_euclid(ERA_DAYS) * 400 + i64::from(month <= 2);
    (year, month as u32, day_of_month as u32)
}

/// Appends `2026-11-22T22:45:45.123456789Z` (RFC 3339).
pub(crate) fn write_rfc3339(out: &mut String, time_ns: i64) {
    let civil = Civil::from_unix_ns(time_ns);
    let (hour, minute, second) = civil.clock();
    let Civil { year, month, day, nanosecond, .. } = civil;
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z");
}

/// Appends `22:45:45.123456`.
pub(crate) fn write_clock(out: &mut String, time_ns: i64) {
    let civil = Civil::from_unix_ns(time_ns);
    let (hour, minute, second) = civil.clock();
    let _ = write!(out, "{hour:02}:{minute:02}:{second:02}.{:06}", civil.nanosecond / 1000);
}

/// `2026-11-22 22:45:45 UTC`.
pub(crate) fn readable(time_ns: i64) -> String {
    let civil = Civil::from_unix_ns(time_ns);
    let (hour, minute, second) = civil.clock();
    let Civil { year, month, day, .. } = civil;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(time_ns: i64) -> String {
        let mut out = String::new();
        write_rfc3339(&mut out, time_ns);
        out
    }

    // Dates as `date -u -d @N +%FT%T` prints them.
    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_709_210_096_000_000_789), "2024-02-29T12:34:56.000000789Z");
        assert_eq!(rfc3339(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(i64::MIN), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    }
}
