//! The end of a rule in a trust file: `until=2026-12-31` or `until=1798761600`.

/// Days of the months of a common year.
const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const SECONDS_OF_DAY: u64 = 86_400;

/// The Unix second at which the rule is over, by the wall clock. A date counts to its end, in UTC. `None` if `word` is
/// neither form.
pub fn parse(word: &str) -> Option<u64> {
    let value = word.strip_prefix("until=")?;
    if value.contains('-') {
        return Some((days_before(value)? + 1) * SECONDS_OF_DAY);
    }
    digits(value, 1..=12)
}

/// Days from 1970-01-01 to this date; `None` if there is no such date, or an earlier one.
fn days_before(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4..=4)?;
    let month = digits(parts.next()?, 2..=2)?;
    let day = digits(parts.next()?, 2..=2)?;
    let month = usize::try_from(month).ok()?.checked_sub(1)?;
    let leap_day = u64::from(is_leap(year));
    let length = MONTHS.get(month)? + if month == 1 { leap_day } else { 0 };
    if parts.next().is_some() || year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let before = MONTHS[..month].iter().sum::<u64>() + if month > 1 { leap_day } else { 0 };
    Some((year - 1970) * 365 + leap_years_to(year - 1) - leap_years_to(1969) + before + day - 1)
}

/// How many years from 1 to this one have a 29th of February.
fn leap_years_to(year: u64) -> u64 {
    year / 4 - year / 100 + year / 400
}

fn is_leap(year: u64) -> bool {
    leap_years_to(year) > leap_years_to(year - 1)
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
        ] {
            assert_eq!(parse(word), Some(end), "{word}");
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
