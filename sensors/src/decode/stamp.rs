//! The times that devices write: Unix seconds, milliseconds or microseconds, and ISO 8601 with a zone.
//!
//! A time without a zone is no time: it may be hours off, so it counts as absent unless the profile says the zone.

use crate::decode::json::Scalar;
use crate::time::Wall;

/// How a device writes its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// Text is ISO 8601; a number is milliseconds from 1973 on (1e11), else seconds.
    #[default]
    Auto,
    /// Seconds, whole or not.
    UnixSeconds,
    UnixMillis,
    UnixMicros,
    Iso8601,
}

impl TimeFormat {
    pub const CHOICES: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("unix_s", Self::UnixSeconds),
        ("unix_ms", Self::UnixMillis),
        ("unix_us", Self::UnixMicros),
        ("iso8601", Self::Iso8601),
    ];

    /// The time, or `None` for what is no time in this format.
    pub fn read(self, scalar: &Scalar<'_>, zone: Option<Zone>) -> Option<Wall> {
        match scalar {
            Scalar::Number(text) => self.number(text),
            Scalar::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => self.number(text),
            Scalar::Text(text) if matches!(self, Self::Auto | Self::Iso8601) => iso8601(text, zone),
            _ => None,
        }
    }

    fn number(self, text: &str) -> Option<Wall> {
        // Whole numbers stay whole: an f64 would lose microseconds.
        let whole = text.parse::<i64>().ok();
        let micros = |per: i64| match whole {
            Some(whole) => whole.checked_mul(per),
            None => {
                let micros = text.parse::<f64>().ok()? * per as f64;
                (micros.abs() < 9e18).then_some(micros as i64)
            }
        };
        let micros = match self {
            Self::Auto if whole.is_some_and(|whole| whole.unsigned_abs() >= 100_000_000_000) => micros(1_000),
            Self::Auto | Self::UnixSeconds => micros(1_000_000),
            Self::UnixMillis => micros(1_000),
            Self::UnixMicros => micros(1),
            Self::Iso8601 => None,
        };
        micros.map(Wall::from_micros)
    }
}

/// Seconds east of Greenwich.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(i64);

impl Zone {
    /// `Z`, `+08:00`, `+0800`, `+08`.
    pub fn parse(text: &str) -> Option<Self> {
        if matches!(text, "Z" | "z") {
            return Some(Self(0));
        }
        let sign = match text.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
        if !digits.is_ascii() {
            return None;
        }
        let (hours, minutes) = match digits.len() {
            2 => (number(&digits)?, 0),
            4 => (number(&digits[..2])?, number(&digits[2..])?),
            _ => return None,
        };
        (hours <= 23 && minutes <= 59).then_some(Self(sign * (hours * 3_600 + minutes * 60)))
    }
}

/// `2026-03-01T09:30:00.25+08:00`, `2026-03-01 09:30Z`, `20260301T013000Z`. `zone` counts where the text has none.
pub fn iso8601(text: &str, zone: Option<Zone>) -> Option<Wall> {
    let text = text.trim();
    if !text.is_ascii() || text.len() > 40 {
        return None;
    }
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let date: String = date.chars().filter(|c| *c != '-').collect();
    if date.len() != 8 {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
    let end = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, tail) = rest.split_at(end);
    let zone = if tail.is_empty() { zone? } else { Zone::parse(tail)? };
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let clock: String = clock.chars().filter(|c| *c != ':').collect();
    let (hour, minute, second) = match clock.len() {
        4 => (number(&clock[..2])?, number(&clock[2..])?, 0),
        6 => (number(&clock[..2])?, number(&clock[2..4])?, number(&clock[4..])?),
        _ => return None,
    };
    // 60: a leap second, which counts as the first second of the next minute.
    let sound = (1..=days_in(year, month)?).contains(&day) && hour <= 23 && minute <= 59 && second <= 60;
    if !sound || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - zone.0;
    Some(Wall::from_micros(seconds * 1_000_000 + number(&micros)?))
}

fn number(digits: &str) -> Option<i64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn days_in(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn device_times_are_read_in_every_dialect() {
        let moment = Some(Wall::from_millis(1_772_328_600_000));
        for (format, text, quoted, wanted) in [
            (TimeFormat::Auto, "1772328600000", false, moment),
            (TimeFormat::Auto, "1772328600", false, moment),
            (TimeFormat::Auto, "1772328600.42", false, Some(Wall::from_millis(1_772_328_600_420))),
            (TimeFormat::UnixSeconds, "1772328600.000001", false, Some(Wall::from_micros(1_772_328_600_000_001))),
            (TimeFormat::UnixMillis, "1772328600000", true, moment),
            (TimeFormat::UnixMicros, "1772328600000000", false, moment),
            (TimeFormat::Auto, "2026-03-01T09:30:00+08:00", true, moment),
            (TimeFormat::Auto, "2026-03-01T01:30:00Z", true, moment),
            (TimeFormat::Auto, "2026-03-01 01:30Z", true, moment),
            (TimeFormat::Iso8601, "20260301T013000Z", true, moment),
            (TimeFormat::Iso8601, "2026-02-28T20:30:00-0500", true, moment),
            (TimeFormat::Iso8601, "2026-03-01T01:30:00.25Z", true, Some(Wall::from_millis(1_772_328_600_250))),
            (TimeFormat::Iso8601, "1969-12-31T23:59:59.5Z", true, Some(Wall::from_millis(-500))),
            (TimeFormat::Iso8601, "2000-02-29T00:00:00Z", true, Some(Wall::from_millis(951_782_400_000))),
            (TimeFormat::Auto, "0", false, Some(Wall::from_millis(0))),
            // Without a zone nobody knows when that was.
            (TimeFormat::Auto, "2026-03-01T09:30:00", true, None),
            (TimeFormat::Iso8601, "2100-02-29T00:00:00Z", true, None),
            (TimeFormat::Iso8601, "2026-13-01T00:00:00Z", true, None),
            (TimeFormat::Iso8601, "2026-03-01T25:00:00Z", true, None),
            (TimeFormat::Iso8601, "2026-03-01", true, None),
            (TimeFormat::Iso8601, "1772328600", false, None),
            (TimeFormat::UnixMillis, "2026-03-01T01:30:00Z", true, None),
            (TimeFormat::Auto, "1e400", false, None),
            (TimeFormat::Auto, "99999999999999999999", false, None),
            (TimeFormat::Auto, "昨天", true, None),
            (TimeFormat::Auto, "", true, None),
        ] {
            let scalar = if quoted { Scalar::Text(Cow::Borrowed(text)) } else { Scalar::Number(text) };
            assert_eq!(format.read(&scalar, None), wanted, "{format:?} {text}");
        }
    }

    #[test]
    fn a_zone_that_the_profile_knows_makes_a_local_time_usable() {
        let zone = Zone::parse("+08:00");
        assert_eq!(iso8601("2026-03-01T09:30:00", zone), Some(Wall::from_millis(1_772_328_600_000)));
        assert_eq!(iso8601("2026-03-01T01:30:00Z", zone), Some(Wall::from_millis(1_772_328_600_000)));
        // The last three have as many bytes as a zone, and fewer letters.
        for text in ["8", "+25:00", "", "+8", "+:", "+é", "+0€", "+€0"] {
            assert_eq!(Zone::parse(text), None, "{text:?}");
        }
    }
}
