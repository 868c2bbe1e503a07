//! The end of a rule in a trust file: `until=2026-12-31` or `until=1798761600`.

use std::time::Duration;

use jiff::civil::{date, Date};

use crate::clock::UnixSeconds;

const EPOCH: Date = date(1970, 1, 1);
const DAY: Duration = Duration::from_secs(86_400);

/// When the rule is over, by the wall clock. A date counts to its end, in UTC. `None` if `word` is neither form.
pub fn parse(word: &str) -> Option<UnixSeconds> {
    let value = word.strip_prefix("until=")?;
    if value.contains('-') {
        return Some(beginning(value)? + DAY);
    }
    digits(value, 1..=12).map(UnixSeconds::saturating)
}

/// When this date begins; `None` if there is no such date, or it is before 1970.
fn beginning(text: &str) -> Option<UnixSeconds> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4..=4)?;
    let month = digits(parts.next()?, 2..=2)?;
    let day = digits(parts.next()?, 2..=2)?;
    if parts.next().is_some() {
        return None;
    }
    let date = Date::new(
        year.try_into().ok()?,
        month.try_into().ok()?,
        day.try_into().ok()?,
    )
    .ok()?;
    let seconds = u64::try_from(date.duration_since(EPOCH).as_secs()).ok()?;
    Some(UnixSeconds::saturating(seconds))
}

/// A number of this many digits, and nothing else.
fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let plain = length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_counts_to_its_end() {
        for (word, end) in [
            ("until=1970-01-01", 86_400),
            ("until=2000-02-29", 951_868_800),
            ("until=2000-03-01", 951_955_200),
            ("until=2026-12-31", 1_798_761_600),
            ("until=2028-02-29", 1_835_481_600),
            ("until=2100-03-01", 4_107_628_800),
            ("until=1798761600", 1_798_761_600),
            ("until=0", 0),
            ("until=999999999999", u32::MAX),
            ("until=9999-12-31", u32::MAX),
        ] {
            assert_eq!(parse(word), Some(UnixSeconds::new(end)), "{word}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for word in [
            "until=",
            "until",
            "2026-12-31",
            "until=2026-02-29",
            "until=2100-02-29",
            "until=2026-13-01",
            "until=2026-00-01",
            "until=2026-01-00",
            "until=2026-1-1",
            "until=1969-12-31",
            "until=2026-12-31-",
            "until=31.12.2026",
            "until=-1",
            "until=+5",
            "until=tomorrow",
            "UNTIL=2026-12-31",
        ] {
            assert_eq!(parse(word), None, "{word}");
        }
    }
}
