//! The service's control ID: a position in its list.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;

/// Longest control ID in digits: what an unsigned 64-bit number may have.
const MAX_DIGITS: usize = 20;
/// Oldest control ID that is taken for a time: no list goes back further.
const MAX_AGE: Duration = Duration::from_secs(30 * 86_400);
/// How far the service's clock may be ahead of ours, and how far a saved end may lie beyond
/// `feed_ttl` for the same reason.
pub const MAX_SKEW: Duration = Duration::from_secs(300);
/// The smallest control ID that must be a Unix time in seconds: mid-2017. Smaller ones may be counters.
const FIRST_TIME: u128 = 1_500_000_000;

/// A control ID: 1 to 20 ASCII digits, kept as the service wrote them. Safe in a URL and in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ControlId(String);

/// The text is not 1 to 20 ASCII digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a control ID has 1 to 20 digits")]
pub struct BadControlId;

impl ControlId {
    /// Takes 1 to 20 ASCII digits.
    pub fn new(text: &str) -> Result<Self, BadControlId> {
        let plain =
            (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| ControlId(text.to_owned()))
            .ok_or(BadControlId)
    }

    /// What version 2 of the interface takes for the beginning of the list.
    pub const BEGINNING: &'static str = "100";

    /// The beginning of the list.
    pub fn beginning() -> Self {
        ControlId(Self::BEGINNING.to_owned())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if this position lies behind `other` in the list.
    pub fn is_after(&self, other: &ControlId) -> bool {
        self.value() > other.value()
    }

    /// When the page's last address was listed. `None` if that is not plausible: more than 5 minutes
    /// after `now`, or more than 30 days or `feed_ttl` before it, since a live service lists nothing that has ended.
    pub fn listed_at(&self, now: UnixSeconds, feed_ttl: Duration) -> Option<UnixSeconds> {
        let time = UnixSeconds::new(u32::try_from(self.value()).ok()?);
        let max_age = feed_ttl.min(MAX_AGE);
        (time <= now + MAX_SKEW && time + max_age > now).then_some(time)
    }

    /// True if this is a time that lies `feed_ttl` or more before `now`. On the
    /// page of a live service it proves that our clock is ahead, or `feed_ttl` too short.
    pub fn is_too_old(&self, now: UnixSeconds, feed_ttl: Duration) -> bool {
        let end = self.value().saturating_add(feed_ttl.as_secs().into());
        self.value() >= FIRST_TIME && end <= now.get().into()
    }

    fn value(&self) -> u128 {
        // 20 digits always fit.
        self.0.parse().unwrap_or(0)
    }
}

impl fmt::Display for ControlId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ControlId {
    type Error = BadControlId;

    fn try_from(text: String) -> Result<Self, BadControlId> {
        ControlId::new(&text)
    }
}

impl From<ControlId> for String {
    fn from(id: ControlId) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_only() {
        for bad in [
            "",
            "none",
            "-1",
            "+1",
            "1 ",
            "1.5",
            "123456789012345678901",
            "１",
        ] {
            assert!(ControlId::new(bad).is_err(), "{bad}");
        }
        let longest = ControlId::new("99999999999999999999").unwrap();
        assert!(longest.is_after(&ControlId::new("100").unwrap()));
        assert!(!ControlId::new("0100")
            .unwrap()
            .is_after(&ControlId::new("100").unwrap()));
        assert!(serde_json::from_str::<ControlId>("\"1/../x\"").is_err());
    }

    #[test]
    fn a_time_only_if_plausible() {
        let now = UnixSeconds::new(1_795_300_000);
        let id = |time: UnixSeconds| ControlId::new(&time.to_string()).unwrap();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let (day, year) = (days(1), days(365));
        for (shift, ttl, plausible) in [
            (-60, day, true),
            (300, day, true),
            (301, day, false),
            (1 - 86_400, day, true),
            (-86_400, day, false),
            (1 - 30 * 86_400, year, true),
            (-30 * 86_400, year, false),
        ] {
            let time = now.shifted(shift);
            let listed = id(time).listed_at(now, ttl);
            assert_eq!(listed, plausible.then_some(time), "{shift}");
        }
        let counter = ControlId::beginning();
        assert_eq!(counter.listed_at(now, day), None);
        assert!(id(now.before(day)).is_too_old(now, day));
        assert!(!id(now.before(day).shifted(1)).is_too_old(now, day));
        assert!(!counter.is_too_old(now, day));
    }
}
