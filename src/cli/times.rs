//! Unix seconds in words.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The system's time in Unix seconds.
pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

/// The same in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// `2026-11-25 13:45 UTC`.
pub fn point(unix: u32) -> String {
    match Timestamp::from_second(i64::from(unix)) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => unix.to_string(),
    }
}

/// `2026-11-25`, in UTC.
pub fn date(unix: u32) -> String {
    match Timestamp::from_second(i64::from(unix)) {
        Ok(time) => time.strftime("%Y-%m-%d").to_string(),
        Err(_) => unix.to_string(),
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
        assert_eq!(point(1_795_300_250), "2026-11-21 22:30 UTC");
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
