//! Unix time that never jumps.
//!
//! Bans end at a point in time. Were the system's clock set forward by an hour, all of them would end;
//! so the clock is read once, at the start, and counted on from there by the monotonic one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock; a copy in a forked process shows the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unix: Duration,
    start: Instant,
}

impl Clock {
    /// Takes the system's time as the start.
    pub fn start() -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            unix,
            start: Instant::now(),
        }
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        (self.unix + self.start.elapsed()).as_millis() as u64
    }

    /// Seconds since 1970.
    pub fn unix(&self) -> u64 {
        self.unix_ms() / 1000
    }
}
