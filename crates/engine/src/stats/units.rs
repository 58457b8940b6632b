//! Numbers as people read them.

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds with three significant digits: `1.20 µs`, `14.2 µs`, `380 ns`.
#[must_use]
pub fn duration(nanoseconds: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)];
    if nanoseconds < 1000 {
        return format!("{nanoseconds} ns");
    }
    let value = nanoseconds as f64;
    // 999.9995 µs is a millisecond: a unit begins where the smaller one would need a fourth digit.
    let found = UNITS.iter().find(|(_, unit)| value >= unit * 0.9995);
    let (name, unit) = found.copied().unwrap_or(("ns", 1.0));
    format!("{} {name}", three_digits(value / unit))
}

/// A large number in short: `950`, `12.3 k`, `1.25 M`.
#[must_use]
pub fn short(value: f64) -> String {
    const UNITS: [(&str, f64); 3] = [(" G", 1e9), (" M", 1e6), (" k", 1e3)];
    let found = UNITS.iter().find(|(_, unit)| value >= unit * 0.9995);
    let (name, unit) = found.copied().unwrap_or(("", 1.0));
    let text = three_digits(value / unit);
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{trimmed}{name}")
}

/// Seconds as `850 ms`, `12.3 s`, `4 min 05 s`, `2 h 07 min`.
#[must_use]
pub fn seconds(value: f64) -> String {
    if value < 60.0 {
        return duration((value.max(0.0) * 1e9) as u64);
    }
    let whole = value.round() as u64;
    match whole {
        0..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// A share in percent: `12 %`, `0.4 %`, `< 0.1 %`.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    match share {
        _ if part == 0 => "0 %".to_owned(),
        share if share < 0.1 => "< 0.1 %".to_owned(),
        share if share < 10.0 => format!("{share:.1} %"),
        share => format!("{share:.0} %"),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_rounded() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let durations = [380, 999, 1200, 14_200, 999_499, 999_999, 2_500_000, 61_000_000_000].map(duration);
        assert_eq!(
            durations,
            ["380 ns", "999 ns", "1.20 µs", "14.2 µs", "999 µs", "1.00 ms", "2.50 ms", "61.0 s"]
        );
        assert_eq!([0.0, 950.0, 12_300.0, 1e6].map(short), ["0", "950", "12.3 k", "1 M"]);
        assert_eq!(
            [0.85, 12.3, 245.0, 7620.0].map(seconds),
            ["850 ms", "12.3 s", "4 min 05 s", "2 h 07 min"]
        );
        assert_eq!(
            [percent(0, 5), percent(1, 9999), percent(1, 30), percent(1, 2)],
            ["0 %", "< 0.1 %", "3.3 %", "50 %"]
        );
    }
}
