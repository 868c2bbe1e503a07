//! How many packets of banned sources are let through: by them the sources are still seen and counted.
//!
//! Each of them wakes a worker, which takes some ten microseconds. So they are few in a flood, in which few are
//! enough to show the source.

use std::time::{Duration, Instant};

/// One packet in so many is let through as long as few come. A power of two.
pub const OFTEN: u32 = 256;
/// One packet in so many is let through in a flood. A power of two.
pub const SELDOM: u32 = 16_384;

/// A flood begins with more dropped packets a second.
const FLOOD: u64 = 1_000;
/// A flood ends when there are not more a second, for as long as [`CALM_FOR`].
const CALM: u64 = 500;
const CALM_FOR: Duration = Duration::from_secs(60);
/// Two looks that are closer tell no rate.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the count of dropped packets.
#[derive(Debug)]
pub struct Pace {
    one_in: u32,
    looked: Instant,
    dropped: u64,
    /// When more than [`CALM`] packets a second were last seen.
    busy: Instant,
}

impl Pace {
    /// No packet was dropped before `now`.
    pub fn new(now: Instant) -> Self {
        Pace {
            one_in: OFTEN,
            looked: now,
            dropped: 0,
            busy: now,
        }
    }

    /// One packet in so many is to be let through: [`OFTEN`] or [`SELDOM`].
    pub fn one_in(&self) -> u32 {
        self.one_in
    }

    /// Takes a look at the count of all packets `dropped` so far. True if [`Pace::one_in`] is another now.
    pub fn follow(&mut self, dropped: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        if passed < LOOK {
            return false;
        }
        let rate = dropped.saturating_sub(self.dropped) as f64 / passed.as_secs_f64();
        (self.looked, self.dropped) = (now, dropped);
        if rate > CALM as f64 {
            self.busy = now;
        }
        let before = self.one_in;
        if rate > FLOOD as f64 {
            self.one_in = SELDOM;
        } else if now.saturating_duration_since(self.busy) >= CALM_FOR {
            self.one_in = OFTEN;
        }
        self.one_in != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_come_through_in_a_flood_and_until_a_while_after_it() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut pace = Pace::new(begin);
        assert!(!pace.follow(1_000, at(1_000)));
        // Too close to the last look: this belongs to the next one.
        assert!(!pace.follow(9_000, at(1_400)));
        assert_eq!(pace.one_in(), OFTEN);
        assert!(pace.follow(9_000, at(2_000)));
        assert_eq!(pace.one_in(), SELDOM);
        // Less than a flood, and more than calm.
        assert!(!pace.follow(9_000 + 60 * 700, at(62_000)));
        assert!(!pace.follow(60_000, at(121_999)));
        assert!(pace.follow(60_000, at(122_500)));
        assert_eq!(pace.one_in(), OFTEN);
        // A count that begins again is no flood.
        assert!(!pace.follow(0, at(123_500)));
    }
}
