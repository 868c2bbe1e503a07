//! Points in time as types, so that seconds and milliseconds cannot be taken for each other.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// A point in time in whole seconds since 1970, until the year 2106: what the ban tables store. The arithmetic ends
/// at 0 and at [`UnixSeconds::MAX`] instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct UnixSeconds(u32);

/// A point in time in milliseconds since 1970. The arithmetic ends at 0 and at [`UnixMillis::MAX`] instead of
/// wrapping.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
#[repr(transparent)]
pub struct UnixMillis(u64);

impl UnixSeconds {
    /// The beginning of 1970. In some places it stands for "never".
    pub const ZERO: Self = UnixSeconds(0);
    /// The last second that there is.
    pub const MAX: Self = UnixSeconds(u32::MAX);

    /// This many seconds since 1970.
    #[inline(always)]
    pub const fn new(seconds: u32) -> Self {
        UnixSeconds(seconds)
    }

    /// The same of a wider number. One above the range becomes [`UnixSeconds::MAX`].
    #[inline]
    pub const fn saturating(seconds: u64) -> Self {
        if seconds > u32::MAX as u64 {
            return Self::MAX;
        }
        UnixSeconds(seconds as u32)
    }

    /// Seconds since 1970.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The beginning of this second.
    #[inline]
    pub const fn millis(self) -> UnixMillis {
        UnixMillis(self.0 as u64 * 1_000)
    }

    /// The number of the minute since 1970 in which this lies: budgets begin again with each.
    #[inline]
    pub const fn minute(self) -> u32 {
        self.0 / 60
    }

    /// How much later than `earlier` this is; nothing if it is not later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.seconds_since(earlier) as u64)
    }

    /// The same in whole seconds.
    #[inline]
    pub const fn seconds_since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// The point in time that is this much earlier. A part of a second counts as none.
    #[inline]
    pub const fn before(self, time: Duration) -> Self {
        UnixSeconds(
            self.0
                .saturating_sub(UnixSeconds::saturating(time.as_secs()).0),
        )
    }

    /// The point in time that is this many seconds later or, below 0, earlier.
    #[inline]
    pub const fn shifted(self, seconds: i64) -> Self {
        UnixSeconds::saturating((self.0 as u64).saturating_add_signed(seconds))
    }
}

impl UnixMillis {
    /// The beginning of 1970. In some places it stands for "never".
    pub const ZERO: Self = UnixMillis(0);
    /// The last millisecond that there is.
    pub const MAX: Self = UnixMillis(u64::MAX);

    /// This many milliseconds since 1970.
    #[inline]
    pub const fn new(milliseconds: u64) -> Self {
        UnixMillis(milliseconds)
    }

    /// Milliseconds since 1970.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The second in which this lies.
    #[inline]
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds::saturating(self.0 / 1_000)
    }

    /// The first second that begins at or after this.
    #[inline]
    pub const fn seconds_up(self) -> UnixSeconds {
        UnixSeconds::saturating(self.0.div_ceil(1_000))
    }

    /// How much later than `earlier` this is; nothing if it is not later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The milliseconds from `other` to this; negative if this is earlier.
    #[inline]
    pub fn ahead_of(self, other: Self) -> i64 {
        let signed = |time: Self| i64::try_from(time.0).unwrap_or(i64::MAX);
        signed(self).saturating_sub(signed(other))
    }

    /// The point in time that is this much earlier.
    #[inline]
    pub fn before(self, time: Duration) -> Self {
        UnixMillis(self.0.saturating_sub(milliseconds(time)))
    }

    /// The point in time that is this many milliseconds later or, below 0, earlier.
    #[inline]
    pub const fn shifted(self, milliseconds: i64) -> Self {
        UnixMillis(self.0.saturating_add_signed(milliseconds))
    }
}

/// A duration in whole milliseconds; one that is too long for the number becomes the longest.
#[inline]
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<'de> Deserialize<'de> for UnixSeconds {
    /// A number above the range becomes [`UnixSeconds::MAX`]: a clock may have been wrong when it was written.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(UnixSeconds::saturating)
    }
}

impl Add<Duration> for UnixSeconds {
    type Output = Self;

    /// A part of a second counts as none.
    #[inline]
    fn add(self, time: Duration) -> Self {
        UnixSeconds(self.0.saturating_add(Self::saturating(time.as_secs()).0))
    }
}

impl Add<Duration> for UnixMillis {
    type Output = Self;

    /// A part of a millisecond counts as none.
    #[inline]
    fn add(self, time: Duration) -> Self {
        UnixMillis(self.0.saturating_add(milliseconds(time)))
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn nothing_wraps() {
        assert_eq!(UnixSeconds::MAX + HOUR, UnixSeconds::MAX);
        assert_eq!(UnixSeconds::new(5) + Duration::MAX, UnixSeconds::MAX);
        assert_eq!(UnixMillis::MAX + HOUR, UnixMillis::MAX);
        assert_eq!(UnixMillis::new(5) + Duration::MAX, UnixMillis::MAX);
        assert_eq!(UnixSeconds::new(5).before(HOUR), UnixSeconds::ZERO);
        assert_eq!(UnixMillis::new(5).before(HOUR), UnixMillis::ZERO);
        assert_eq!(
            UnixSeconds::new(5).since(UnixSeconds::new(7)),
            Duration::ZERO
        );
        assert_eq!(UnixMillis::new(5).since(UnixMillis::new(7)), Duration::ZERO);
        assert_eq!(UnixSeconds::new(5).shifted(-7), UnixSeconds::ZERO);
        assert_eq!(UnixSeconds::new(5).shifted(i64::MAX), UnixSeconds::MAX);
        assert_eq!(UnixSeconds::saturating(1 << 32), UnixSeconds::MAX);
        assert_eq!(UnixMillis::MAX.seconds(), UnixSeconds::MAX);
    }

    #[test]
    fn units_fit_together() {
        let second = UnixSeconds::new(1_795_300_000);
        let time = second.millis() + Duration::from_millis(999);
        assert_eq!(time.get(), 1_795_300_000_999);
        assert_eq!(time.seconds(), second);
        assert_eq!(time.seconds_up(), second + Duration::from_secs(1));
        assert_eq!(second.millis().seconds_up(), second);
        assert_eq!((second + HOUR).since(second), HOUR);
        assert_eq!((second + HOUR).seconds_since(second), 3_600);
        assert_eq!((time + HOUR).since(time), HOUR);
        assert_eq!((time + HOUR).before(HOUR), time);
        assert_eq!(time.ahead_of(time + HOUR), -3_600_000);
        assert_eq!(second.shifted(-1) + Duration::from_millis(1_999), second);
        assert_eq!(format!("{second:>12} {time}"), "  1795300000 1795300000999");
    }

    #[test]
    fn in_files_a_time_is_a_plain_number() {
        assert_eq!(serde_json::to_string(&UnixSeconds::new(7)).unwrap(), "7");
        assert_eq!(
            serde_json::from_str::<UnixMillis>("7").unwrap(),
            UnixMillis::new(7)
        );
        let beyond = serde_json::from_str::<UnixSeconds>("4294967296");
        assert_eq!(beyond.unwrap(), UnixSeconds::MAX);
        assert!(serde_json::from_str::<UnixSeconds>("-1").is_err());
    }
}
