//! The service's bookmark in its list.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest control ID in digits: what an unsigned 64-bit number may have.
const MAX_DIGITS: usize = 20;
/// Oldest control ID that is taken for a time, in seconds: no list goes back further.
const MAX_AGE: u64 = 30 * 86_400;
/// How far in seconds the service's clock may be ahead of ours.
const MAX_SKEW: u64 = 300;

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

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True where this one lies behind `other` in the list.
    pub fn is_after(&self, other: &ControlId) -> bool {
        self.value() > other.value()
    }

    /// The Unix time in seconds at which the page's last address was listed, where it is plausible:
    /// at most 30 days before and 5 minutes after `now`.
    pub fn listed_at(&self, now: u64) -> Option<u64> {
        let time = u64::try_from(self.value()).ok()?;
        (time <= now.saturating_add(MAX_SKEW) && time.saturating_add(MAX_AGE) >= now)
            .then_some(time)
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
    fn a_time_only_where_plausible() {
        let now = 1_795_300_000;
        let at = |id: u64| ControlId::new(&id.to_string()).unwrap().listed_at(now);
        assert_eq!(at(now - 60), Some(now - 60));
        assert_eq!(at(now + 300), Some(now + 300));
        assert_eq!(at(now + 301), None);
        assert_eq!(at(now - 30 * 86_400), Some(now - 30 * 86_400));
        assert_eq!(at(now - 30 * 86_400 - 1), None);
        assert_eq!(at(100), None);
    }
}
