//! What another node may do here, and how fast this one sends.

use std::time::Duration;

use crate::clock::{milliseconds, UnixMillis};

/// A node that asks for this many times its budget is not listened to for a while.
const EXCESS: u32 = 10;
/// For so long.
const QUARANTINE: Duration = Duration::from_secs(600);
/// A node may bring all that it has, whatever the budget, this often at most.
const WHOLE_SET_PAUSE: Duration = Duration::from_secs(600);

/// What one node may ban here.
#[derive(Clone, Copy, Debug, Default)]
pub struct BanBudget {
    minute: u32,
    spent: u32,
    refused: u32,
    quarantined_until: UnixMillis,
    whole_set_at: Option<UnixMillis>,
    whole_set_left: usize,
}

/// What became of one new address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It may be banned.
    Yes,
    /// Not in this minute.
    Later,
    /// The node has just asked for ten times its budget: nothing of it is taken for ten minutes.
    Quarantined,
}

impl BanBudget {
    /// The node sends all it has, `count` addresses at most, because it or this node has just come: that costs no
    /// budget, but not more often than every ten minutes.
    pub fn allow_whole_set(&mut self, now: UnixMillis, count: usize) {
        if self
            .whole_set_at
            .is_none_or(|last| now >= last + WHOLE_SET_PAUSE)
        {
            self.whole_set_at = Some(now);
            self.whole_set_left = count;
        }
    }

    /// Spends one of `limit` a minute for an address that is not banned here yet.
    pub fn spend(&mut self, now: UnixMillis, limit: u32) -> Allowed {
        if now < self.quarantined_until {
            return Allowed::Later;
        }
        let minute = now.seconds().minute();
        if self.minute != minute {
            (self.minute, self.spent, self.refused) = (minute, 0, 0);
        }
        if self.spent < limit {
            self.spent += 1;
            return Allowed::Yes;
        }
        if self.whole_set_left > 0 {
            self.whole_set_left -= 1;
            return Allowed::Yes;
        }
        self.refused += 1;
        if self.refused >= limit.saturating_mul(EXCESS - 1).max(1) {
            self.quarantined_until = now + QUARANTINE;
            return Allowed::Quarantined;
        }
        Allowed::Later
    }

    /// True if something may be spent now without being refused.
    pub fn has_left(&self, now: UnixMillis, limit: u32) -> bool {
        now >= self.quarantined_until
            && (self.minute != now.seconds().minute() || self.spent < limit)
    }

    /// True while nothing of the node is taken.
    pub fn is_quarantined(&self, now: UnixMillis) -> bool {
        now < self.quarantined_until
    }
}

/// Keeps a stream below so many a second; a short burst may be faster. Each message that waits for its answer takes
/// about 10 KB of Kamailio's shared memory for five seconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    burst: u64,
    per_second: u64,
    /// Thousandths.
    left: u64,
    at: UnixMillis,
}

impl Pace {
    /// `burst` at once, `per_second` in the long run.
    pub fn new(burst: u64, per_second: u64, now: UnixMillis) -> Self {
        Pace {
            burst,
            per_second,
            left: burst * 1000,
            at: now,
        }
    }

    /// How many may go now.
    pub fn left(&mut self, now: UnixMillis) -> u64 {
        let gained = milliseconds(now.since(self.at)).saturating_mul(self.per_second);
        self.left = self.left.saturating_add(gained).min(self.burst * 1000);
        self.at = self.at.max(now);
        self.left / 1000
    }

    /// One went.
    pub fn spend(&mut self) {
        self.left = self.left.saturating_sub(1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at_ms;

    #[test]
    fn a_minute_has_its_limit_and_excess_its_price() {
        let mut budget = BanBudget::default();
        let take = |budget: &mut BanBudget, now, count| {
            (0..count)
                .filter(|_| budget.spend(now, 10) == Allowed::Yes)
                .count()
        };
        assert_eq!(take(&mut budget, at_ms(60_000), 50), 10);
        assert!(!budget.has_left(at_ms(60_000), 10) && budget.has_left(at_ms(120_000), 10));
        assert_eq!(take(&mut budget, at_ms(120_000), 99), 10);
        assert!(!budget.is_quarantined(at_ms(120_000)));
        assert_eq!(budget.spend(at_ms(120_000), 10), Allowed::Quarantined);
        assert_eq!(take(&mut budget, at_ms(180_000), 5), 0);
        assert_eq!(take(&mut budget, at_ms(720_000), 5), 5);
    }

    #[test]
    fn a_whole_set_is_free_but_not_often() {
        let mut budget = BanBudget::default();
        budget.allow_whole_set(at_ms(0), 100);
        let taken = (0..150)
            .filter(|_| budget.spend(at_ms(0), 10) == Allowed::Yes)
            .count();
        assert_eq!(taken, 110);
        budget.allow_whole_set(at_ms(599_999), 100);
        assert_eq!(
            (0..50)
                .filter(|_| budget.spend(at_ms(599_999), 10) == Allowed::Yes)
                .count(),
            10
        );
        budget.allow_whole_set(at_ms(600_000), 100);
        assert!((0..110).all(|_| budget.spend(at_ms(600_000), 10) == Allowed::Yes));
    }

    #[test]
    fn a_pace_is_kept() {
        let mut pace = Pace::new(10, 100, at_ms(0));
        for _ in 0..10 {
            assert!(pace.left(at_ms(0)) > 0);
            pace.spend();
        }
        assert_eq!(
            (
                pace.left(at_ms(0)),
                pace.left(at_ms(9)),
                pace.left(at_ms(10)),
                pace.left(at_ms(1_000))
            ),
            (0, 0, 1, 10)
        );
    }
}
