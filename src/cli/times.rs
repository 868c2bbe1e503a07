//! Times in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::clock::{UnixMillis, UnixSeconds};

/// The system's time.
pub fn now() -> UnixSeconds {
    now_ms().seconds()
}

/// The same, exact to the millisecond.
pub fn now_ms() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis::ZERO + since.unwrap_or_default()
}

/// A day.
pub const DAY: Duration = Duration::from_secs(86_400);

/// The number of the day since 1970, in UTC.
pub fn day_of(time: UnixSeconds) -> u32 {
    time.get() / 86_400
}

/// `2026-11-25 13:45 UTC`.
pub fn point(time: UnixSeconds) -> String {
    match Timestamp::from_second(i64::from(time.get())) {
        Ok(known) => known.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => time.to_string(),
    }
}

/// `2026-11-25`, in UTC.
pub fn date(time: UnixSeconds) -> String {
    match Timestamp::from_second(i64::from(time.get())) {
        Ok(known) => known.strftime("%Y-%m-%d").to_string(),
        Err(_) => time.to_string(),
    }
}

/// `6 d 23 h`, `23 h 5 min`, `5 min`, `40 s`.
pub fn span(seconds: u32) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let minutes = seconds / 60 % 60;
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            point(UnixSeconds::new(1_795_300_250)),
            "2026-11-21 22:30 UTC"
        );
        for (seconds, text) in [
            (40, "40 s"),
            (300, "5 min"),
            (7_500, "2 h 5 min"),
            (604_799, "6 d 23 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
